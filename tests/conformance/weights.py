"""A model's weights by TransformerLens's letters, whatever the family calls them and however it stores them."""

import dataclasses
from typing import Any

import torch

from tests.models import D_HEAD, N_HEADS


@dataclasses.dataclass(frozen=True)
class Affine:
    """``x @ weight + bias``, or gain and bias of a layer norm."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


@dataclasses.dataclass(frozen=True)
class Block:
    """Weights of one block, in float64.

    ``q``, ``k`` and ``v`` have weights ``[d_model, head_index * d_head]``; ``out`` has ``[head_index * d_head,
    d_model]``.
    """

    ln1: Affine
    ln2: Affine
    q: Affine
    k: Affine
    v: Affine
    out: Affine
    mlp_in: Affine
    mlp_out: Affine


def block_weights(model: Any, family: str, index: int) -> Block:
    """The weights of block ``index``."""
    if family == "gpt2":
        block = model.transformer.h[index]
        # Conv1D stores [in, out]; queries of all heads come before all keys.
        weight, bias = _double(block.attn.c_attn.weight), _double(block.attn.c_attn.bias)
        qkv = [Affine(w, b) for w, b in zip(weight.chunk(3, 1), bias.chunk(3), strict=True)]
        projections = (block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
        out, mlp_in, mlp_out = (Affine(_double(each.weight), _double(each.bias)) for each in projections)
        norms = (block.ln_1, block.ln_2)
    else:
        block = model.gpt_neox.layers[index]
        # Linear stores [out, in]; each head has its query, key and value side by side.
        weight = _double(block.attention.query_key_value.weight).reshape(N_HEADS, 3, D_HEAD, -1)
        bias = _double(block.attention.query_key_value.bias).reshape(N_HEADS, 3, D_HEAD)
        qkv = [Affine(weight[:, part].flatten(0, 1).T, bias[:, part].flatten()) for part in range(3)]
        linears = (block.attention.dense, block.mlp.dense_h_to_4h, block.mlp.dense_4h_to_h)
        out, mlp_in, mlp_out = (Affine(_double(each.weight).T, _double(each.bias)) for each in linears)
        norms = (block.input_layernorm, block.post_attention_layernorm)
    ln1, ln2 = (Affine(_double(norm.weight), _double(norm.bias)) for norm in norms)
    q, k, v = qkv
    return Block(ln1, ln2, q, k, v, out, mlp_in, mlp_out)


def final_norm(model: Any, family: str) -> Affine:
    """Gain and bias of the layer norm before the unembedding."""
    norm = model.transformer.ln_f if family == "gpt2" else model.gpt_neox.final_layer_norm
    return Affine(_double(norm.weight), _double(norm.bias))


def _double(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.detach().double()
