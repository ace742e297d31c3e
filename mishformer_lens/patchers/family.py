"""The forms that the data of a family and of a variant take."""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from mishformer_lens.engine import Edits
from mishformer_lens.patchers.contract import HookSpec


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
    """

    family: str
    name: str
    edits: Edits = dataclasses.field(repr=False)
    attention: tuple[str, ...] = ()
    unsupported: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    cache_argument: str = "past_key_values"

    @property
    def first_release(self) -> str:
        """The release after which the variant is named, as ``4.45``."""
        return self.name.removeprefix("v").replace("_", ".")

    @property
    def members(self) -> tuple[str, ...]:
        """The classes and functions that the edits touch."""
        return tuple(dict.fromkeys(member.partition(".")[0] for member in self.edits))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Variant":
        return self


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """What a model family has in every release.

    Attributes:
        name: name of its package in transformers.
        base_model: the class that holds embeddings and blocks.
        components: TransformerLens's name of a part to HuggingFace's: ``blocks`` and ``ln_final`` seen from the base
            model, the others from a block.
        embedding_hooks, block_hooks, final_hooks: the hook points, in the order in which they fire.
        qkv_layout: the order of the fused query, key and value projection's outputs, as an einops axis.
        parallel_switch: the configuration field that tells whether attention and MLP read the same residual stream;
            such blocks have no ``hook_resid_mid``. None where no model of the family does.
        head_size: the attention's attribute that has the width of a head.
        n_heads: the attention's attribute that has the number of heads. None where it has none in some releases, and
            as many as the model's width has room for.
    """

    name: str
    base_model: str
    components: Mapping[str, str]
    embedding_hooks: tuple[HookSpec, ...]
    block_hooks: tuple[HookSpec, ...]
    final_hooks: tuple[HookSpec, ...]
    qkv_layout: str
    parallel_switch: str | None = None
    head_size: str = "head_dim"
    n_heads: str | None = None

    @property
    def module_name(self) -> str:
        """The module of transformers that the edits are for."""
        return f"transformers.models.{self.name}.modeling_{self.name}"

    @property
    def source_path(self) -> str:
        """Where that module lies in a distribution of transformers."""
        return f"{self.module_name.replace('.', '/')}.py"

    @functools.cached_property
    def variants(self) -> tuple[Variant, ...]:
        """Every variant of the family, oldest first: one per file ``v<major>_<minor>.py`` in its folder."""
        package = importlib.import_module(f"mishformer_lens.patchers.{self.name}")
        names = [info.name for info in pkgutil.iter_modules(package.__path__) if info.name.startswith("v")]
        modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
        found = [
            Variant(self.name, name, module.EDITS, module.ATTENTION, module.UNSUPPORTED, module.CACHE_ARGUMENT)
            for name, module in zip(names, modules, strict=True)
        ]
        return tuple(sorted(found, key=lambda variant: tuple(map(int, variant.first_release.split(".")))))

    def variant(self, name: str) -> Variant:
        """The variant called ``name``."""
        return next(variant for variant in self.variants if variant.name == name)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Family":
        return self
