"""What importing the package does, and what it does not. Each test imports it in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(code: str, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter that sees this checkout."""
    return subprocess.run(
        [sys.executable, *flags, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_importing_it_imports_neither_torch_nor_transformers_nor_transformer_lens() -> None:
    code = "import sys, json, mishformer_lens; print(json.dumps(sorted(sys.modules)))"
    result = run(code, "-W", "error")
    assert result.returncode == 0, result.stderr
    modules = set(json.loads(result.stdout))
    assert "mishformer_lens" in modules
    assert not modules & {"torch", "transformers", "transformer_lens", "numpy", "einops", "rich", "typer"}


def test_the_selected_variants_are_shown_without_importing_them_either() -> None:
    code = (
        "import sys, mishformer_lens\n"
        "assert {'gpt2', 'gpt_neox', 'llama'} <= set(mishformer_lens.variants)\n"
        "for family, variant in mishformer_lens.variants.items():\n"
        "    assert variant is None or variant.family == family and 'eager' in variant.attention\n"
        "    print(variant)\n"
        "assert 'torch' not in sys.modules\n"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr
    assert "Variant(family='gpt2'" in result.stdout


def test_importing_it_changes_no_state_of_the_process() -> None:
    code = (
        "import sys, os, warnings, logging, threading\n"
        "def state():\n"
        "    return (dict(os.environ), list(sys.path), list(sys.meta_path), list(warnings.filters),\n"
        "            logging.getLogger().level, threading.active_count(), sys.excepthook, os.getcwd())\n"
        "before = state()\n"
        "import mishformer_lens\n"
        "assert state() == before\n"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr == ""


def test_importing_it_patches_nothing_of_transformers() -> None:
    code = (
        "from transformers.models.gpt2 import modeling_gpt2 as gpt2\n"
        "from transformers.models.gpt_neox import modeling_gpt_neox as neox\n"
        "def state():\n"
        "    return [(name, value, dict(vars(value)) if isinstance(value, type) else None)\n"
        "            for module in (gpt2, neox) for name, value in vars(module).items()]\n"
        "before = state()\n"
        "import mishformer_lens\n"
        "mishformer_lens.instrument, mishformer_lens.HookPoint\n"
        "assert state() == before\n"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["HookPoint", "Instrumentation", "install", "instrument", "uninstall"])
def test_public_names_are_there_when_they_are_used(name: str) -> None:
    import mishformer_lens

    assert getattr(mishformer_lens, name).__name__ == name
    assert name in mishformer_lens.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    import mishformer_lens

    with pytest.raises(AttributeError, match="has no attribute 'instrumnt'"):
        mishformer_lens.instrumnt  # noqa: B018


def imported_beside(folder: Path, own: str | None, metadata: str | None) -> list[str]:
    """Import the package where the transformers first on the path has these versions; returns the warnings."""
    (folder / "transformers").mkdir()
    text = "" if own is None else f"__version__ = {own!r}\n"
    (folder / "transformers" / "__init__.py").write_text(text + "raise AssertionError('imported')\n", encoding="utf-8")
    info = folder / "transformers-1.0.dist-info"
    info.mkdir()
    if metadata is not None:
        (info / "METADATA").write_text(f"Name: transformers\n{metadata}", encoding="utf-8")
    code = (
        f"import sys, warnings; sys.path.insert(0, {str(folder)!r})\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import mishformer_lens\n"
        "for each in caught:\n"
        "    print(each.category.__name__, each.message)\n"
        "from packaging.version import Version\n"
        "youngest = max(mishformer_lens.patchers.FAMILIES.values(), key=lambda each: Version(each.first_release))\n"
        "assert bool(caught) == (mishformer_lens.variants['gpt2'] is None)\n"
        "assert bool(caught) == (set(mishformer_lens.variants.values()) == {None})\n"
        "print('youngest', mishformer_lens.variants[youngest.name])\n"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr
    *warned, youngest = result.stdout.splitlines()
    return warned if own != YOUNGER else [*warned, youngest]


YOUNGER = "4.44.2"
"""A release that lacks some family."""


def test_a_family_that_is_younger_than_the_release_is_none_without_a_warning(tmp_path: Path) -> None:
    assert imported_beside(tmp_path, YOUNGER, None) == ["youngest None"]


@pytest.mark.parametrize("metadata", ["Version: 4.40.0\n", "Version: main\n", "", None])
def test_the_version_of_the_package_counts_and_not_its_metadata(tmp_path: Path, metadata: str | None) -> None:
    assert imported_beside(tmp_path, "5.0.0-acme_patched-7", metadata) == []


@pytest.mark.parametrize(
    ("own", "metadata", "warning"),
    [
        ("4.40.0", "Version: 5.0.0\n", "transformers 4.40.0 is older than every variant"),
        (None, "Version: 4.40.0\n", "transformers 4.40.0 is older than every variant"),
        ("main", "Version: 5.0.0\n", "transformers is main, which is no number"),
        (None, "", "transformers is (unknown version), which is no number"),
        (None, None, "transformers is (unknown version), which is no number"),
    ],
)
def test_a_release_that_points_to_no_variant_warns_at_import(
    tmp_path: Path, own: str | None, metadata: str | None, warning: str
) -> None:
    warnings = imported_beside(tmp_path, own, metadata)
    assert [warning in each and each.startswith("UnsupportedReleaseWarning") for each in warnings] == [True]


def test_without_transformers_the_import_warns_and_does_not_fail() -> None:
    code = (
        "import importlib.metadata, sys, warnings\n"
        "real = importlib.metadata.version\n"
        "def version(name):\n"
        "    if name == 'transformers':\n"
        "        raise importlib.metadata.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "importlib.metadata.version = version\n"
        "sys.modules['transformers'] = None\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import mishformer_lens\n"
        "assert ['transformers is not installed' in str(each.message) for each in caught] == [True]\n"
        "assert mishformer_lens.variants == dict.fromkeys(mishformer_lens.patchers.FAMILIES)\n"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr
