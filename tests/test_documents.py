"""The examples in the documents run, and the documents name what the code has."""

import re
from pathlib import Path

import pytest

from mishformer_lens.patchers import FAMILIES

ROOT = Path(__file__).parent.parent


def examples(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("example", examples("README.md"))
def test_an_example_of_the_readme_runs(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_of_hooks_names_every_hook_point(family: str) -> None:
    text = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
    specs = FAMILIES[family]
    for spec in (*specs.embedding_hooks, *specs.block_hooks, *specs.final_hooks):
        assert spec.name.rpartition(".")[2] in text


def test_documents_link_only_to_files_that_are_there() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("compat/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
