"""Which keys a query may see under transformers' attention kernels, which are told by lengths and distances."""

import collections
import functools
import importlib

import torch

from mishformer_lens.errors import AttentionKernelError


def distance_between(query: torch.Tensor, key: torch.Tensor, offset: int) -> torch.Tensor:
    """How far before its query each key lies: ``[query_pos, key_pos]``. The first query stands at key ``offset``."""
    queries = torch.arange(query.shape[-2], device=query.device) + offset
    return queries[:, None] - torch.arange(key.shape[-2], device=query.device)


def triangle(query: torch.Tensor, key: torch.Tensor, offset: int) -> torch.Tensor:
    """Which keys do not lie behind their query: ``[query_pos, key_pos]``. The first query stands at key ``offset``."""
    return distance_between(query, key, offset) >= 0


def packed(
    query: torch.Tensor, key: torch.Tensor, query_ends: torch.Tensor, key_ends: torch.Tensor, top_left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """For texts of given lengths in rows put one after another: whether key and query are of one text, and how far
    before its query each key lies. Both are ``[batch, 1, query_pos, key_pos]``.

    Args:
        query_ends, key_ends: where texts end, counted over all rows; a zero comes first.
        top_left: whether the first query stands at the first key of its text; else the last one at the last.

    Raises:
        AttentionKernelError: queries see keys of another row.
    """
    (batch, _, queries, _), keys = query.shape, key.shape[-2]
    query_ends, key_ends = (each.to(query.device, torch.int64) for each in (query_ends, key_ends))
    of_query, of_key = (
        torch.bucketize(torch.arange(batch * number, device=query.device), ends[1:], right=True)
        for number, ends in ((queries, query_ends), (keys, key_ends))
    )
    texts = query_ends.numel() - 1
    same = (of_query[:, None] == of_key) & (of_key < texts)
    by_row = same.view(batch, queries, batch, keys).transpose(1, 2)
    if by_row[~torch.eye(batch, dtype=torch.bool, device=query.device)].any():
        raise AttentionKernelError(
            "hook_attn_scores or hook_pattern has a hook, and the attention kernel is called with lengths of texts "
            "(cu_seq_lens_q, cu_seq_lens_k) by which a text lies in two rows of the batch, which scores "
            "[batch, head_index, query_pos, key_pos] have no room for. Take the hook off, or give the model one row."
        )
    lengths = key_ends.diff() - query_ends.diff()
    begins = key_ends[:-1] - query_ends[:-1] + (torch.zeros_like(lengths) if top_left else lengths)
    begins = torch.cat([begins, begins.new_zeros(1)])  # what lies beyond the last text sees nothing
    places = torch.arange(batch * queries, device=query.device) + begins[of_query]
    distance = places.view(batch, queries, 1) - torch.arange(batch * keys, device=query.device).view(batch, 1, keys)
    return torch.diagonal(by_row).movedim(-1, 0)[:, None], distance[:, None]


@functools.cache
def reach(sliding_window: int) -> int:
    """How many keys before its own a query sees: up to 4.55 one more than the window is wide, with its own key."""
    library = importlib.import_module("transformers.modeling_flash_attention_utils")
    tell = vars(library).get("_process_flash_attention_kwargs")
    if tell is None:
        return sliding_window
    supported = collections.defaultdict(bool, window_size=True)
    told = tell(2, sliding_window + 1, True, sliding_window=sliding_window, supports_mapping=supported)
    return int(told["window_size"][0])
