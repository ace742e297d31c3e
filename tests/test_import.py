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
        "assert set(mishformer_lens.variants) == {'gpt2', 'gpt_neox'}\n"
        "for family, variant in mishformer_lens.variants.items():\n"
        "    assert variant.family == family and 'eager' in variant.attention\n"
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


def test_an_unsupported_release_warns_at_import_and_raises_at_use(tmp_path: Path) -> None:
    (tmp_path / "transformers-4.40.0.dist-info").mkdir()
    (tmp_path / "transformers-4.40.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: transformers\nVersion: 4.40.0\n", encoding="utf-8"
    )
    code = (
        f"import sys, warnings; sys.path.insert(0, {str(tmp_path)!r})\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import mishformer_lens\n"
        "assert [each.category.__name__ for each in caught] == ['UnsupportedReleaseWarning'], caught\n"
        "assert '4.40.0 is older than every variant' in str(caught[0].message)\n"
        "assert mishformer_lens.variants == {'gpt2': None, 'gpt_neox': None}\n"
        "from tests.models import Case, make_model\n"
        "for kind in ('gpt2', 'gpt_neox'):\n"
        "    model = make_model(Case(kind))\n"
        "    classes = [type(module) for module in model.modules()]\n"
        "    try:\n"
        "        mishformer_lens.instrument(model)\n"
        "    except mishformer_lens.errors.ReleaseTooOldError as error:\n"
        "        assert '4.40.0 is older than' in str(error) and 'pip install' in str(error)\n"
        "    else:\n"
        "        raise SystemExit('not refused')\n"
        "    assert [type(module) for module in model.modules()] == classes\n"
        "    try:\n"
        "        mishformer_lens.install()\n"
        "    except mishformer_lens.errors.ReleaseTooOldError:\n"
        "        pass\n"
        "    else:\n"
        "        raise SystemExit('not refused')\n"
        "    assert type(make_model(Case(kind))) is type(model)\n"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_without_transformers_the_import_warns_and_does_not_fail() -> None:
    code = (
        "import importlib.metadata, warnings\n"
        "real = importlib.metadata.version\n"
        "def version(name):\n"
        "    if name == 'transformers':\n"
        "        raise importlib.metadata.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "importlib.metadata.version = version\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import mishformer_lens\n"
        "assert ['transformers is not installed' in str(each.message) for each in caught] == [True]\n"
        "assert mishformer_lens.variants == {'gpt2': None, 'gpt_neox': None}\n"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr
