"""TransformerLens's weight processing, on state dictionaries in its format. Each function returns a new dictionary.

None of it changes what the model predicts: log-probabilities stay what they were within the rounding of the dtype.
"""

import torch

from mishformer_lens.errors import ProcessingError
from mishformer_lens.hooked_transformer.transformer_lens_compat import FactoredMatrix

StateDict = dict[str, torch.Tensor]


def _layers(state_dict: StateDict) -> range:
    return range(1 + max(int(name.split(".")[1]) for name in state_dict if name.startswith("blocks.")))


def fold_layer_norm(state_dict: StateDict, fold_biases: bool = True, center_weights: bool = True) -> StateDict:
    """Move gain and bias of ``ln1``, ``ln2`` and ``ln_final`` into the weights that read from them; they disappear.

    Args:
        fold_biases: the biases too, which norms that do not centre lack; otherwise their entries stay.
        center_weights: also take the mean over ``d_model`` off these weights, which read normalised vectors of mean 0.
            Norms that do not centre give no such.
    """
    folded = dict(state_dict)
    for layer in _layers(state_dict):
        block = f"blocks.{layer}"
        attention = [(f"{block}.attn.{weight}", f"{block}.attn.{bias}") for weight, bias in _qkv(state_dict, block)]
        _fold(folded, f"{block}.ln1", attention, fold_biases, center_weights)
        into_mlp = ["in", "gate"] if f"{block}.mlp.W_gate" in state_dict else ["in"]
        mlp = [(f"{block}.mlp.W_{name}", f"{block}.mlp.b_{name}") for name in into_mlp]
        _fold(folded, f"{block}.ln2", mlp, fold_biases, center_weights)
    _fold(folded, "ln_final", [("unembed.W_U", "unembed.b_U")], fold_biases, center_weights)
    return folded


def _qkv(state_dict: StateDict, block: str) -> list[tuple[str, str]]:
    """What weights and biases of queries, keys and values are called, with an underscore for key-value heads."""
    shared = "_" if f"{block}.attn._W_K" in state_dict else ""
    return [("W_Q", "b_Q"), (f"{shared}W_K", f"{shared}b_K"), (f"{shared}W_V", f"{shared}b_V")]


def _fold(
    state_dict: StateDict, norm: str, readers: list[tuple[str, str]], fold_biases: bool, center_weights: bool
) -> None:
    gain = state_dict.pop(f"{norm}.w")
    bias = state_dict.pop(f"{norm}.b") if fold_biases else None
    for weight, reader_bias in readers:
        matrix = state_dict[weight]  # [..., d_model, d_out]
        if bias is not None:
            added = bias @ matrix
            # TransformerLens has no bias of a gate.
            state_dict[reader_bias] = state_dict[reader_bias] + added if reader_bias in state_dict else added
        matrix = matrix * gain[:, None]
        state_dict[weight] = matrix - matrix.mean(-2, keepdim=True) if center_weights else matrix


def center_writing_weights(state_dict: StateDict) -> StateDict:
    """Take the mean over ``d_model`` off all that writes to the residual stream, as every layer norm does anyway."""
    writers = ("embed.W_E", "pos_embed.W_pos", ".attn.W_O", ".attn.b_O", ".mlp.W_out", ".mlp.b_out")
    return {
        name: value - value.mean(-1, keepdim=True) if name.endswith(writers) else value
        for name, value in state_dict.items()
    }


def center_unembed(state_dict: StateDict) -> StateDict:
    """Take the mean over the vocabulary off ``W_U`` and ``b_U``: logits shift, log-probabilities stay."""
    centred = {
        name: state_dict[name] - state_dict[name].mean(-1, keepdim=True) for name in ("unembed.W_U", "unembed.b_U")
    }
    return state_dict | centred


def fold_value_biases(state_dict: StateDict) -> StateDict:
    """Move ``b_V`` into ``b_O``: attention patterns add up to 1, so that it adds the same to every position."""
    folded = dict(state_dict)
    for layer in _layers(state_dict):
        attn = f"blocks.{layer}.attn"
        name = f"{attn}.{_qkv(state_dict, f'blocks.{layer}')[2][1]}"
        value_bias, w_o = state_dict[name], state_dict[f"{attn}.W_O"]
        # A head of values serves several heads of queries.
        of_all_heads = value_bias.repeat_interleave(len(w_o) // len(value_bias), dim=0)
        folded[f"{attn}.b_O"] = state_dict[f"{attn}.b_O"] + torch.einsum("hd,hdm->m", of_all_heads, w_o)
        folded[name] = torch.zeros_like(value_bias)
    return folded


def refactor_factored_attn_matrices(state_dict: StateDict) -> StateDict:
    """Factor ``W_Q W_K^T`` into matrices of equal norms, and ``W_V W_O`` so that ``W_O`` is a rotation.

    Raises:
        ProcessingError: the model has rotary embeddings, which stand between query and key.
    """
    if "pos_embed.W_pos" not in state_dict:
        raise ProcessingError(
            "refactor_factored_attn_matrices needs the product of W_Q and W_K, and with rotary embeddings that "
            "depends on the positions. Leave it out."
        )
    refactored = fold_value_biases(state_dict)
    for layer in _layers(state_dict):
        attn = f"blocks.{layer}.attn"
        # The bias is one more row, for an input that is always 1.
        query, key = (
            torch.cat([state_dict[f"{attn}.W_{part}"], state_dict[f"{attn}.b_{part}"][:, None]], dim=1) for part in "QK"
        )
        even = FactoredMatrix(query, key.transpose(-1, -2)).make_even()
        for part, matrix in (("Q", even.A), ("K", even.B.transpose(-1, -2))):
            refactored[f"{attn}.W_{part}"], refactored[f"{attn}.b_{part}"] = matrix[:, :-1], matrix[:, -1]
        u, s, vh = FactoredMatrix(state_dict[f"{attn}.W_V"], state_dict[f"{attn}.W_O"]).svd()
        refactored[f"{attn}.W_V"], refactored[f"{attn}.W_O"] = u @ s.diag_embed(), vh.transpose(-1, -2)
    return refactored
