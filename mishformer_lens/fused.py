"""One projection that gives queries, keys and values together: taken apart by heads, and put together again."""

import einops
import torch

from mishformer_lens.patchers.parts import GROUP_BY_GROUP, PART_BY_PART

Heads = tuple[int, int, int]
"""How many heads queries, keys and values have."""


def part_of(fused: torch.Tensor, part: int, layout: str | None, heads: Heads, d_head: int) -> torch.Tensor:
    """Queries, keys or values (0, 1, 2) ``[..., head_index, d_head]`` out of ``fused`` ``[..., outputs]``.

    A view, but for queries group by group.
    """
    if layout == PART_BY_PART:
        # Not einops: keys and values may have fewer heads than queries.
        chosen: torch.Tensor = fused.split([number * d_head for number in heads], -1)[part].unflatten(-1, (-1, d_head))
        return chosen
    if layout == GROUP_BY_GROUP:
        return in_groups(fused, heads[1], d_head)[part].flatten(-3, -2)
    split: torch.Tensor = einops.rearrange(
        fused, f"... ({layout}) -> part ... head d_head", part=3, head=heads[0], d_head=d_head
    )[part]
    return split


def in_groups(fused: torch.Tensor, groups: int, d_head: int) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values ``[..., group, head_index, d_head]`` of a projection group by group, views."""
    split: torch.Tensor = fused.unflatten(-1, (groups, -1, d_head))
    return split[..., :-2, :], split[..., -2:-1, :], split[..., -1:, :]


def joined(parts: list[torch.Tensor], layout: str | None) -> torch.Tensor:
    """``[batch, pos, outputs]`` out of queries, keys and values ``[batch, pos, head_index, d_head]``."""
    if layout == PART_BY_PART:
        return torch.cat([part.flatten(-2) for part in parts], -1)
    if layout == GROUP_BY_GROUP:
        groups = parts[1].shape[-2]
        return torch.cat([part.unflatten(-2, (groups, -1)) for part in parts], -2).flatten(-3)
    stacked = torch.stack(parts)
    together: torch.Tensor = einops.rearrange(stacked, f"part batch pos head d_head -> batch pos ({layout})")
    return together
