"""A family that no release of transformers has, its sources through the releases, and an installation of it."""

import dataclasses
import functools
import json
from pathlib import Path

import pytest

from mishformer_lens.engine import member_fingerprints, source_fingerprint
from mishformer_lens.patchers import Family, Variant, fingerprints
from mishformer_lens.patchers.fingerprints import file_hash
from mishformer_lens.patchers.parts import Attention, Norm

FIRST = '''"""Made up for the tests."""
import math


class Attention:
    """Attends."""

    def forward(self, x, mask):
        weights = softmax(x @ x.T + mask)
        return weights @ x


class Block:
    def forward(self, x, mask):
        residual = x
        x = self.attn(self.norm(x), mask)
        return residual + x


class Model:
    def forward(self, x):
        return self.block(x, None)
'''

# Another shape that the same edits fit.
SCALED = FIRST.replace("x @ x.T + mask", "x @ x.T / math.sqrt(8) + mask")

# Attention became a function; the edits of the first variant do not fit any more.
FUNCTION = FIRST.replace(
    """
class Attention:
""",
    """
def attend(module, x):
    weights = softmax(x)
    return weights


class Attention:
""",
).replace(
    """
        weights = softmax(x @ x.T + mask)
        return weights @ x
""",
    """
        return attend(self, x)
""",
)

BLOCK = {"Block.forward": [("residual + x", "self.hook_resid_post(residual + x)")]}
WITH_CLASS = Variant("made_up", "v4_44", {"Attention.forward": [("weights @ x", "self.hook(weights @ x)")], **BLOCK})
WITH_FUNCTION = Variant("made_up", "v5_1", {"attend": [("softmax(x)", "module.hook(softmax(x))")], **BLOCK})

RELEASES = {
    "4.44.0": (WITH_CLASS, FIRST),
    "4.44.2": (WITH_CLASS, FIRST + "\n# a later file of the same shape\n"),
    "4.46.0": (WITH_CLASS, SCALED),
    "5.1.0": (WITH_FUNCTION, FUNCTION),
}


@dataclasses.dataclass(frozen=True)
class MadeUpFamily(Family):
    """A family whose variants are not in files."""

    @functools.cached_property
    def variants(self) -> tuple[Variant, ...]:
        return WITH_CLASS, WITH_FUNCTION


FAMILY = MadeUpFamily("made_up", "Model", {}, Norm("layer", own=False), Attention(rotary=False))


def make_table() -> dict[str, fingerprints.FamilyTable]:
    """The table that the releases above make."""
    table: fingerprints.FamilyTable = {"files": {}, "shapes": {}}
    for release, (variant, source) in RELEASES.items():
        members = member_fingerprints(source, variant.members)
        fingerprint = source_fingerprint(members)
        table["files"][file_hash(source)] = variant.name, fingerprint
        shapes = table["shapes"].setdefault(variant.name, {})
        shapes.setdefault(fingerprint, {"releases": [], "members": members})["releases"].append(release)
    return {"made_up": table}


def use_table(monkeypatch: pytest.MonkeyPatch, folder: Path, table: dict[str, fingerprints.FamilyTable]) -> None:
    """Let the resolver read ``table``; the fixture ``table`` sees to it that it forgets it again."""
    file = folder / "fingerprints.json"
    file.write_text(json.dumps(table), encoding="utf-8")
    monkeypatch.setattr(fingerprints, "FINGERPRINTS_FILE", file)
    fingerprints.verified.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, release: str, source: str | None) -> Path:
    """Put a transformers of ``release`` with the family's ``source`` before any other that is installed."""
    path = folder / FAMILY.source_path
    path.parent.mkdir(parents=True)
    (folder / "transformers" / "__init__.py").write_text("raise AssertionError('imported')\n", encoding="utf-8")
    if source is not None:
        path.write_text(source, encoding="utf-8")
    metadata = folder / f"transformers-{release}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Name: transformers\nVersion: {release}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    return path
