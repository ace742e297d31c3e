"""Patches that a person brings along, in the forms that people write."""

import json
from pathlib import Path

import pytest

from mishformer_lens.compat.patches import read_patches
from mishformer_lens.errors import PatchFileError
from tests.compat import prototype

SOURCE = "class Block:\n    def forward(self, x):\n        x = f(x)\n        x = f(x)\n        return g(x)\n"
MODULE = "transformers.models.llama.modeling_llama"


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.json", json.dumps({"Block": [["g(x)", "tap(g(x))"]]})),
        ("flat.json", json.dumps({"Block": ["g(x)", "tap(g(x))"]})),
        ("literal.py", "X: dict = {'Block': [('g(x)', 'tap(g(x))')]}"),
        ("patcher.py", f"p = ModuleASTPatcher('{MODULE}', Block=['g(x)', 'tap(g(x))'])"),
    ],
)
def test_every_form(tmp_path: Path, name: str, text: str) -> None:
    (patches,) = read_patches(written(tmp_path, name, text), MODULE)
    assert patches.source_path == "transformers/models/llama/modeling_llama.py"
    assert patches.failures(SOURCE) == ()
    ((member, message),) = patches.failures(SOURCE.replace("g(x)", "h(x)"))
    assert member == "Block"
    assert "return h(x)" in message


def test_a_python_file_is_not_run(tmp_path: Path) -> None:
    text = "raise SystemExit\nE = {'Block': [('g(x)', 'tap(g(x))')]}\n"
    assert read_patches(written(tmp_path, "mine.py", text), MODULE)[0].failures(SOURCE) == ()


@pytest.mark.parametrize("settings", ["dict(Block=2)", "{'Block': 2}"])
def test_anchors_that_may_occur_more_than_once(tmp_path: Path, settings: str) -> None:
    text = (
        f"p = ModuleASTPatcher(m.x, PatchSettings(allow_num_matches_upto={settings}), Block=[('x = f(x)', 'x = t(x)')])"
    )
    (patches,) = read_patches(written(tmp_path, "twice.py", text))
    assert patches.failures(SOURCE) == ()
    assert patches.failures(SOURCE.replace("x = f(x)\n        x = f(x)", "x = f(x)")) == ()
    assert patches.failures(SOURCE.replace("g(x)", "(x := 1)\n        x = f(x)")) != ()
    (strict,) = read_patches(written(tmp_path, "once.py", text.replace("2", "1")))
    assert strict.failures(SOURCE) != ()


def test_a_patcher_in_a_file_as_people_write_it(tmp_path: Path) -> None:
    (patches,) = read_patches(written(tmp_path, "gpt2.py", prototype.GPT2))
    assert patches.module == "transformers.models.gpt2.modeling_gpt2"
    assert patches.at_most == {"GPT2Attention": 2}
    assert set(patches.edits) == {"GPT2Model", "GPT2Attention", "GPT2SdpaAttention", "GPT2Block"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "{", "is not JSON"),
        ("x.json", "[1]", "JSON of another form"),
        ("x.json", '{"releases": {"4.45": "verified"}}', "JSON of another form"),
        ("x.json", '{"Block": [["one side"]]}', "JSON of another form"),
        ("x.json", '{"Block": ["a", "b", "c"]}', "odd in number"),
        ("x.py", "def f(:", "is not Python"),
        ("x.py", "x = 1", "holds no patches"),
        ("x.py", "p = ModuleASTPatcher(m, Block=[(BEFORE, AFTER)])", "not plain strings"),
        ("x.json", '{"Block": [["x", "y"]]}', "name it with --module"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, text: str, message: str) -> None:
    module = None if "--module" in message else MODULE
    with pytest.raises(PatchFileError, match=message):
        read_patches(written(tmp_path, name, text), module)


@pytest.mark.parametrize("module", ["../../etc/passwd", "os; import sys", "a..b"])
def test_a_module_that_is_none(tmp_path: Path, module: str) -> None:
    path = written(tmp_path, "x.json", '{"Block": [["x", "y"]]}')
    with pytest.raises(PatchFileError, match="name it with --module"):
        read_patches(path, module)
