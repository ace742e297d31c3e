"""Where the source of a live model's module comes from: read as Python reads it and proven to be what runs, or refused.

The module is told that it came from another file; what was imported stays what it was.
"""

import importlib.machinery
import py_compile
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.errors import (
    MishformerLensError,
    SourceChangedError,
    SourceUnreadableError,
)
from mishformer_lens.patchers import resolver
from mishformer_lens.patchers.installed import UNKNOWN_RELEASE, source_of
from tests.instrument.live import logits, trace, zero
from tests.sources import with_another_statement


@pytest.fixture
def module(model: Any) -> types.ModuleType:
    return sys.modules[type(model.base_model).__module__]


@pytest.fixture
def place(module: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file that the module is told to be from; nothing is there yet."""
    path = tmp_path / "modeling.py"
    loader = importlib.machinery.SourceFileLoader(module.__name__, str(path))
    monkeypatch.setattr(module, "__spec__", importlib.machinery.ModuleSpec(module.__name__, loader, origin=str(path)))
    monkeypatch.setattr(module, "__file__", str(path))
    return path


@pytest.fixture
def text(module: types.ModuleType) -> str:
    """The module's real source, taken before its place is changed: ask for it before ``place``."""
    return source_of(module).text


def assert_hooked_and_unchanged(model: Any) -> None:
    plain = logits(model)
    with mishformer_lens.instrument(model) as hooked:
        with hooked.caching() as cache:
            assert torch.equal(logits(model), plain)
        assert cache
        hooked["blocks.0.mlp.hook_post"].add_hook(zero)
        assert not torch.equal(logits(model), plain)


def assert_refused(model: Any, error: type[MishformerLensError], message: str, **options: bool) -> None:
    """Refused by both ways to hook a model, and nothing is left behind."""
    before, plain = trace(model), logits(model)
    initializer = type(model.base_model).__init__
    with pytest.raises(error, match=message):
        mishformer_lens.instrument(model, **options)
    with pytest.raises(error):
        mishformer_lens.install(**options)
    assert trace(model) == before
    assert type(model.base_model).__init__ is initializer
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: ("# coding: utf-16\n" + text).encode().replace(b"utf-16", b"utf-8 "),
        lambda text: ("# vim: set fileencoding=cp1252 :\n# na\u00efve\n" + text).encode("cp1252", "replace"),
        lambda text: ("# a comment above\n\n" + text).encode(),
    ],
    ids=["byte order mark", "line ends", "utf-8 declared", "another encoding", "moved lines"],
)
def test_the_source_may_be_written_as_python_allows(
    model: Any, text: str, place: Path, spell: Callable[[str], bytes]
) -> None:
    place.write_bytes(spell(text))
    assert_hooked_and_unchanged(model)


@pytest.mark.parametrize(
    "release", ["4.40.0", "99.0", "5.24.0-acme_patched-7", "4.46.0+local", "6.0.0.dev0", "main", "", UNKNOWN_RELEASE]
)
def test_a_verified_source_is_hooked_whatever_its_number(
    model: Any, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    monkeypatch.setattr(resolver, "installed_release", lambda: release)
    assert_hooked_and_unchanged(model)


@pytest.mark.parametrize("allow_unverified", [False, True])
def test_a_source_that_changed_after_it_was_imported_is_refused(
    model: Any, text: str, place: Path, allow_unverified: bool
) -> None:
    forward = {"GPT2LMHeadModel": "GPT2MLP.forward", "GPTNeoXForCausalLM": "GPTNeoXMLP.forward"}[type(model).__name__]
    place.write_text(with_another_statement(text, forward), encoding="utf-8")
    message = rf"modeling.py does not hold .*: {forward} differ\(s\).*Restart Python"
    assert_refused(model, SourceChangedError, message, allow_unverified=allow_unverified)
    place.write_text(text, encoding="utf-8")
    assert_hooked_and_unchanged(model)


def test_a_source_that_lost_what_was_imported_is_refused(model: Any, text: str, place: Path) -> None:
    place.write_text(text.replace("    def forward(", "    def run("), encoding="utf-8")
    assert_refused(model, SourceChangedError, r"MLP\.forward")


def test_compiled_files_alone_are_refused(model: Any, module: types.ModuleType, text: str, place: Path) -> None:
    place.write_text(text, encoding="utf-8")
    compiled = place.with_suffix(".pyc")
    py_compile.compile(str(place), cfile=str(compiled), doraise=True)
    place.unlink()
    assert_refused(model, SourceUnreadableError, "with its .py files")
    loader = importlib.machinery.SourcelessFileLoader(module.__name__, str(compiled))
    module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, loader, origin=str(compiled))
    assert_refused(model, SourceUnreadableError, "compiled files alone")


@pytest.mark.parametrize("file", ["gone.py", None])
def test_a_source_that_is_not_there_is_refused(
    model: Any, module: types.ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch, file: str | None
) -> None:
    assert_refused(model, SourceUnreadableError, "cannot be read at .*modeling.py")
    monkeypatch.setattr(module, "__spec__", None)
    monkeypatch.setattr(module, "__file__", file)
    assert_refused(model, SourceUnreadableError, "cannot be read")


@pytest.mark.parametrize("damage", [b"class Block(:", b"\xff\xfe", b"a = 1\0"])
def test_a_damaged_source_is_refused(model: Any, place: Path, damage: bytes) -> None:
    place.write_bytes(damage)
    assert_refused(model, SourceUnreadableError, "pip install")


def test_an_empty_source_is_refused(model: Any, place: Path) -> None:
    place.write_bytes(b"")
    assert_refused(model, SourceChangedError, "Restart Python")
