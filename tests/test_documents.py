"""The examples in the documents run, and the documents name what the code has."""

import re
from pathlib import Path

import pytest

from mishformer_lens.patchers import FAMILIES
from tools import families_page

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
        part, _, name = spec.name.rpartition(".")
        assert name in text
        assert part.rpartition(".")[2] in text


def test_the_page_of_families_is_what_their_descriptions_say() -> None:
    assert families_page.PAGE.read_text(encoding="utf-8") == families_page.make_page()


def test_the_page_of_families_has_every_hook_point_in_its_shape() -> None:
    rows = [line.strip("| ").split(" | ") for line in families_page.make_page().splitlines() if line.startswith("| `")]
    named = {(name.strip("`* "), shape): families for name, shape, families in rows}
    for family in FAMILIES.values():
        for spec in families_page.specs_of(family):
            having = [text for (name, _), text in named.items() if name == spec.name]
            assert any(_says(text, family.name) for text in having), (family.name, spec.name)
    assert len(named) == len(rows)


def _says(families: str, family: str) -> bool:
    if families.startswith("all"):
        return family not in families.removeprefix("all but ").split(", ")
    return family in families.replace("°", "").split(", ")


def test_the_readme_leads_to_every_family() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(docs/families.md)" in text
    like_llama = [family for family in FAMILIES.values() if family.template is not None]
    assert f"{len(like_llama)} families" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_documents_link_only_to_files_that_are_there() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("compat/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
