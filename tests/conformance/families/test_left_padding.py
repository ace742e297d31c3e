"""Texts of different lengths, padded at the left: what each gives is what it gives by itself.

TransformerLens derives positions from the mask where HuggingFace does not (GPT-Neo); nothing of that is done here.
"""

from typing import Any

import pytest
import torch

import mishformer_lens
from tests.conformance.families.conftest import cases
from tests.conformance.families.contract import SCORES, unflagged
from tests.kinds import kinds
from tests.models import BATCH, POS, Case, left_padding, make_model, make_tokens
from tests.recording import assert_close, assert_same, hooked

FAMILIES = ("gpt_neo", "gptj", "opt")
PADDED = [
    each for each in cases("eager", "sdpa", dtypes=(torch.float32,)) if kinds()[each.values[0].kind].family in FAMILIES
]


def alone(case: Case, entry: int) -> dict[str, torch.Tensor]:
    """The arguments for one text without its padding, at the positions that the model gives it with it."""
    tokens = make_tokens()[entry : entry + 1, entry:]
    positions = {} if case.family == "opt" else {"position_ids": torch.arange(entry, POS)[None]}
    return {"input_ids": tokens, **positions}


@pytest.mark.parametrize("case", PADDED)
@torch.no_grad()
def test_padding_at_the_left(case: Case) -> None:
    plain, model = make_model(case), make_model(case)
    instrumentation = mishformer_lens.instrument(model)
    names = [name for name in unflagged(case.kind) if case.attention == "eager" or not name.endswith(SCORES)]
    tokens, mask = make_tokens(), left_padding()
    expected = plain(tokens, attention_mask=mask, output_hidden_states=True)
    assert_same(model(tokens, attention_mask=mask, output_hidden_states=True), expected, "idle")
    with instrumentation.caching(names) as padded:
        assert_same(model(tokens, attention_mask=mask, output_hidden_states=True), expected, "observed")
    for entry in range(BATCH):
        with instrumentation.caching(names) as cache:
            logits = model(**alone(case, entry)).logits
        assert_close(expected.logits[entry : entry + 1, entry:], logits, f"text {entry}", rtol=1e-4, atol=1e-5)
        for name in names:
            whole = padded[name][entry : entry + 1]
            part = whole[:, :, entry:, entry:] if name.endswith(SCORES) else whole[:, entry:]
            visible = cache[name] > -1e4 if name.endswith("scores") else torch.ones_like(cache[name], dtype=torch.bool)
            assert_close(part[visible], cache[name][visible], f"{name}, text {entry}", rtol=1e-4, atol=1e-5)
    if case.attention == "eager":
        for entry in range(1, BATCH):
            pattern = padded["blocks.0.attn.hook_pattern"][entry]
            assert bool((pattern[:, entry:, :entry] == 0).all()), "nobody looks at padding"


@pytest.mark.parametrize("case", [each for each in PADDED if each.values[0].kind in ("gpt_neo", "gptj", "opt")])
@torch.no_grad()
def test_an_edit_of_padding_reaches_no_token_behind_it(case: Case) -> None:
    model = make_model(case)
    instrumentation = mishformer_lens.instrument(model)
    tokens, mask = make_tokens(), left_padding()
    expected = model(tokens, attention_mask=mask).logits

    def edit(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        return torch.where(mask[..., None].bool(), activation, activation + 1)

    with hooked(instrumentation.hook_points, {"hook_embed": edit}):
        logits = model(tokens, attention_mask=mask).logits
    moved = (logits != expected).any(-1)
    assert torch.equal(moved, mask == 0)
