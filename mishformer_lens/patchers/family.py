"""The forms that the data of a family and of a variant take."""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from mishformer_lens.engine import Edits
from mishformer_lens.errors import UnsupportedModelError
from mishformer_lens.patchers import contract
from mishformer_lens.patchers.contract import EXPERTS, HookSpec
from mishformer_lens.patchers.parts import MLP, PLAIN_MLP, PRE_NORM_BLOCK, Attention, Block, DropIn, Experts, Need, Norm

NORMS_BEFORE = "norms before attention and MLP"
"""What a block lacks, among parts and hook points, that has its norms in the residual stream, in a family of both."""

ROUTER = "mlp.router"

_PARTS_OF_THE_MODEL = {"blocks", "embed.ln", "ln_final"}
_WRITTEN_BY = {"hook_attn_out": "attn", "hook_mlp_out": "mlp"}


@dataclasses.dataclass(frozen=True, eq=False)
class Variant:
    """All edits of one family for one source shape.

    Attributes:
        family: name of the family.
        name: ``v<major>_<minor>``, after the first release that it serves.
        edits: the edits, by member.
        attention: the attention implementations that its releases offer.
        unsupported: what its releases cannot do, with the reason.
        cache_argument: how their models call the key-value cache that they take and give.
        cache_by_place: whether their models pair the blocks that they run with the cache's entries one by one; others
            give each block the whole cache.
        described: the fields of the family's description that are otherwise in its releases.
    """

    family: str
    name: str
    edits: Edits = dataclasses.field(repr=False)
    attention: tuple[str, ...] = ()
    unsupported: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    cache_argument: str = "past_key_values"
    cache_by_place: bool = False
    described: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def first_release(self) -> str:
        """The release after which the variant is named, as ``4.45``."""
        return self.name.removeprefix("v").replace("_", ".")

    @property
    def members(self) -> tuple[str, ...]:
        """The classes and functions that the edits touch."""
        return tuple(dict.fromkeys(member.partition(".")[0] for member in self.edits))

    def seen(self, family: "Family") -> "Family":
        """The description of its family as it holds in its releases."""
        return _replaced(family, self) if self.described else family

    def __deepcopy__(self, memo: dict[int, Any]) -> "Variant":
        return self


@functools.lru_cache(maxsize=256)
def _replaced(family: "Family", variant: Variant) -> "Family":
    # One for each variant: what is known of its hook points is kept by it.
    return _redescribed(family, variant.described)


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """The description of a model family: what it has in every release.

    Attributes:
        name: name of its package in transformers.
        base_model: the class that holds embeddings and blocks.
        components: TransformerLens's name of a part to HuggingFace's: ``blocks``, ``ln_final`` and ``embed.ln``, which
            few have, seen from the base model, the others from a block. Empty where a part is no module, and its code
            the block's own.
        norm, attention, mlp, block: what its blocks consist of.
        experts: what its mixtures of experts are like, if it has some.
        learned_positions: whether an embedding of positions is added to that of the tokens.
        cross_attention: what a block has beside, or instead of, ``components`` where it attends to what an encoder
            gave, too: ``cross_attn``, its norm ``ln2``, and the MLP's, which is ``ln3`` then. None where no block does.
        optional: the parts among all these that some models or blocks of the family lack.
        aliases: other names of parts, under which their hook points are found too.
        needs: configuration fields that have to have a certain value: models with another are refused.
        first_release: the first release of transformers that has it, as ``4.51``; the oldest that variants are for,
            where it is older.
        template: the folder of the template whose variants it follows; those in its own folder take precedence.
        prefix: what the names of its classes begin with in its source, for the template.
        forms: for the template, what stands in its source: edits by member, without the prefix.
        class_forms: likewise what takes the place of some of them in releases with an attention class per kernel, and
            what else the template asks of those.
        module_forms: likewise in releases in which each expert is a module.
        models: what is otherwise in models whose configuration says so: fields and their values, and then, by name,
            what takes the place of something in this description, as ``attention.rotary``.
        drop_in: what the drop-in ``HookedTransformer`` needs to know. None: it refuses the family.
    """

    name: str
    base_model: str
    components: Mapping[str, str]
    norm: Norm
    attention: Attention
    mlp: MLP = PLAIN_MLP
    block: Block = PRE_NORM_BLOCK
    experts: Experts | None = None
    learned_positions: bool = False
    cross_attention: Mapping[str, str] | None = None
    optional: tuple[str, ...] = ()
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    needs: Mapping[str, Need] = dataclasses.field(default_factory=dict)
    first_release: str = "4.44"
    template: str | None = None
    prefix: str = ""
    forms: Edits = dataclasses.field(default_factory=dict, repr=False)
    class_forms: Edits = dataclasses.field(default_factory=dict, repr=False)
    module_forms: Edits = dataclasses.field(default_factory=dict, repr=False)
    models: tuple[tuple[Mapping[str, object], Mapping[str, object]], ...] = ()
    drop_in: DropIn | None = dataclasses.field(default=None, repr=False)

    def refuse_other_configurations(self, config: object) -> None:
        """Refuse a model whose configuration says what hook points are not for.

        Raises:
            UnsupportedModelError: a field has another value than it has to have; the message says why.
        """
        fields = vars(config)
        for name, need in self.needs.items():
            found = fields.get(name, need.value)
            if found != need.value:
                raise UnsupportedModelError(
                    f"this {self.name} model has {name}={found}: {need.reason}. Needed is {name}={need.value}."
                )

    def for_model(self, config: object) -> "Family":
        """The description of a model with that configuration: this one, or what ``models`` makes of it."""
        chosen = tuple(
            index
            for index, (fields, _) in enumerate(self.models)
            if all(getattr(config, name) == value for name, value in fields.items())
        )
        return _with_differences(self, chosen) if chosen else self

    @property
    def module_name(self) -> str:
        """The module of transformers that the edits are for."""
        return f"transformers.models.{self.name}.modeling_{self.name}"

    @property
    def source_path(self) -> str:
        """Where that module lies in a distribution of transformers."""
        return f"{self.module_name.replace('.', '/')}.py"

    @property
    def embedding_hooks(self) -> tuple[HookSpec, ...]:
        """The hook points before the blocks, in the order in which they fire."""
        norm = contract.EMBED_NORM if "embed.ln" in self.components else ()
        return (*norm, contract.EMBED, contract.POS_EMBED) if self.learned_positions else (*norm, contract.EMBED)

    @functools.cached_property
    def block_hooks(self) -> tuple[HookSpec, ...]:
        """The hook points that a block may have, in the order in which they fire where it has them all."""
        return _hooks_of_block(self, frozenset(), None)

    @property
    def final_hooks(self) -> tuple[HookSpec, ...]:
        """The hook points after the blocks, in the order in which they fire."""
        return contract.FINAL

    def hooks_of(self, missing: frozenset[str], n_experts: int = 0) -> tuple[HookSpec, ...]:
        """The hook points of a block that lacks ``missing``, in the order in which they fire.

        Args:
            n_experts: how many experts it has; where it has none, it has an MLP.
        """
        return tuple(spec for spec in _hooks_of_block(self, missing, n_experts) if self.has(spec, missing))

    def components_of(self, missing: frozenset[str]) -> Mapping[str, str]:
        """``components``, as they are with a block that lacks ``missing``."""
        if self.cross_attention is None or "cross_attn" in missing:
            return self.components
        return {**self.components, **self.cross_attention}

    @property
    def optional_in_model(self) -> tuple[str, ...]:
        """The optional parts that are the model's own, beside its blocks."""
        return tuple(part for part in self.optional if part in _PARTS_OF_THE_MODEL)

    @property
    def optional_in_blocks(self) -> tuple[str, ...]:
        """The optional parts of blocks."""
        return tuple(part for part in self.optional if part not in _PARTS_OF_THE_MODEL)

    def block_parts(self, missing: frozenset[str], n_experts: int = 0) -> tuple[str, ...]:
        """The parts of a block that lacks ``missing``, as TransformerLens names them: modules that hook points are in.

        Args:
            n_experts: how many experts it has.
        """
        found = self.components_of(missing).items()
        parts = tuple(part for part, name in found if name and part not in missing | _PARTS_OF_THE_MODEL)
        numbers = range(n_experts) if self.has_expert_modules else ()
        return (*parts, *(f"{EXPERTS}.{number}" for number in numbers))

    @functools.cached_property
    def model_parts(self) -> tuple[str, ...]:
        """TransformerLens's names of the parts outside of the blocks that hook points are in."""
        return tuple(part for part in self.components if part in _PARTS_OF_THE_MODEL - {"blocks"})

    @property
    def has_expert_modules(self) -> bool:
        """Whether each expert is a module, rather than a slice of the weights of one for all."""
        return self.experts is not None and EXPERTS not in self.components

    def path_of(self, part: str, missing: frozenset[str]) -> str:
        """HuggingFace's name of a part of a block that lacks ``missing``, seen from the block."""
        components = self.components_of(missing)
        if part in components:
            return components[part]
        # An expert that is a module.
        return f"{components['mlp']}.{part.removeprefix('mlp.')}"

    def home_of(self, spec: HookSpec) -> str:
        """The part in whose code a hook point is: its own, or the block itself where that is no module."""
        writes = _WRITTEN_BY.get(spec.name, "")
        if writes in self.block.written_inside:
            return writes
        if spec.is_of_expert and not self.has_expert_modules:
            return EXPERTS
        if spec.name == "mlp.hook_expert_weights" and ROUTER in self.components:
            return ROUTER
        return spec.part if self.components.get(spec.part) != "" else ""

    def carried_by(self, part: str, missing: frozenset[str], n_experts: int) -> Mapping[str, str]:
        """The hook points that a part of a block carries, as in :meth:`hooks_of`: attribute to name in the block."""
        return _carried(self, missing, n_experts).get(part, {})

    def has(self, spec: HookSpec, missing: frozenset[str]) -> bool:
        """Whether a block that lacks ``missing`` has a hook point: parts, names of hook points, and NORMS_BEFORE."""
        there = spec.part not in missing or (self.block.shared_norm and spec.part == "ln2")
        return there and spec.name not in missing

    def places_of(self, spec: HookSpec, missing: frozenset[str]) -> tuple[str, ...]:
        """The parts of a block that lacks ``missing`` in whose patched code a hook point is."""
        if spec.part in missing:
            # The block asks the norm that it shares with attention.
            return "", "ln1"
        home, taken_by = self.home_of(spec), spec.taken_by
        return (home,) if taken_by in (None, home) else (home, taken_by)

    def has_torch_norm(self, part: str) -> bool:
        """Whether a part is one of torch's layer norms, rather than a norm of a class of the family's own."""
        of_heads = part.startswith("attn.")
        own = self.norm.own or (of_heads and self.attention.query_key_norm == "each head")
        return (of_heads or part.rpartition(".")[2].startswith("ln")) and not own

    @functools.cached_property
    def variants(self) -> tuple[Variant, ...]:
        """Every variant of the family, oldest first: one per file ``v<major>_<minor>.py``.

        Such files are in the family's own folder and in that of its template. Where the family is younger than a file
        of its template, the variant has the number of the family's first release.
        """
        found: dict[tuple[int, ...], Variant] = {}
        if self.template is not None:
            for name, module in _variant_modules(self.template).items():
                described = module.described(self) if "described" in vars(module) else {}
                found[_release(name)] = self._variant(name, module, module.edits(self), described)
        for name, module in _variant_modules(self.name).items():
            found[_release(name)] = self._variant(name, module, module.EDITS, vars(module).get("DESCRIBED", {}))
        begin = tuple(map(int, self.first_release.split(".")))
        reached = max((release for release in found if release <= begin), default=begin)
        kept = {max(release, begin): found[release] for release in sorted(found) if release >= reached}
        return tuple(
            dataclasses.replace(variant, name="v" + "_".join(map(str, release))) for release, variant in kept.items()
        )

    def _variant(self, name: str, module: Any, edits: Edits, described: Mapping[str, Any]) -> Variant:
        return Variant(
            self.name,
            name,
            edits,
            module.ATTENTION,
            module.UNSUPPORTED,
            module.CACHE_ARGUMENT,
            module.CACHE_BY_PLACE,
            described,
        )

    def variant(self, name: str) -> Variant:
        """The variant called ``name``."""
        return next(variant for variant in self.variants if variant.name == name)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Family":
        return self


def _redescribed(family: Family, values: Mapping[str, Any]) -> Family:
    """The family with other values in its description; its variants are the very same."""
    other = dataclasses.replace(family, **values)
    vars(other)["variants"] = family.variants
    return other


@functools.lru_cache(maxsize=256)
def _with_differences(family: Family, chosen: tuple[int, ...]) -> Family:
    """The description with some of ``family.models``, the same object each time."""
    values: dict[str, Any] = {"models": ()}
    for index in chosen:
        for name, value in family.models[index][1].items():
            whole, _, inner = name.partition(".")
            before = values.get(whole, getattr(family, whole))
            if isinstance(before, Mapping):
                value = {**before, inner: value}
            elif inner:
                value = dataclasses.replace(before, **{inner: value})
            values[whole] = value
    return _redescribed(family, values)


@functools.lru_cache(maxsize=1024)
def _hooks_of_block(family: Family, missing: frozenset[str], n_experts: int | None) -> tuple[HookSpec, ...]:
    parts = family.components_of(missing).keys()
    norms = family.block.norms if NORMS_BEFORE not in missing else "stream"
    block = dataclasses.replace(family.block, norms=norms)
    return contract.block_hooks(parts, family.attention, family.mlp, block, family.experts, n_experts)


@functools.lru_cache(maxsize=1024)
def _carried(family: Family, missing: frozenset[str], n_experts: int) -> dict[str, dict[str, str]]:
    """Part to attribute to name of all hook points that modules of a block carry themselves."""
    found: dict[str, dict[str, str]] = {}
    for spec in family.hooks_of(missing, n_experts):
        part, attribute = family.home_of(spec), spec.name.rpartition(".")[2]
        if spec.is_of_expert:
            # An expert that is a module runs the code of an MLP; where they are one, its helper has their hook points.
            attribute = contract.EXPERT_HOOKS[attribute]
        if part != EXPERTS:
            found.setdefault(part, {})[attribute] = spec.name
    return found


def _variant_modules(folder: str) -> dict[str, ModuleType]:
    """The modules called ``v<major>_<minor>`` in a folder of this package, by name."""
    package = importlib.import_module(f"mishformer_lens.patchers.{folder}")
    names = [info.name for info in pkgutil.iter_modules(package.__path__) if info.name.startswith("v")]
    return {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}


def _release(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.removeprefix("v").split("_")))
