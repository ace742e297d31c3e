"""Facts about the installed release that no variant declares, read from the signatures of its public interface.

Each function says why the fact matters. Tests ask here; none of them looks at a version number.
"""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import transformers

from tests.models import classes_of, make_config


def model_class(family: str, head: str) -> Any:
    """The class of a family with that head, or None where the release has none."""
    name = classes_of(family).get(head, "")
    # Some releases give what they import late by attribute alone.
    return vars(transformers).get(name) or getattr(transformers, name, None)


def takes(family: str, argument: str, head: str = "base") -> bool:
    """Whether the public forward of a model takes ``argument``.

    ``head_mask`` went away in 5.0.
    """
    return argument in inspect.signature(model_class(family, head).forward).parameters


def past(model: Any, output: Any) -> dict[str, Any]:
    """The argument by which ``model`` goes on from the key-value cache of an output.

    It is called ``past_key_values``, and ``cache`` from 5.24 on.
    """
    name = "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"
    return {name: output[name]}


def key_value_cache(model: Any, output: Any) -> Any:
    """The key-value cache of an output."""
    (cache,) = past(model, output).values()
    return cache


def has_rope_parameters() -> bool:
    """Whether ``rope_parameters``, with the base in it, configures rotary embeddings, instead of ``rope_scaling``."""
    return "rope_parameters" in inspect.signature(transformers.GPTNeoXConfig).parameters


def rope(kind: str, rope_type: str) -> dict[str, Any]:
    """The configuration fields that choose a rotary embedding of ``rope_type`` with factor 2."""
    if not has_rope_parameters():
        # 4.44 knows no other name than "type"; all later ones take it, too.
        return {"rope_scaling": {"type": rope_type, "factor": 2.0}}
    return {"rope_parameters": {**make_config(kind).rope_parameters, "rope_type": rope_type, "factor": 2.0}}


def enable_checkpointing(model: Any, **arguments: Any) -> None:
    """Recompute each block in the backward pass.

    5.x calls it activation checkpointing and warns at the older name.
    """
    newer = getattr(type(model), "activation_checkpointing_enable", None)
    (newer or type(model).gradient_checkpointing_enable)(model, arguments)


def modeling_module(family: str) -> Any:
    """The module that defines the models of a family."""
    return importlib.import_module(f"transformers.models.{family}.modeling_{family}")


def attention_functions() -> Any | None:
    """The registry of attention functions, or None: before 4.48 there was a class for every implementation."""
    return vars(importlib.import_module("transformers.modeling_utils")).get("ALL_ATTENTION_FUNCTIONS")


def attention_classes(family: str) -> Mapping[str, type]:
    """The attention class of every implementation; empty where one class serves all."""
    named = {name: value for name, value in vars(modeling_module(family)).items() if name.endswith("ATTENTION_CLASSES")}
    assert len(named) < 2
    return next((dict(value) for value in named.values()), {})


def supports_static_cache(family: str) -> bool:
    """Whether a model generates with a cache of fixed size.

    Up to 4.52 another flag declared it: GPT-2 refuses it there, and GPT-NeoX fails with a shape error of its own.
    """
    return bool(getattr(model_class(family, "causal"), "_can_compile_fullgraph", False))


def prunes_heads(family: str) -> bool:
    """Whether a model can be made smaller by whole heads: ``prune_heads`` went away in 5.0."""
    return "prune_heads" in dir(model_class(family, "base"))


def uses_registry(kind: str) -> bool:
    """Whether the family's attention looks its function up in the registry: GPT-NeoX's does from 4.49 on."""
    return "ALL_ATTENTION_FUNCTIONS" in vars(modeling_module(kind.removesuffix("_sequential")))


def passes_on(family: str, argument: str) -> bool:
    """Whether what a caller of the model says reaches the attention function: models take any argument from 4.5x on."""
    parameters = inspect.signature(model_class(family, "causal").forward).parameters
    return uses_registry(family) and argument not in parameters and "kwargs" in parameters


def window_reach(sliding_window: int) -> int:
    """How many keys before its own flash attention lets a query see: up to 4.55 one more than in later releases."""
    library = importlib.import_module("transformers.modeling_flash_attention_utils")
    return sliding_window - 1 if "sliding_window - 1" in inspect.getsource(library) else sliding_window


def kernels_scale_by_layer() -> bool:
    """Whether GPT-2 tells its kernels by what to scale: in older releases only eager attention scales by the layer."""
    return "scaling=self.scaling" in inspect.getsource(modeling_module("gpt2"))
