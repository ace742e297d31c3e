"""The example script runs, and its numbers fit together."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mishformer_lens import HookedTransformer

pytest.importorskip("plotly", reason="plots need the extra demo")
pytest.importorskip("matplotlib", reason="plots need the extra demo")

NAMES = {
    "direct_logit_attribution",
    "patching_residual",
    "patching_heads",
    "path_patching",
    "induction_heads",
    "attribution_patching",
}


@pytest.fixture(params=["--model", "--config"])
def source(request: pytest.FixtureRequest, saved: Path) -> list[str]:
    """A checkpoint, or its configuration alone."""
    return [request.param, str(saved if request.param == "--model" else saved / "config.json")]


def test_five_analyses(source: list[str], tmp_path: Path) -> None:
    from examples import five_analyses

    out = tmp_path / "plots"
    results: dict[str, Any] = five_analyses.main([*source, "--out", str(out), "--length", "6"])
    assert {file.stem for file in out.glob("*.png")} == NAMES == {file.stem for file in out.glob("*.html")}
    attribution = results["direct logit attribution"]
    # Every part of the residual stream is in the decomposition, so the parts add up to the whole.
    assert attribution["sum of parts"] == pytest.approx(attribution["difference"], rel=1e-3, abs=1e-3)
    for name in ("activation patching", "induction heads", "attribution patching"):
        assert results[name].shape == (2, 4)
        assert results[name].isfinite().all()
    assert results["path patching"].shape == (3, 4)
    assert ((results["induction heads"] >= 0) & (results["induction heads"] <= 1)).all()


def test_attribution_is_the_derivative_of_patching(saved: Path, tmp_path: Path) -> None:
    from examples import five_analyses

    model = HookedTransformer.from_pretrained(saved, device="cpu", attn_implementation="eager")
    task = five_analyses.make_task(model, 6)
    plots = five_analyses.Plots(tmp_path / "plots")
    estimate = five_analyses.attribution_patching(model, task, plots, torch.rand(2, 4))
    metric = five_analyses.make_metric(model, task)
    name, step = "blocks.1.attn.hook_z", 1e-2
    with torch.no_grad():
        _, clean = model.run_with_cache(task.clean, names_filter=name)

        def nudge(z: torch.Tensor, hook: Any) -> torch.Tensor:
            z[:, :, 2] += step * (clean[name] - z)[:, :, 2]
            return z

        moved = metric(model.run_with_hooks(task.corrupted, fwd_hooks=[(name, nudge)])) / step
    assert float(moved) == pytest.approx(float(estimate[1, 2]), rel=0.1, abs=0.02)
