"""Every check of the project, each in an environment of its own: `nox -l` lists them, `nox` runs those with a star.

A session installs exactly what its lock in `compat/locks/` says. Environments are kept and brought back to that state
at every run, so the second run of a session costs about a second before the first test.
"""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

from tools.grid import LOCKS, read_grid  # noqa: E402 - the path is set first
from tools.interpreters import select_in_pyenv  # noqa: E402
from tools.watch import Finding, moved_cells, read_scan, write_report  # noqa: E402
from tools.wheels import find_links, torch_arguments  # noqa: E402

GRID = read_grid()
PYTHON = GRID.pythons[0]
LINKS = find_links(os.environ.get("PIP_FIND_LINKS", ""))

select_in_pyenv(os.environ, GRID.pythons)

# The releases whose variants call helpers that those of the newest do not: attention classes, then attention functions
# that do not see the attention, and eager attention with a causal mask of its own.
WITH_CODE_OF_THEIR_OWN = ["4.44", "4.48"]

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"
# Plain `nox` runs on the Pythons there are; on GitHub Actions the workflow asks for each by name.
nox.options.error_on_missing_interpreters = False
nox.options.sessions = [
    "lint",
    "types",
    "unit",
    "minimal",
    # `coverage` runs all of `service`, the drop-in with the newest release, and the hook suite with three releases;
    # `edge` the families of which a variant begins at a release, in the first release of each source shape.
    *(
        f"drop_in-{PYTHON}(transformers='{cell.minor}')"
        for cell in GRID.newest_of_each_transformer_lens()
        if cell != GRID.newest
    ),
    *(
        f"edge-{PYTHON}(transformers='{cell.minor}')"
        for cell in GRID.edges()
        if cell.minor not in (*WITH_CODE_OF_THEIR_OWN, GRID.newest.minor)
    ),
    "coverage",
]

CPU_INSTEAD = "this session needs a CUDA device. On the CPU the same cell is: nox -s \"test-3.11(transformers='{}')\""

# Every session tests what is here, and reaches no model hub.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Without bytecode each process compiles torch and transformers anew, for 8 s.
    "PYTHONDONTWRITEBYTECODE": "",
}


def sync(session: nox.Session, lock: Path, *, package: bool = True) -> None:
    """Brings the session's environment to exactly what `lock` pins, and this package on top."""
    python = session.python if isinstance(session.python, str) else PYTHON
    torch = torch_arguments(LINKS, torch=GRID.torch, python=python)
    session.run_install("uv", "pip", "sync", *torch, str(lock), external=True, silent=True)
    if package:
        session.install("--no-deps", "--editable", ".", silent=True)


# What every cell runs. The drop-in, the service and what needs no torch have sessions of their own. Not the folders
# that it consists of: pytest reads their conftest.py, and imports torch, in a process that runs no test.
ELSEWHERE = [
    "cli",
    "compat",
    "cuda",
    "engine",
    "hooked_transformer",
    "minimal",
    "patchers",
    "tools",
    *("test_documents.py", "test_errors.py", "test_import.py", "test_suggestions.py"),
]
HOOK_SUITE = ["tests", *(f"--ignore=tests/{name}" for name in ELSEWHERE)]


# Each process imports torch and transformers anew, so more of them gain little.
PARALLEL = ["--numprocesses=auto", "--maxprocesses=4"]


def run_suite(session: nox.Session, *options: str, record: bool = False, **environment: str) -> None:
    """Runs the hook suite, and may record the outcome of the cell; or runs pytest with the arguments after `--`."""
    recorded = ["--outcomes=compat/outcomes"] if record else []
    if any(argument.startswith("--family") for argument in session.posargs):
        # A part of the suite, of which there is no record.
        arguments = [*HOOK_SUITE, *options, *session.posargs]
    else:
        arguments = session.posargs or [*HOOK_SUITE, *options, *recorded]
    session.run("pytest", *arguments, env=ENVIRONMENT | environment)


def define_cells(python: str) -> None:
    """The sessions of the grid on one Python; `nox -t grid` selects those on the first."""
    cells = GRID.on_python(python)
    first = python == PYTHON
    parametrize = nox.parametrize(
        "transformers", [nox.param(cell.minor, tags=["grid" if first else f"grid-{python}"]) for cell in cells]
    )

    # A list gives the names `test` and `test-3.11` to the first Python; the others have theirs written out.
    @nox.session(name="test" if first else f"test-{python}", python=[python] if first else python)
    @parametrize
    def test(session: nox.Session, transformers: str) -> None:
        """The hook suite with one release of transformers, on the CPU."""
        sync(session, GRID.cell(transformers).lock)
        # One record per cell: that of the first Python.
        run_suite(session, *PARALLEL, record=first)


for each_python in GRID.pythons:
    define_cells(each_python)


@nox.session(python=[PYTHON])
@nox.parametrize("transformers", [nox.param(cell.minor, tags=["edges"]) for cell in GRID.edges()])
def edge(session: nox.Session, transformers: str) -> None:
    """What the hook suite has of the families with a variant that begins at one release of transformers."""
    sync(session, GRID.cell(transformers).lock)
    families = [f"--family={name}" for name in GRID.begin_at(transformers)]
    session.run("pytest", *(session.posargs or [*HOOK_SUITE, *PARALLEL, *families]), env=ENVIRONMENT)


@nox.session(python=[PYTHON])
@nox.parametrize(
    "transformers",
    [nox.param(cell.minor, tags=["gpu", "gpu-newest"] if cell == GRID.newest else ["gpu"]) for cell in GRID.cells],
)
def test_gpu(session: nox.Session, transformers: str) -> None:
    """The hook suite with one release of transformers, on CUDA."""
    # Before the downloads, which are of several GB; tools.require_cuda asks torch itself afterwards.
    if shutil.which("nvidia-smi") is None:
        session.error(f"no NVIDIA driver here (no nvidia-smi): {CPU_INSTEAD.format(transformers)}")
    # Not `sync`: the CUDA packages of torch are in no lock, torch's own metadata pins them.
    lock = GRID.cell(transformers).lock
    links = [f"--find-links={link}" for link in LINKS]
    session.install("--torch-backend=auto", *links, "-r", str(lock), silent=True)
    session.install("--no-deps", "--editable", ".", silent=True)
    session.run("python", "-m", "tools.require_cuda")
    run_suite(session, record=True, MISHFORMER_LENS_DEVICE="cuda", PYTEST_ADDOPTS="-m 'gpu or not gpu'")
    if not session.posargs:
        # In a process without the suite's stand-in for flash attention.
        session.run("pytest", "tests/cuda", "-m", "gpu", env=ENVIRONMENT | {"MISHFORMER_LENS_DEVICE": "cuda"})


@nox.session(python=list(GRID.pythons))
def unit(session: nox.Session) -> None:
    """The tests that need no torch: the engine, the resolver, reading releases, and the tools."""
    sync(session, LOCKS / "unit.txt")
    files = ["tests/test_errors.py", "tests/test_suggestions.py"]
    folders = ["tests/engine", "tests/patchers", "tests/compat", "tests/tools"]
    session.run("pytest", *(session.posargs or [*folders, *files]))


@nox.session(python=[PYTHON])
@nox.parametrize("transformers", [nox.param(cell.minor, tags=["drop-in"]) for cell in GRID.cells])
def drop_in(session: nox.Session, transformers: str) -> None:
    """The drop-in HookedTransformer with one release of transformers and the TransformerLens that goes with it."""
    sync(session, GRID.cell(transformers).lock)
    session.run("pytest", *(session.posargs or ["tests/hooked_transformer", *PARALLEL]), env=ENVIRONMENT)


@nox.session(python=PYTHON)
@nox.parametrize("transformers", [nox.param(cell.minor, tags=["upstream"]) for cell in GRID.cells])
def upstream(session: nox.Session, transformers: str) -> None:
    """HuggingFace's own tests of one release, from its sdist: on hooked models they do what they do on plain ones."""
    # Beside the lock of the cell, which stays as it is.
    sync(session, GRID.cell(transformers).lock)
    session.install("--no-deps", "-r", str(LOCKS / "upstream.txt"), silent=True)
    command = ["python", "-m", "tools.upstream", f"--folder={session.create_tmp()}"]
    session.run(*command, *session.posargs, env=ENVIRONMENT)


@nox.session(python=PYTHON)
def minimal(session: nox.Session) -> None:
    """Hooking a model where the package brought its own dependencies only, TransformerLens not among them."""
    sync(session, LOCKS / "minimal.txt")
    session.run("pytest", *(session.posargs or ["tests/minimal"]), env=ENVIRONMENT)


@nox.session(python=PYTHON)
def service(session: nox.Session) -> None:
    """The command line, the compatibility service and the documents, with the newest release of transformers."""
    sync(session, GRID.newest.lock)
    whole = ["tests/cli", "tests/compat", "tests/test_documents.py", "tests/test_import.py"]
    session.run("pytest", *(session.posargs or whole), env=ENVIRONMENT)


@nox.session(python=PYTHON)
def coverage(session: nox.Session) -> None:
    """The branch coverage of the package: everything with the newest release, the hook suite where older code runs."""
    data = Path(session.create_tmp()) / "coverage"
    data.unlink(missing_ok=True)
    measured = ["--cov", "--cov-append", *PARALLEL]
    environment = ENVIRONMENT | {"COVERAGE_FILE": str(data)}
    for minor in WITH_CODE_OF_THEIR_OWN:
        sync(session, GRID.cell(minor).lock)
        session.run("pytest", *HOOK_SUITE, *measured, "--cov-report=", "--cov-fail-under=0", env=environment)
    sync(session, GRID.newest.lock)
    session.run("pytest", "tests", "--ignore=tests/tools", *measured, env=environment)


@nox.session(python=PYTHON)
def minimums(session: nox.Session) -> None:
    """The hook suite with every direct dependency at its declared floor."""
    sync(session, LOCKS / "minimums.txt")
    # Old releases of other packages warn of newer ones: here that is no failure.
    run_suite(session, *PARALLEL, PYTEST_ADDOPTS="-W default")


@nox.session(python=PYTHON)
def lint(session: nox.Session) -> None:
    """Style, formatting and the workflows."""
    sync(session, LOCKS / "tools.txt", package=False)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("zizmor", "--offline", "--quiet", ".github/workflows")
    session.run("python", "-m", "tools.actionlint")


@nox.session(python=PYTHON)
def types(session: nox.Session) -> None:
    """mypy, strict, where the newest release of transformers is installed."""
    sync(session, LOCKS / "types.txt")
    session.run("mypy", *session.posargs)


@nox.session(python=PYTHON)
def tables(session: nox.Session) -> None:
    """Checks that the compatibility tables are what the recorded outcomes say; `-- --write` makes them anew."""
    sync(session, GRID.newest.lock)
    command = ["table", "--write"] if "--write" in session.posargs else ["check"]
    session.run("mishformer-lens", "compat", *command)


@nox.session(python=PYTHON)
def demo(session: nox.Session) -> None:
    """`mishformer-lens demo` with the newest release of transformers; arguments after `--` are the command's."""
    sync(session, GRID.newest.lock)
    session.run("mishformer-lens", "demo", *session.posargs, env=ENVIRONMENT)


@nox.session(python=PYTHON)
def bench(session: nox.Session) -> None:
    """What hooks cost, as ratios to the unhooked model."""
    sync(session, GRID.newest.lock)
    session.run("python", "-m", "benchmarks", *session.posargs, env=ENVIRONMENT)


@nox.session(python=PYTHON)
@nox.parametrize("transformers", [nox.param(cell.minor) for cell in GRID.cells])
def mutation(session: nox.Session, transformers: str) -> None:
    """Whether the conformance suite catches every edit that is dropped and every hook that is moved by one place."""
    sync(session, GRID.cell(transformers).lock)
    session.run("python", "tools/mutation.py", *session.posargs, env=ENVIRONMENT)


@nox.session(python=PYTHON)
def fingerprints(session: nox.Session) -> None:
    """Checks the table of fingerprints against the releases' wheels; `-- --write` makes it."""
    sync(session, GRID.newest.lock)
    session.run("python", "tools/fingerprints.py", *(session.posargs or ["--check"]))


@nox.session(python=PYTHON)
def update_grid(session: nox.Session) -> None:
    """Shows new releases and refreshed locks as a diff; `-- --write` writes them."""
    sync(session, LOCKS / "tools.txt")
    # transformers is not needed here, and its absence is no news
    quiet = {"PYTHONWARNINGS": "ignore:transformers is not installed"}
    session.run("python", "-m", "tools.update_grid", *session.posargs, env=quiet)


@nox.session(python=PYTHON)
def watch(session: nox.Session) -> None:
    """Adds new releases to the grid, tries them, and writes what to report to the folder after `-- --out`."""
    sync(session, LOCKS / "tools.txt")
    quiet = {"PYTHONWARNINGS": "ignore:transformers is not installed"}
    session.run("python", "-m", "tools.update_grid", "--only-releases", "--write", env=quiet)
    findings = []
    for cell in moved_cells(GRID, read_grid()):
        sync(session, cell.lock)
        scan = ["mishformer-lens", "compat", "scan", "--release", cell.transformers, "--json"]
        # 1: anchors are missing; 3: an unseen source that every anchor matches
        rows = session.run(*scan, silent=True, success_codes=[0, 1, 3])
        finding = Finding(cell, read_scan(str(rows)), suite_passed=None)
        if finding.anchors_match:
            session.run("python", "tools/fingerprints.py", "--write", env=ENVIRONMENT)
            finding = replace(finding, suite_passed=passes(session))
        findings.append(finding)
    write_report(findings, Path(session.posargs[-1] if session.posargs else session.create_tmp()))


def passes(session: nox.Session) -> bool:
    """Whether the suite passes in the environment of `session`."""
    try:
        session.run("pytest", "tests", "--ignore=tests/tools", env=ENVIRONMENT)
    except CommandFailed:
        return False
    return True
