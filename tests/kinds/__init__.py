"""What models of each family the suite runs on: one module per family, with its kinds by name.

A kind switches on all that a family has, and says in a few words what its blocks look like; what that means for hook
points is written down in `tests/conformance/families/contract.py`, independent of the package's own descriptions.
"""

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any, Literal

import transformers
from packaging.version import Version


@dataclasses.dataclass(frozen=True)
class Counterpart:
    """The model that TransformerLens's own ``HookedTransformer`` computes as HuggingFace does, from a release on.

    Attributes:
        since: that release.
        changes: the configuration fields in which the model is not as the kind has it.
        called: what it is called. TransformerLens goes by the name where it has a template for it, and reads the
            configuration of any other.
        template: TransformerLens's fields in which the model is not as the template has it, beside its sizes; None
            where there is no template.
    """

    since: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    called: str = "model"
    template: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of model. Sizes are those of `tests/models.py`.

    Attributes:
        family: the family's name in transformers.
        classes: what its classes are called: ``config``, ``base`` and ``causal``.
        fields: configuration fields beside the common ones; those that a release does not know are left out.
        key_value_heads: how many heads keys and values have.
        d_head: the width of a head.
        parallel: whether attention and MLP read the same residual stream.
        shared_norm: whether one norm serves both.
        norms: where norms stand: before attention and MLP, after them, or both; or in the residual stream, after what
            these give was added.
        final_norm: whether a norm stands behind the blocks.
        embed_width: the width of the token embedding, where it is projected to the model's.
        query_key_norm: whether queries and keys are normalised: head by head, or all heads at once.
        norms_in_turn: whether queries are normalised before keys are projected.
        gated: whether the MLP is gated.
        rotary: whether queries and keys are rotated by their positions.
        learned_positions: whether an embedding of positions is added to that of the tokens.
        modules: HuggingFace's names in a block of the modules whose inputs and outputs hook points show.
        sinks: whether each head has a sink that takes a part of the pattern.
        softcap: by what attention scores are capped.
        windows: how many keys a query sees in each layer; None: all of them.
        like_flash: configuration fields with which eager attention computes what flash attention does without them.
        rotated: how many numbers of each head are rotated by its position, in each layer; None: all of them.
        scaled_embedding: by what the token embedding is multiplied before the first block.
        attention_scale: by what products of queries and keys are multiplied; by default, the root of ``d_head``.
        in_transformer_lens: what TransformerLens's own ``HookedTransformer`` computes as HuggingFace does, by release.
        is_readable: whether TransformerLens can read the configuration as the installed transformers has it.
        d_mlp: how many neurons a layer has.
        embedding_norm: HuggingFace's name of a norm behind the token embedding, seen from the base model.
        stream_from_norms: whether the residual stream goes on from what comes of a norm, not from what goes into it.
        alibi: from which key on the biases of attention scores count; empty where there are none.
        alibi_scale: by what they are multiplied.
        fused: how one projection lays out queries, keys and values: ``part``: all queries, all keys, all values;
            ``group``: for each key its queries, that key, its value.
        eager_differs: why eager attention computes something else than the release's kernels do.
        clipped: by what queries, keys and values are clipped behind their hook points.
        experts: how many experts the mixtures have that stand in the place of MLPs; none where there are only MLPs.
        choices: how many experts each token goes to.
        weights_after_choice: whether an expert's weight is made from those of the chosen experts alone.
        choices_add_up: whether the weights of the chosen experts are scaled so that they add up to one.
        d_expert: the width of an expert.
        clamped: whether an expert has biases, and its gate and what that multiplies are clamped.
        experts_together: whether the release computes all experts together by itself.
        shared_expert: HuggingFace's name, seen from a mixture, of the expert that all tokens go to as well, if any.
        d_shared: its width.
        shared_first: whether it runs before the others.
        dense: the layers that have an MLP all the same.
        norm: root mean square, whose ``hook_normalized`` comes before the gain; or layer norm, after gain and bias.
    """

    family: str
    classes: Mapping[str, str]
    fields: Mapping[str, Any]
    key_value_heads: int = 2
    d_head: int = 8
    parallel: bool = False
    shared_norm: bool = False
    norms: Literal["before", "after", "both", "stream"] = "before"
    final_norm: bool = True
    embed_width: int | None = None
    query_key_norm: Literal["", "per head", "joined"] = ""
    norms_in_turn: bool = False
    gated: bool = True
    rotary: bool = True
    learned_positions: bool = False
    modules: Mapping[str, str] = dataclasses.field(default_factory=lambda: MODULES)
    sinks: bool = False
    softcap: float | None = None
    windows: tuple[int | None, ...] = (None, None)
    like_flash: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rotated: tuple[int, int] | None = None
    scaled_embedding: float = 1.0
    attention_scale: float | None = None
    d_mlp: int = 48
    embedding_norm: str = ""
    stream_from_norms: bool = False
    alibi: Literal["", "first key", "last key"] = ""
    alibi_scale: float = 1.0
    fused: Literal["part", "group"] = "part"
    eager_differs: str = ""
    clipped: float | None = None
    experts: int = 0
    choices: int = 2
    weights_after_choice: bool = False
    choices_add_up: bool = True
    d_expert: int = 0
    clamped: bool = False
    experts_together: bool = False
    shared_expert: str = ""
    d_shared: int = 0
    shared_first: bool = False
    dense: tuple[int, ...] = ()
    norm: Literal["rms", "layer"] = "rms"
    in_transformer_lens: tuple[Counterpart, ...] = ()
    is_readable: bool = True

    @property
    def scaling(self) -> float:
        """By what products of queries and keys are multiplied."""
        return self.d_head**-0.5 if self.attention_scale is None else self.attention_scale

    def is_mixture(self, layer: int) -> bool:
        """Whether a layer has a mixture of experts rather than an MLP."""
        return bool(self.experts) and layer not in self.dense

    @property
    def exists(self) -> bool:
        """Whether the installed release has the family."""
        return is_offered(self.classes["config"])

    def counterpart(self, release: Version) -> Counterpart | None:
        """What a release of TransformerLens with a ``HookedTransformer`` gets right; None: nothing."""
        fitting = [each for each in self.in_transformer_lens if Version(each.since) <= release]
        return fitting[-1] if fitting else None


MODULES: Mapping[str, str] = {
    "ln1": "input_layernorm",
    "ln2": "post_attention_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "out": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
"""As Llama calls them."""


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN_ROPE = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}


def source(family: str) -> str:
    """The source of a family's models in the installed release; empty where it has none."""
    name = f"transformers.models.{family}"
    if importlib.util.find_spec(name) is None:
        return ""
    return inspect.getsource(importlib.import_module(f"{name}.modeling_{family}"))


def windows(family: str, layers: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """The windows of a family's layers, where the installed release heeds them layer by layer.

    Before ``layer_types``, one mask with the window served all layers of some families; before that, no window did but
    under flash attention.
    """
    text = source(family)
    if "create_sliding_window_causal_mask" in text:
        return layers
    return (max(filter(None, layers)),) * len(layers) if "sliding_attend_mask" in text else (None,) * len(layers)


def head_dim(family: str, width: int) -> int:
    """The width of a head that a family's configuration may ask for; releases that ignore it have the usual one."""
    return width if 'getattr(config, "head_dim"' in source(family) else 8


def untied(config: str) -> dict[str, Any]:
    """The field that unties embeddings, where a configuration's own default fails: 5.4 wants an integer of Olmo."""
    declared = vars(getattr(transformers, config, object)).get("__annotations__", {}).get("tie_word_embeddings")
    return {"tie_word_embeddings": 0} if declared is int else {}


def names(prefix: str) -> dict[str, str]:
    """What the classes of a family are called as a rule."""
    return {"config": f"{prefix}Config", "base": f"{prefix}Model", "causal": f"{prefix}ForCausalLM"}


def is_offered(name: str) -> bool:
    """Whether the installed transformers has something called so."""
    return name in _names_in_transformers()


@functools.cache
def _names_in_transformers() -> frozenset[str]:
    # Telling them takes transformers a sixth of a second.
    return frozenset(dir(transformers))


@functools.cache
def kinds() -> dict[str, Kind]:
    """Every kind, by name."""
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    return {name: kind for module in modules for name, kind in module.KINDS.items()}
