"""Outcomes as the suite would record them, made up for tests of what is done with them."""

import datetime
from pathlib import Path

from mishformer_lens.compat.code import code_fingerprint
from mishformer_lens.compat.outcomes import Counts, FamilyOutcome, Mark, Record, Run

GRID = """
[pins]
python = ["3.11"]
torch = "2.13.0"

[cells."4.45"]
transformers = "4.45.2"
transformer-lens = "2.15.4"

[cells."5.9"]
transformers = "5.9.0"
transformer-lens = "4.3.0"

[cells."5.10"]
transformers = "5.10.4"
transformer-lens = "4.3.0"
"""


def make_folder(folder: Path) -> Path:
    """A folder with a grid of three releases and no outcomes."""
    (folder / "outcomes").mkdir(parents=True)
    (folder / "grid.toml").write_text(GRID)
    return folder


def make_run(family: str, attention: str, counts: Counts, mark: Mark = "passed", dtype: str = "float32") -> Run:
    """A run with one feature and two hook points."""
    reasons = ("the kernel has no such dtype",) if counts.xfailed else ()
    return Run(
        family, attention, dtype, counts, {"idle: forward": counts}, {"hook_embed": mark, "attn.hook_z": mark}, reasons
    )


def make_record(
    release: str = "5.9.0", device: str = "cpu", code: str | None = None, runs: tuple[Run, ...] = ()
) -> Record:
    """A record; of code as it is now, unless ``code`` says otherwise."""
    families = (("gpt2", "v5_4"), ("gpt_neox", "v5_1"))
    return Record(
        release=release,
        device=device,
        device_name="some machine",
        python="3.11.7",
        packages={"torch": "2.13.0", "transformers": release},
        lock=f"compat/locks/transformers-{release[:4]}.txt",
        lock_sha256="ab" * 32,
        date=datetime.date(2026, 11, 23),
        commit="c" * 40,
        modified=False,
        command=f"nox -s \"test-3.11(transformers='{release[:4]}')\"",
        suite=Counts(passed=9),
        families=tuple(
            FamilyOutcome(family, variant, "f" * 16, code or code_fingerprint(family, variant))
            for family, variant in families
        ),
        runs=runs
        or (
            make_run("gpt2", "eager", Counts(passed=3)),
            make_run("gpt2", "sdpa", Counts(passed=2, failed=1), "failed"),
            make_run("gpt_neox", "eager", Counts(passed=2, xfailed=1), "xfailed"),
            make_run("gpt_neox", "eager", Counts(passed=3), dtype="bfloat16"),
        ),
    )
