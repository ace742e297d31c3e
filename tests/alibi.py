"""Attention with linear biases, computed anew from the paper's rule (https://arxiv.org/abs/2108.12409)."""

import torch


def slopes(n_heads: int) -> torch.Tensor:
    """One for each head: with as many heads as a power of two, 2^(-8/n), 2^(-16/n), … down to 2^-8.

    Otherwise those of the next smaller power of two, and then every other one of the next larger.
    """
    smaller = 1 << (n_heads.bit_length() - 1)
    if smaller == n_heads:
        return torch.tensor([2.0 ** (-8.0 * head / n_heads) for head in range(1, n_heads + 1)])
    return torch.cat([slopes(smaller), slopes(2 * smaller)[::2][: n_heads - smaller]])


def biases(n_heads: int, keys: int, begin: str) -> torch.Tensor:
    """What is added to scores, ``[head_index, 1, key_pos]``: slope times the place of the key.

    Within a row only differences count, so that it is the same as minus slope times distance.

    Args:
        begin: ``first key`` where places count from 0 on, ``last key`` where they count up to 0.
    """
    places = torch.arange(keys) - (0 if begin == "first key" else keys - 1)
    return slopes(n_heads)[:, None, None] * places
