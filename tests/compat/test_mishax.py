"""mishax and this library's engine make the same of the same edits."""

import ast
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import mishformer_lens
from mishformer_lens.engine import patch_source
from mishformer_lens.engine.matching import find_member
from mishformer_lens.errors import MissingDependencyError, UnsupportedModelError
from mishformer_lens.patchers import FAMILIES
from mishformer_lens.patchers.installed import installed_source

pytest.importorskip("torch", reason="transformers' models need it")

needs_mishax = pytest.mark.skipif(
    importlib.util.find_spec("mishax") is None,
    reason="mishax is on no package index: install the dependency group `mishax`",
)


def dumps(source: str, names: Any) -> Iterator[str]:
    tree = ast.parse(source)
    for name in names:
        node = find_member(tree, name)
        assert node is not None
        yield ast.dump(node)


@needs_mishax
@pytest.mark.parametrize("family", FAMILIES)
def test_both_engines_make_the_same_of_the_selected_variant(family: str) -> None:
    patcher = mishformer_lens.to_mishax(family)
    variant = mishformer_lens.variants[family]
    assert variant is not None
    source = installed_source(FAMILIES[family]).text
    ours = patch_source(source, variant.edits)
    assert list(dumps(patcher.src, variant.members)) == list(dumps(ours.text, variant.members))
    assert list(dumps(source, variant.members)) != list(dumps(ours.text, variant.members))


@needs_mishax
@pytest.mark.parametrize("family", FAMILIES)
def test_the_patcher_patches_and_restores_the_module(family: str) -> None:
    patcher = mishformer_lens.to_mishax(family)
    module = sys.modules[FAMILIES[family].module_name]
    original = vars(module)[FAMILIES[family].base_model]
    with patcher():
        patched = vars(module)[FAMILIES[family].base_model]
        assert patched is not original
        assert inspect.unwrap(patched.forward).__code__.co_filename == patcher.path
    assert vars(module)[FAMILIES[family].base_model] is original


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pairs_are_a_dictionary_that_the_engine_takes(family: str) -> None:
    from mishformer_lens.mishax_export import mishax_pairs

    variant = mishformer_lens.variants[family]
    assert variant is not None
    source = installed_source(FAMILIES[family]).text
    pairs, at_most = mishax_pairs(source, variant)
    assert set(pairs) == {member.partition(".")[0] for member, edits in variant.edits.items() if edits}
    once = {name: each for name, each in pairs.items() if name not in at_most}
    assert once
    ours = patch_source(source, variant.edits).text
    assert list(dumps(patch_source(source, once).text, once)) == list(dumps(ours, once))


def test_without_mishax_it_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mishax", None)
    monkeypatch.setitem(sys.modules, "mishax.ast_patcher", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .mishax @ git\+https"):
        mishformer_lens.to_mishax("gpt2")


def test_no_such_family() -> None:
    with pytest.raises(UnsupportedModelError, match="Did you mean 'gpt_neox'"):
        mishformer_lens.to_mishax("gpt_nox")


def test_an_anchor_that_other_methods_have_too_is_replaced_in_its_own_only() -> None:
    from mishformer_lens.mishax_export import mishax_pairs

    method = "    def {}(self, x):\n        'A method.'\n        return g(x)\n"
    source = f"class A:\n{method.format('f')}{method.format('h')}"
    variant = mishformer_lens.Variant("made_up", "v1_0", {"A.f": [("g(x)", "tap(g(x))")]})
    pairs, at_most = mishax_pairs(source, variant)
    assert not at_most
    patched = patch_source(source, pairs).text
    assert list(dumps(patched, ["A"])) == list(dumps(patch_source(source, variant.edits).text, ["A"]))
    assert patched.count("tap(") == 1
