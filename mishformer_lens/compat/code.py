"""What a recorded outcome speaks for: the code of this library that hooks a model of one family."""

import hashlib
import textwrap
from pathlib import Path

from mishformer_lens.engine import as_edits, member_fingerprints
from mishformer_lens.engine.edits import clean
from mishformer_lens.patchers import FAMILIES

_PACKAGE = Path(__file__).parent.parent
_COMMON = (
    "engine/*.py",
    "hooks.py",
    "listening.py",
    "on_demand.py",
    "on_top.py",
    "attention_scores.py",
    "lending.py",
    "lent_classes.py",
    "loans.py",
    "patched_classes.py",
    "instrumentation.py",
)


def code_fingerprint(family: str, variant: str) -> str:
    """A hash of the code that hooks ``family`` with ``variant``. Comments, docstrings and annotations do not count.

    Other variants are not in it: a new one leaves what is known of the others as it is.
    """
    files = sorted({path for pattern in _COMMON for path in _PACKAGE.glob(pattern)})
    lines = [f"{path.relative_to(_PACKAGE).as_posix()} {_shape(path.read_text(encoding='utf-8'))}" for path in files]
    # Variants share parts with each other, so it is what they come to that counts, not their files.
    declared, chosen = FAMILIES[family], FAMILIES[family].variant(variant)
    lines += [repr(declared), repr(chosen.attention), repr(sorted(chosen.unsupported.items()))]
    for member, edits in as_edits(chosen.edits).items():
        lines += [f"{member} {clean(edit.before)!a} {clean(edit.after)!a} {edit.count}" for edit in edits]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _shape(source: str) -> str:
    # The engine knows the shapes of classes, so the module is put into one.
    return member_fingerprints(f"class Module:\n{textwrap.indent(source, '    ')}\n    pass", ["Module"])["Module"]
