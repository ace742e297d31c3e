"""Every activation, plain and after an edit of each hook point, is what TransformerLens 2.15.4 computes.

In every release against golden values; where TransformerLens 2.15.4 is installed, those against its own model.
"""

import pytest
import torch

import mishformer_lens
from mishformer_lens.hooked_transformer.transformer_lens_compat import IS_REFERENCE, RELEASE
from tests.conformance import golden
from tests.hooked_transformer.making import make_hf_model, make_reference
from tests.models import DEVICE, Case, make_tokens
from tests.recording import assert_close, hooked, recorded

# What float32 explains: TransformerLens adds up in another order than HuggingFace.
TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}


def test_every_edit_does_what_it_does_in_transformer_lens(float32_case: Case) -> None:
    kind = float32_case.kind
    model = make_hf_model(kind, float32_case.attention).to(DEVICE)
    points = mishformer_lens.instrument(model).hook_points
    fused = float32_case.attention != "eager"
    for edited in golden.edits(kind):
        scores = ("hook_attn_scores", "hook_pattern")
        # Under a fused kernel nobody listens to the scores, unless they are edited: so the kernel is tested, too.
        names = [
            name
            for name in golden.names(kind, edited)
            if name != "logits" and not (fused and name.endswith(scores) and name != edited)
        ]
        edits = {edited: golden.edit} if edited != golden.UNEDITED else {}
        with torch.no_grad(), recorded(points, names) as recording, hooked(points, edits):
            logits = model(make_tokens()).logits
        values = {name: value[0] for name, value in recording.items()} | {"logits": logits}
        compared = 0
        for name, found, expected in golden.compared(values, kind, edited):
            assert_close(found, expected, f"{edited}, {name}", **TOLERANCE)
            compared += 1
        assert compared == len(names) + 1


def test_an_edit_that_is_not_made_would_be_noticed(kind: str) -> None:
    for edited in golden.edits(kind)[1:]:
        plain, golden_logits = golden.load(kind, golden.UNEDITED)["logits"], golden.load(kind, edited)["logits"]
        assert not torch.allclose(plain, golden_logits, rtol=TOLERANCE["rtol"], atol=TOLERANCE["atol"]), edited


@pytest.mark.skipif(not IS_REFERENCE, reason=f"TransformerLens {RELEASE} is not the one that golden values come from")
def test_golden_values_are_those_of_transformer_lens(kind: str) -> None:
    run = golden.reference_run(make_reference)
    for edited in golden.edits(kind):
        for name, found, expected in golden.compared(run(kind, edited), kind, edited):
            assert_close(found, expected, f"{edited}, {name}", **TOLERANCE)
