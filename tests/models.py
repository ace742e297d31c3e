"""Tiny models with deterministic weights, the same in every release of transformers.

Sizes are chosen so that no two axes of an activation have the same length: a wrong axis order shows as a wrong shape.
"""

import dataclasses
import functools
import os
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers

from tests.kinds import kinds
from tests.outcome_plugin import family_of

DEVICE = torch.device(os.environ.get("MISHFORMER_LENS_DEVICE", "cpu"))

# Tiny tensors are slower on several threads, and two runs of one model must add up in the same order.
torch.set_num_threads(1)

BATCH, POS = 3, 7
N_LAYERS, N_HEADS, D_HEAD, D_MODEL, D_MLP, D_VOCAB = 2, 4, 8, 32, 48, 61
MAX_POS = 64
N_EXPERTS = 4
"""Of those kinds that have experts."""

KINDS = ("gpt2", "gpt_neox", "gpt_neox_sequential")
"""The block forms: GPT-2, and GPT-NeoX with a parallel and with a sequential residual."""

_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2Config",
        {
            "n_embd": D_MODEL,
            "n_head": N_HEADS,
            "n_layer": N_LAYERS,
            "n_inner": D_MLP,
            "n_positions": MAX_POS,
            # dropout would make two runs differ in training mode unless they are seeded; scenarios turn it on
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
        },
    ),
    "gpt_neox": (
        "GPTNeoXConfig",
        {
            "hidden_size": D_MODEL,
            "num_attention_heads": N_HEADS,
            "num_hidden_layers": N_LAYERS,
            "intermediate_size": D_MLP,
            "max_position_embeddings": MAX_POS,
            # half of each head is rotated: the rotated part and the rest are both in hook_rot_q
            "rotary_pct": 0.5,
            "use_parallel_residual": True,
        },
    ),
}
_CONFIGS["gpt_neox_sequential"] = (
    _CONFIGS["gpt_neox"][0],
    {**_CONFIGS["gpt_neox"][1], "use_parallel_residual": False},
)

HEADS = {
    "gpt2": {
        "base": "GPT2Model",
        "causal": "GPT2LMHeadModel",
        "sequence classification": "GPT2ForSequenceClassification",
        "token classification": "GPT2ForTokenClassification",
        "question answering": "GPT2ForQuestionAnswering",
        "double heads": "GPT2DoubleHeadsModel",
    },
    "gpt_neox": {
        "base": "GPTNeoXModel",
        "causal": "GPTNeoXForCausalLM",
        "sequence classification": "GPTNeoXForSequenceClassification",
        "token classification": "GPTNeoXForTokenClassification",
        "question answering": "GPTNeoXForQuestionAnswering",
    },
}
"""The model classes of a family, by what their head does."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of model with one attention implementation, in one dtype."""

    kind: str
    attention: str = "eager"
    dtype: torch.dtype = torch.float32

    @property
    def family(self) -> str:
        return family_of(self.kind)

    def __str__(self) -> str:
        return f"{self.kind}-{self.attention}-{str(self.dtype).removeprefix('torch.')}"


def classes_of(family: str) -> Mapping[str, str]:
    """What the model classes of a family are called, by what their head does."""
    return HEADS.get(family) or next(kind.classes for kind in kinds().values() if kind.family == family)


def _config_of(kind: str) -> tuple[str, dict[str, Any]]:
    """The name of a kind's configuration class, and its fields."""
    if kind in _CONFIGS:
        return _CONFIGS[kind]
    other = kinds()[kind]
    sizes = {
        "hidden_size": D_MODEL,
        "num_attention_heads": N_HEADS,
        "num_key_value_heads": other.key_value_heads,
        "num_hidden_layers": N_LAYERS,
        "intermediate_size": D_MLP,
        "max_position_embeddings": MAX_POS,
    }
    return other.classes["config"], {**sizes, **other.fields}


def make_config(kind: str, attention: str = "eager", **changes: Any) -> Any:
    """The configuration of a tiny model."""
    name, fields = _config_of(kind)
    if kind not in _CONFIGS and kinds()[kind].experts and attention == "eager":
        # Else experts are computed together, by what the release chooses.
        fields = {"experts_implementation": "eager", **fields}
    common = {
        "vocab_size": D_VOCAB,
        "bos_token_id": 1,
        # no token ends a text: a generation of 20 tokens has 20 tokens
        "eos_token_id": None,
        "pad_token_id": 0,
        "num_labels": 3,
        "attn_implementation": attention,
    }
    return getattr(transformers, name)(**{**common, **fields, **changes})


def make_model(case: Case, head: str = "causal", **config_changes: Any) -> Any:
    """A model in evaluation mode. Two calls with the same arguments give two models with equal weights."""
    config = make_config(case.kind, case.attention, **config_changes)
    model = getattr(transformers, classes_of(case.family)[head])(config)
    fill_weights(model)
    return model.to(device=DEVICE, dtype=case.dtype).eval()


def fill_weights(model: Any) -> None:
    """Give every parameter values that depend on its name alone.

    No bias is zero and no gain is one, as they are in a new model: an activation that misses one of them shows.
    """
    unembedding, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if unembedding is not None and parameter is unembedding.weight and parameter is not embedding.weight:
                # GPT-NeoX's was renamed.
                seed = "unembedding.weight"
            else:
                seed = name
            is_matrix = parameter.dim() > 1
            mean, spread = (0.0, 1.5 * D_MODEL**-0.5) if is_matrix else (float(name.endswith("weight")), 0.2)
            parameter.copy_((_normal(seed, parameter.shape) * spread + mean).to(parameter))


@functools.cache
def _normal(seed: str, shape: torch.Size) -> torch.Tensor:
    # RandomState's numbers are the same in every release of numpy. Drawing them takes longer than building a model.
    random = np.random.RandomState(zlib.crc32(seed.encode()))
    return torch.from_numpy(random.standard_normal(tuple(shape))).float()


def make_tokens(batch: int = BATCH, pos: int = POS) -> torch.Tensor:
    """Token ids ``[batch, pos]``, none of them the padding token."""
    ids = np.random.RandomState(7).randint(1, D_VOCAB, (batch, pos))
    return torch.from_numpy(ids).to(DEVICE)


def left_padding(batch: int = BATCH, pos: int = POS) -> torch.Tensor:
    """An attention mask ``[batch, pos]`` whose entry ``b`` hides its first ``b`` positions."""
    return (torch.arange(pos)[None] >= torch.arange(batch)[:, None]).long().to(DEVICE)


def right_padding(batch: int = BATCH, pos: int = POS) -> torch.Tensor:
    """An attention mask ``[batch, pos]`` whose entry ``b`` hides its last ``b`` positions."""
    return left_padding(batch, pos).flip(1)
