"""Golden values: what TransformerLens's own models compute, every activation unedited, and logits after every edit.

Of each kind, those of the newest release that carries it in a cell of the grid. Each tensor is kept as a few
projections on fixed directions: an error anywhere in it moves all of them.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from packaging.version import Version
from safetensors import safe_open
from safetensors.torch import save_file

from mishformer_lens.hooked_transformer.transformer_lens_compat import RELEASE
from tests.conformance.families.transformer_lens import CLOSE, Values, edits, names
from tests.conformance.golden import UNEDITED, project
from tests.recording import assert_close as assert_tensors_close

FILE = Path(__file__).parents[2] / "golden" / "families.safetensors"

Run = Callable[[str, Sequence[str]], Values]
"""From the hook point to edit (or UNEDITED) and the names to record to their activations and the logits."""


def sample(kind: str, run: Run) -> dict[str, torch.Tensor]:
    """``[names, DIRECTIONS]`` of every activation, and ``[edits, DIRECTIONS]`` of the logits."""
    activations = run(UNEDITED, names(kind, UNEDITED))
    logits = [run(edited, [])["logits"] for edited in edits(kind)]
    return {
        "activations": torch.stack([project(name, activations[name]) for name in names(kind, UNEDITED)]),
        "logits": torch.stack([project("logits", each) for each in logits]),
    }


def write(values: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
    """Put values of kinds into the file that the installed release has made, beside those of others."""
    tensors, releases = ({}, {}) if not FILE.exists() else _read()
    new = {f"{kind}/{part}": value for kind, parts in values.items() for part, value in parts.items()}
    releases = {**releases, **dict.fromkeys(values, str(RELEASE))}
    save_file({**tensors, **new}, FILE, {"releases": json.dumps(dict(sorted(releases.items())))})


def release_of(kind: str) -> Version:
    """The release of TransformerLens that a kind's values are from."""
    releases = _read()[1]
    assert kind in releases, f"no golden values of {kind}: scripts/make_golden_families.py makes them"
    return Version(releases[kind])


def is_made_here(kind: str) -> bool:
    """Whether a kind's values are from the installed release."""
    return _read()[1].get(kind) == str(RELEASE)


def assert_close(kind: str, found: Mapping[str, torch.Tensor]) -> None:
    """Hold what was computed to the file, row by row."""
    for part, row_names in (("activations", names(kind, UNEDITED)), ("logits", edits(kind))):
        expected = _read()[0][f"{kind}/{part}"]
        assert expected.shape == found[part].shape
        for name, value, other in zip(row_names, found[part], expected, strict=True):
            assert_tensors_close(value, other, f"{part}: {name}", **CLOSE)


def assert_edits_are_felt(kind: str) -> None:
    """Every edit moves the logits further than is tolerated."""
    unedited, *edited = _read()[0][f"{kind}/logits"]
    for name, logits in zip(edits(kind)[1:], edited, strict=True):
        assert not torch.allclose(logits, unedited, CLOSE["rtol"], CLOSE["atol"]), name


@functools.cache
def _read() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """What the file holds, and the release that each kind's values are from."""
    with safe_open(FILE, "pt") as file:
        keys = list(file.keys())
        return {key: file.get_tensor(key) for key in keys}, json.loads(file.metadata()["releases"])
