"""Every activation, plain and after an edit of each hook point, is what TransformerLens's own class computes.

Where TransformerLens has the family and computes what HuggingFace does; its configuration is the one that it reads off
HuggingFace's by itself.
"""

import importlib.metadata
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.version import Version

import mishformer_lens
from tests.conformance.families.conftest import here
from tests.conformance.families.contract import unflagged
from tests.kinds import kinds
from tests.models import Case, make_model, make_tokens
from tests.recording import Values, assert_close, hooked, recorded, scaled

RELEASE = importlib.metadata.version("transformer-lens")
CLOSE = {"rtol": 1e-3, "atol": 3e-5}
UNEDITED = ""


def _kinds() -> list[str]:
    """The kinds that the installed TransformerLens computes rightly; from 4.0 on it has no class of its own."""
    if Version(RELEASE) >= Version("4"):
        return []
    since = {name: kinds()[name].in_transformer_lens for name in here()}
    return [name for name, first in since.items() if first is not None and Version(first) <= Version(RELEASE)]


def reference(hf_model: Any, folder: Path) -> Any:
    """TransformerLens's ``HookedTransformer`` with the same weights, not processed."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens import loading_from_pretrained as loading

    hf_model.config.architectures = [type(hf_model).__name__]
    hf_model.config.save_pretrained(folder)
    fields = loading.convert_hf_model_config(str(folder))
    cfg = HookedTransformerConfig.from_dict(
        {**fields, "device": "cpu", "dtype": torch.float32, "tokenizer_name": None, "normalization_type": "RMS"}
    )
    model = HookedTransformer(cfg)
    state = loading.get_pretrained_state_dict(str(folder), cfg, hf_model=hf_model)
    model.load_state_dict({name: value.detach().clone() for name, value in state.items()}, strict=False)
    return model.eval()


def run(model: Any, points: Any, names: list[str], edited: str) -> Values:
    """One pass: every activation as hooks leave it, and the logits."""

    def edit(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        return scaled(activation, 0.5)

    edits = {edited: edit} if edited != UNEDITED else {}
    with torch.no_grad(), hooked(points, edits), recorded(points, names) as values:
        output = model(make_tokens())
    values["logits"].append(output if isinstance(output, torch.Tensor) else output.logits)
    return values


@pytest.mark.parametrize("kind", _kinds())
def test_every_edit_does_what_it_does_in_transformer_lens(kind: str, tmp_path: Path) -> None:
    form = kinds()[kind]
    model = make_model(Case(kind), **form.where_it_is_right)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TransformerLens's own
        theirs = reference(model, tmp_path)
    points = mishformer_lens.instrument(model).hook_points
    names = unflagged(kind)
    for edited in (UNEDITED, *names):
        expected = run(theirs, theirs.hook_dict, names, edited)
        found = run(model, points, names, edited)
        assert found.keys() == expected.keys()
        for name, (value,) in found.items():
            # Its first norm runs once for each of query, key and value.
            other = expected[name][0]
            if name.endswith("hook_attn_scores"):
                # HuggingFace masks with the smallest number, TransformerLens with minus infinity.
                seen = other > -1e4
                value, other = value[seen], other[seen]
            if value.shape != other.shape:
                other = other.reshape(value.shape)
            assert_close(value, other, f"{edited}: {name}", **CLOSE)
