"""TransformerLens's own tools on the drop-in, in whatever release is installed."""

import functools
from typing import Any

import pytest
import torch
from transformer_lens import SVDInterpreter, evals, head_detector, patching

from mishformer_lens import HookedTransformer
from mishformer_lens.hooked_transformer.transformer_lens_compat import SVD_INTERPRETER_READS_PARAMETERS
from tests.hooked_transformer.conftest import needs_reference
from tests.hooked_transformer.making import TEXTS, make_model_of, make_reference
from tests.hooked_transformer.scenarios import tokens

PATCHING = (
    "get_act_patch_resid_pre",
    "get_act_patch_resid_mid",
    "get_act_patch_attn_out",
    "get_act_patch_mlp_out",
    "get_act_patch_attn_head_out_by_pos",
    "get_act_patch_attn_head_q_all_pos",
    "get_act_patch_attn_head_k_by_pos",
    "get_act_patch_attn_head_v_all_pos",
    "get_act_patch_attn_head_pattern_all_pos",
    "get_act_patch_block_every",
)


def patch(name: str, model: Any) -> torch.Tensor:
    clean, corrupted = tokens()[:1], tokens()[1:]
    with torch.no_grad():
        _, cache = model.run_with_cache(clean)
        result: torch.Tensor = getattr(patching, name)(model, corrupted, cache, lambda logits: logits[0, -1, 5])
    return result


@pytest.mark.parametrize("name", PATCHING)
def test_patching(name: str, kind: str, tokenizer: Any) -> None:
    if name == "get_act_patch_resid_mid" and kind == "gpt_neox":
        with pytest.raises((KeyError, IndexError)):
            patch(name, make_model_of(kind, tokenizer))
        return
    result = patch(name, make_model_of(kind, tokenizer))
    assert result.isfinite().all()
    assert result.std() > 0


@needs_reference
@pytest.mark.parametrize("name", PATCHING)
def test_patching_gives_what_it_gives_on_transformer_lens_s_model(name: str, tokenizer: Any) -> None:
    ours, theirs = patch(name, make_model_of("gpt2", tokenizer)), patch(name, make_reference("gpt2", tokenizer))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", ["previous_token_head", "duplicate_token_head", "induction_head"])
def test_head_detector(model: HookedTransformer, head: Any) -> None:
    with torch.no_grad():
        scores = head_detector.detect_head(model, TEXTS[1], head, exclude_bos=True)
        several = head_detector.detect_head(model, TEXTS, head, error_measure="abs")
    assert scores.shape == (2, 4)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert several.shape == (2, 4)


def test_evals(model: HookedTransformer) -> None:
    batches = [{"tokens": model.to_tokens(TEXTS)}]
    with torch.no_grad():
        loss = evals.evaluate_on_dataset(model, batches, truncate=1, device="cpu")
    expected = model(TEXTS, return_type="loss")
    assert float(torch.as_tensor(loss)) == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize(("kind_of_vector", "head"), [("OV", 1), ("w_in", None), ("w_out", None)])
def test_svd_interpreter(model: HookedTransformer, kind_of_vector: Any, head: int | None) -> None:
    interpreter = SVDInterpreter(model)
    find = functools.partial(interpreter.get_singular_vectors, kind_of_vector, 0, num_vectors=3, head_index=head)
    if SVD_INTERPRETER_READS_PARAMETERS:
        # It looks its weights up in named_parameters(), which has HuggingFace's names; tl_parameters() has the others.
        with pytest.raises(KeyError):
            find()
        interpreter.params = model.tl_parameters()
    with torch.no_grad():
        assert find().shape == (model.cfg.d_vocab, 1, 3)
