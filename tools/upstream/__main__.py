"""Runs HuggingFace's own tests of one release on plain and on hooked models, and compares.

    python -m tools.upstream --folder FOLDER

The release is the installed one. Its tests come from its sdist on the package index, and go to FOLDER, with the record
of each run. Exits with 1 where a test is lost or an output differs and `compat/expected_upstream.toml` does not say so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from mishformer_lens.patchers import FAMILIES
from mishformer_lens.patchers.releases import has_begun
from tools.grid import ROOT
from tools.upstream.compare import HOOKED, ComparisonError, compare, read_declared, read_run, report
from tools.upstream.sdist import UpstreamError, fetch_sdist, unpack_tests, write_cases

DECLARED = ROOT / "compat" / "expected_upstream.toml"

RUNS = {"plain": "plain", "again": "plain", "idle": "idle", "observed": "observed"}
"""Name of a run to its kind of models. Twice on plain models: a test that differs there proves nothing."""


def run(name: str, folder: Path, more: list[str]) -> Path:
    """Runs the tests in `folder` once, and returns the record."""
    record = folder / f"{name}.json"
    record.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "tests/models", "-p", "tools.upstream.plugin", "-p", "no:cacheprovider"]
    # In one process: what a test leaves behind meets the same tests in every run.
    command += ["-p", "no:xdist", "--quiet", "--tb=short", f"--rootdir={folder}"]
    command += [f"--models={RUNS[name]}", f"--record={record}", *more]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0"}
    with (folder / f"{name}.log").open("w") as log:
        subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a scratch folder; a download in it is used again")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="runs at a time")
    parser.add_argument("more", nargs="*", help="arguments for pytest, after --")
    arguments = parser.parse_args()
    release = version("transformers")
    folder = arguments.folder.resolve() / release
    try:
        declared = read_declared(DECLARED, release)
        unpack_tests(fetch_sdist(release, folder), folder)
        stand_ins = write_cases(folder, [name for name, family in FAMILIES.items() if has_begun(family, release)])
        print(f"not in the sdist, so without their tests: {', '.join(stand_ins) or 'nothing'}", flush=True)
        with ThreadPoolExecutor(arguments.processes) as pool:
            records = pool.map(lambda name: run(name, folder, arguments.more), RUNS)
            runs = {name: read_run(record) for name, record in zip(RUNS, records, strict=True)}
        comparison = compare(runs["plain"], runs["again"], {name: runs[name] for name in HOOKED})
    except (UpstreamError, ComparisonError) as error:
        print(f"{error}\nThe output of pytest is in {folder}/*.log.", file=sys.stderr)
        return 1
    lines, fine = report(release, comparison, declared)
    print("\n".join(lines))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
