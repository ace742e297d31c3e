"""What a layer computes while its scores are looked at: what its kernel would have, from what the kernel is told."""

from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.attention_scores import AttentionScores
from mishformer_lens.errors import AttentionKernelError
from mishformer_lens.hooks import HookPoint
from tests import capabilities
from tests.conformance import stand_in_kernel
from tests.conformance.conftest import cases
from tests.models import D_MODEL, DEVICE, POS, Case, left_padding, make_model, make_tokens, right_padding
from tests.recording import assert_close, noise_like

pytestmark = pytest.mark.filterwarnings("ignore::mishformer_lens.errors.EagerFallbackWarning")

CLOSE = {"rtol": 1e-4, "atol": 2e-5}
SDPA = cases("sdpa", dtypes=(torch.float32,))
FUSED = cases("sdpa", "flash_attention_2", dtypes=(torch.float32,))
LOOKS = ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_attn_scores"]


def build(case: Case, **changes: Any) -> Any:
    if case.attention == "flash_attention_2":
        assert not changes
        return stand_in_kernel.make_flash_model(case).requires_grad_(False)
    return make_model(case, **changes).requires_grad_(False)


def assert_looking_changes_rounding_only(model: Any, **arguments: Any) -> dict[str, torch.Tensor]:
    plain = model(make_tokens(), **arguments).logits
    with mishformer_lens.instrument(model) as instrumentation, instrumentation.caching(LOOKS) as cache:
        assert_close(model(make_tokens(), **arguments).logits, plain, "logits", **CLOSE)
    return cache


@pytest.mark.parametrize("mask", [None, left_padding, right_padding], ids=["none", "left", "right"])
@pytest.mark.parametrize("case", FUSED)
def test_every_position_is_the_kernel_s_padded_ones_too(case: Case, mask: Any) -> None:
    if case.attention == "sdpa" and mask is left_padding:
        # What a query that may see nothing gets depends on the form that the release gives the mask.
        model = build(case)
        plain = model(make_tokens(), attention_mask=mask()).logits
        with mishformer_lens.instrument(model) as instrumentation, instrumentation.caching(LOOKS):
            found = model(make_tokens(), attention_mask=mask()).logits
        assert_close(found[mask().bool()], plain[mask().bool()], "logits", **CLOSE)
    else:
        assert_looking_changes_rounding_only(build(case), attention_mask=None if mask is None else mask())


def packed() -> torch.Tensor:
    """Two texts in one row, of 3 and of 4 tokens: ``[batch, 1, query_pos, key_pos]``, True where one may look."""
    text = torch.tensor([0, 0, 0, 1, 1, 1, 1], device=DEVICE)
    allowed = (text[:, None] == text[None, :]).tril()
    return allowed[None, None].expand(3, 1, POS, POS)


@pytest.mark.parametrize("form", ["boolean", "additive"])
@pytest.mark.parametrize("case", SDPA)
def test_masks_with_four_axes(case: Case, form: str) -> None:
    mask = packed()
    if form == "additive":
        mask = torch.zeros(mask.shape, device=DEVICE).masked_fill(~mask, torch.finfo(torch.float32).min)
    model = build(case)
    try:
        model(make_tokens(), attention_mask=mask)
    except (ValueError, RuntimeError) as error:
        pytest.skip(f"this release takes no such mask: {error}")
    cache = assert_looking_changes_rounding_only(model, attention_mask=mask)
    pattern = cache[LOOKS[0]]
    assert not pattern[:, :, 3:, :3].any()


@pytest.mark.parametrize("case", FUSED)
def test_attention_that_looks_ahead(case: Case) -> None:
    """The module and, where there is one, the configuration say that it is not causal."""
    model = build(case)
    causal = model(make_tokens()).logits
    model.config.is_causal = False
    for part in model.modules():
        if "is_causal" in vars(part):
            part.is_causal = False
    # Some releases' sdpa is causal all the same: what it does is what counts.
    cache = assert_looking_changes_rounding_only(model)
    ahead = not torch.allclose(model(make_tokens()).logits, causal)
    assert bool(cache[LOOKS[0]].triu(1).any()) == ahead


@pytest.mark.parametrize("case", FUSED)
@pytest.mark.parametrize("told", [True, False])
def test_what_the_caller_says_about_causality(case: Case, told: bool) -> None:
    if not capabilities.passes_on(case.family, "is_causal"):
        pytest.skip("this release hands its kernels no arguments of the caller's")
    assert_looking_changes_rounding_only(build(case), is_causal=told)


@pytest.mark.parametrize("case", FUSED)
def test_a_sliding_window_counts_for_the_kernels_that_heed_it(case: Case) -> None:
    if not capabilities.passes_on(case.family, "sliding_window"):
        pytest.skip("this release hands its kernels no arguments of the caller's")
    if case.attention == "flash_attention_2" and capabilities.window_reach(3) != 2:
        pytest.skip("this release's windows are one key wider than their name says")
    model = build(case)
    cache = assert_looking_changes_rounding_only(model, sliding_window=3)
    # Some releases' blocks keep it from the kernel.
    heeded = not torch.allclose(model(make_tokens()).logits, model(make_tokens(), sliding_window=3).logits)
    outside = torch.ones(POS, POS, dtype=torch.bool, device=DEVICE).tril(-3)
    assert bool(cache[LOOKS[0]][..., outside].any()) != heeded
    assert not (heeded and case.attention == "sdpa")


def test_scaling_that_a_kernel_does_not_know_of() -> None:
    """Some releases scale by the layer under eager attention alone."""
    for changes in ({"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}):
        assert_looking_changes_rounding_only(build(Case("gpt2", "sdpa"), **changes))


def test_cross_attention_goes_its_own_way() -> None:
    model = build(Case("gpt2", "sdpa"), add_cross_attention=True)
    encoded = noise_like(torch.empty(3, 5, D_MODEL, device=DEVICE))
    cache = assert_looking_changes_rounding_only(model, encoder_hidden_states=encoded)
    assert cache[LOOKS[0]].shape[-2:] == (POS, POS)


@pytest.mark.parametrize("case", FUSED)
def test_a_second_chunk_with_a_cache(case: Case) -> None:
    outputs = []
    for looks in ([], LOOKS):
        model = build(case)
        with mishformer_lens.instrument(model) as instrumentation, instrumentation.caching(looks):
            first = model(make_tokens()[:, :3], use_cache=True)
            outputs.append(model(make_tokens()[:, 3:], **capabilities.past(model, first), use_cache=True).logits)
    assert_close(outputs[1], outputs[0], "logits", **CLOSE)


@pytest.mark.parametrize("case", SDPA)
def test_the_same_entries_of_the_pattern_are_dropped(case: Case) -> None:
    changes = {"attn_pdrop": 0.5} if case.kind == "gpt2" else {"attention_dropout": 0.5}
    model = build(case, **changes).train()
    outputs = []
    for looks in ([], LOOKS):
        torch.manual_seed(1)
        with mishformer_lens.instrument(model) as instrumentation, instrumentation.caching(looks):
            outputs.append(model(make_tokens()).logits)
    assert_close(outputs[1], outputs[0], "logits", **CLOSE)


def test_a_kernel_of_somebody_else_is_refused(kind: str) -> None:
    registry = capabilities.attention_functions()
    if registry is None or not capabilities.uses_registry(kind):
        pytest.skip("this release has no registry of attention functions for this family")

    def own(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **_: Any) -> Any:
        return value.transpose(1, 2).contiguous(), None

    model = build(Case(kind, "sdpa"))
    before = registry["sdpa"]
    registry["sdpa"] = own
    try:
        expected = model(make_tokens()).logits
        instrumentation = mishformer_lens.instrument(model)
        with (
            pytest.raises(AttentionKernelError, match=r"(?s)'sdpa' is .*own.*not known.*attn_implementation='eager'"),
            instrumentation.caching(LOOKS),
        ):
            model(make_tokens())
        assert torch.equal(model(make_tokens()).logits, expected)
        with instrumentation.caching(["blocks.0.attn.hook_z"]) as cache:
            assert torch.equal(model(make_tokens()).logits, expected)
        assert len(cache) == 1
    finally:
        registry["sdpa"] = before


def scores() -> AttentionScores:
    points = HookPoint(), HookPoint()
    made = AttentionScores(*points)
    for point in points:
        point.add_hook(lambda activation, hook: None)
    return made


def states(queries: int, keys: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tuple(noise_like(torch.empty(batch, 2, n, 4, dtype=torch.float64)) * n for n in (queries, keys, keys))  # type: ignore[return-value]


@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (2, 5), (1, 5), (5, 3)])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_like_torch_s_sdpa(queries: int, keys: int, causal: bool, scale: float | None) -> None:
    q, k, v = states(queries, keys)
    masks = [None]
    if not causal:
        allowed = torch.ones(2, 1, queries, keys, dtype=torch.bool).tril(keys - queries)
        allowed[0, :, 0] = False
        masks = [None, allowed, noise_like(torch.empty(2, 1, queries, keys, dtype=torch.float64))]  # type: ignore[list-item]
        masks.append(torch.zeros(allowed.shape, dtype=torch.float64).masked_fill(~allowed, -torch.inf))  # type: ignore[arg-type]
    for mask in masks:
        expected = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=scale
        )
        found = scores().sdpa(torch.nn.functional.scaled_dot_product_attention)(
            q, k, v, attn_mask=mask, is_causal=causal, scale=scale
        )
        assert_close(found, expected, "sdpa", rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (2, 5), (1, 5)])
def test_flash_attention_aligned_at_the_upper_left(queries: int, keys: int) -> None:
    """Its oldest releases, in which one query was treated as not causal."""
    q, k, v = (each.transpose(1, 2) for each in states(queries, keys))
    arguments = {"is_causal": True, "use_top_left_mask": True}
    found = scores().flash(stand_in_kernel.flash_attention_forward)(q, k, v, None, queries, **arguments)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=queries > 1
    )
    assert_close(found.transpose(1, 2), expected, "flash", rtol=1e-10, atol=1e-12)


def test_flash_attention_on_several_texts_in_one_row() -> None:
    q, k, v = (each.transpose(1, 2) for each in states(7, 7, batch=1))
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
    found = scores().like_flash(q, k, v, None, 7, True, position_ids=positions)
    apart = [
        scores().like_flash(q[:, s], k[:, s], v[:, s], None, s.stop - s.start, True) for s in (slice(0, 3), slice(3, 7))
    ]
    assert_close(found, torch.cat(apart, 1), "packed", rtol=1e-10, atol=1e-12)
    # One text that does not begin at 0 is one text.
    assert_close(
        scores().like_flash(q, k, v, None, 7, True, position_ids=torch.arange(4, 11)[None]),
        scores().like_flash(q, k, v, None, 7, True),
        "later",
        rtol=0,
        atol=0,
    )


def lengths(queries: list[int], keys: list[int]) -> dict[str, Any]:
    """What tells flash attention where texts end, counted over all rows."""
    ends = [torch.tensor([0, *each], dtype=torch.int32).cumsum(0) for each in (queries, keys)]
    longest = {"max_length_q": max(queries), "max_length_k": max(keys)}
    return {"cu_seq_lens_q": ends[0], "cu_seq_lens_k": ends[1], **longest}


@pytest.mark.parametrize("more", [{}, {"sliding_window": 2}, {"softcap": 0.8}], ids=["", "window", "soft cap"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("batch", "queries", "keys"),
    [
        (1, [3, 4], [3, 4]),
        (1, [1, 2, 1], [4, 2, 3]),
        (2, [7, 3, 4], [7, 3, 4]),
        (2, [1, 1], [5, 5]),
        (2, [2, 2], [1, 4, 5]),
    ],
    ids=["one row", "with a cache", "two rows", "a step of two rows", "keys of one more"],
)
def test_flash_attention_on_texts_of_given_lengths(
    batch: int, queries: list[int], keys: list[int], causal: bool, more: dict[str, Any]
) -> None:
    if len(queries) < len(keys):
        queries = [1, 1, *queries[1:]]
    n_queries, n_keys = sum(queries) // batch, sum(keys) // batch
    q, k, v = (each.transpose(1, 2) for each in states(n_queries, n_keys, batch=batch))
    given = {"is_causal": causal, **lengths(queries, keys), **more}
    found = scores().flash(stand_in_kernel.flash_attention_forward)(q, k, v, None, n_queries, **given)
    expected = stand_in_kernel.flash_attention_forward(q, k, v, None, n_queries, **given)
    # The stand-in computes in float32.
    assert_close(found, expected, "packed", rtol=1e-5, atol=1e-5)


def test_lengths_count_where_no_padding_is_told() -> None:
    q, k, v = (each.transpose(1, 2) for each in states(5, 5))
    mask = torch.ones(2, 5, dtype=torch.long)
    whole = scores().like_flash(q, k, v, mask, 5, True)
    assert_close(scores().like_flash(q, k, v, mask, 5, True, **lengths([4, 6], [4, 6])), whole, "mask", rtol=0, atol=0)
    positions = torch.tensor([[0, 1, 2, 0, 1]])
    q, k, v = q[:1], k[:1], v[:1]
    assert_close(
        scores().like_flash(q, k, v, None, 5, True, position_ids=positions, **lengths([5], [5])),
        scores().like_flash(q, k, v, None, 5, True),
        "positions",
        rtol=1e-10,
        atol=1e-12,
    )


def test_a_text_that_lies_in_two_rows_is_refused() -> None:
    q, k, v = (each.transpose(1, 2) for each in states(5, 5))
    for given in (lengths([4, 6], [4, 6]), lengths([5, 5], [4, 6])):
        with pytest.raises(AttentionKernelError, match="a text lies in two rows"):
            scores().like_flash(q, k, v, None, 5, True, **given)


def test_queries_aligned_with_the_first_keys_of_their_text() -> None:
    q, k, v = (each.transpose(1, 2) for each in states(4, 6, batch=1))
    found = scores().like_flash(q, k, v, None, 4, True, use_top_left_mask=True, **lengths([2, 2], [3, 3]))
    expected = [
        scores().like_flash(q[:, a : a + 2], k[:, b : b + 3], v[:, b : b + 3], None, 2, True, use_top_left_mask=True)
        for a, b in ((0, 0), (2, 3))
    ]
    assert_close(found, torch.cat(expected, 1), "upper left", rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("softcap", [None, 0.5])
@pytest.mark.parametrize("sliding_window", [None, 3])
@pytest.mark.parametrize("queries", [6, 2, 1])
def test_flash_attention_with_fewer_key_heads_caps_and_windows(
    queries: int, sliding_window: int | None, softcap: float | None
) -> None:
    q, k, v = (each.transpose(1, 2) for each in states(queries, 6))
    k, v = k[:, :, :1], v[:, :, :1]
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, :2] = 0
    for each in (None, mask):
        given = {"is_causal": True, "sliding_window": sliding_window, "softcap": softcap}
        found = scores().flash(stand_in_kernel.flash_attention_forward)(q, k, v, each, queries, **given)
        expected = stand_in_kernel.flash_attention_forward(q, k, v, each, queries, **given)
        assert_close(found, expected, "flash", rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("argument", ["s_aux", "cu_seq_lens_q", "cu_seqlens_q", "position_bias"])
def test_arguments_that_are_not_known_are_refused(argument: str) -> None:
    q, k, v = (each.transpose(1, 2) for each in states(5, 5))
    given: dict[str, Any] = {argument: 1.0}
    with pytest.raises(AttentionKernelError, match=f"called with {argument}, .*Take the hook off"):
        scores().like_flash(q, k, v, None, 5, True, **given)
    given = {argument: None}
    scores().like_flash(q, k, v, None, 5, True, **given)
