"""What is found of an installation that is damaged, odd, or not in a folder of plain files."""

import py_compile
import sys
import types
import zipfile
from pathlib import Path

import pytest

from mishformer_lens.errors import SourceUnreadableError, TransformersNotInstalledError
from mishformer_lens.patchers.installed import (
    UNKNOWN_RELEASE,
    Source,
    find_package,
    installed_release,
    installed_source,
    source_of,
    version_in_metadata,
)
from mishformer_lens.patchers.resolver import resolve
from tests.patchers.made_up import FAMILY, FIRST, WITH_CLASS, install

pytestmark = pytest.mark.usefixtures("table")

# The same text for Python, and what the file may hold of it.
SPELLINGS = {
    "plain": FIRST.encode(),
    "byte order mark": b"\xef\xbb\xbf" + FIRST.encode(),
    "line ends of Windows": FIRST.encode().replace(b"\n", b"\r\n"),
    "mark and line ends": b"\xef\xbb\xbf" + FIRST.encode().replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_source_is_read_as_python_reads_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spelling: str) -> None:
    path = install(monkeypatch, tmp_path, "4.44.2", FIRST)
    path.write_bytes(SPELLINGS[spelling])
    assert installed_source(FAMILY) == source_of(imported(path)) == Source(str(path), FIRST)
    assert resolve(FAMILY).variant is WITH_CLASS


def imported(path: Path) -> types.ModuleType:
    """An imported module of which only the place is known."""
    module = types.ModuleType(FAMILY.module_name)
    module.__file__ = str(path)
    return module


def test_a_declared_encoding_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = install(monkeypatch, tmp_path, "4.44.2", FIRST)
    text = "# -*- coding: latin-1 -*-\n# café\n" + FIRST
    path.write_bytes(text.encode("latin-1"))
    assert installed_source(FAMILY).text == text
    assert resolve(FAMILY).status == "verified"


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00", b"# coding: latin-1\n\xe9".replace(b"latin-1", b"no-such")])
def test_a_damaged_source_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: bytes) -> None:
    path = install(monkeypatch, tmp_path, "4.44.2", FIRST)
    path.write_bytes(damage)
    for read in (lambda: installed_source(FAMILY), lambda: source_of(imported(path)), lambda: resolve(FAMILY)):
        with pytest.raises(SourceUnreadableError, match=r"modeling_made_up.*pip install --force-reinstall"):
            read()


def test_compiled_files_alone_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = install(monkeypatch, tmp_path, "4.44.2", FIRST)
    compiled = path.with_suffix(".pyc")
    py_compile.compile(str(path), cfile=str(compiled), doraise=True)
    path.unlink()
    for read in (lambda: installed_source(FAMILY), lambda: source_of(imported(compiled))):
        with pytest.raises(SourceUnreadableError, match="compiled files alone"):
            read()


def test_a_module_without_a_file_is_refused() -> None:
    with pytest.raises(SourceUnreadableError, match=r"source of made_by_hand cannot be read, and"):
        source_of(types.ModuleType("made_by_hand"))


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadableError, match=r"cannot be read at .*gone\.py"):
        source_of(imported(tmp_path / "gone.py"))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_source_in_an_archive_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spelling: str) -> None:
    archive = tmp_path / "packages.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("transformers/__init__.py", '__version__ = "4.44.2"\n')
        packed.writestr(FAMILY.source_path, SPELLINGS[spelling])
    monkeypatch.setattr("sys.path", [str(archive)])
    assert installed_release() == "4.44.2"
    assert installed_source(FAMILY) == Source(str(archive / FAMILY.source_path), FIRST)


@pytest.mark.parametrize(
    ("own", "metadata", "release"),
    [
        ("4.46.0", "4.46.0", "4.46.0"),
        ("4.46.0", "4.40.0", "4.46.0"),
        ("4.46.0", None, "4.46.0"),
        ("4.46.0", "", "4.46.0"),
        (None, "4.46.0", "4.46.0"),
        (None, "4.46.0-acme_patched-7", "4.46.0-acme_patched-7"),
        ("4.46.0-acme_patched-7", "4.46.0", "4.46.0-acme_patched-7"),
        (None, "", UNKNOWN_RELEASE),
        (None, None, UNKNOWN_RELEASE),
    ],
)
def test_the_package_says_its_release_and_else_its_metadata_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: str | None, metadata: str | None, release: str
) -> None:
    installed_as(monkeypatch, tmp_path, own, metadata)
    assert installed_release() == release
    verdict = resolve(FAMILY)
    assert (verdict.status, verdict.variant, verdict.release) == ("verified", WITH_CLASS, release)


def installed_as(monkeypatch: pytest.MonkeyPatch, folder: Path, own: str | None, metadata: str | None) -> None:
    """Only this on the path: a package of the version ``own``, and metadata without a version where it is empty."""
    install(monkeypatch, folder, "1.0", FIRST)
    monkeypatch.setattr("sys.path", [str(folder)])
    if own is not None:
        (folder / "transformers" / "__init__.py").write_text(f"__version__ = '{own}'\n", encoding="utf-8")
    file = folder / "transformers-1.0.dist-info" / "METADATA"
    file.write_text("Name: transformers\n" + (f"Version: {metadata}\n" if metadata else ""), encoding="utf-8")
    if metadata is None:
        file.unlink()
        file.parent.rmdir()


@pytest.mark.parametrize("damage", [None, b"Name: transformers\nVersion: \xff\n"])
def test_metadata_that_are_half_there_have_no_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: bytes | None
) -> None:
    install(monkeypatch, tmp_path, "1.0", FIRST)
    file = tmp_path / "transformers-1.0.dist-info" / "METADATA"
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert version_in_metadata("transformers") == installed_release() == UNKNOWN_RELEASE
    assert resolve(FAMILY).variant is WITH_CLASS


def test_a_folder_of_that_name_is_no_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "transformers").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(TransformersNotInstalledError, match="is not installed"):
        installed_release()
    assert version_in_metadata("transformers") is None


def test_what_stands_in_for_a_package_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", types.ModuleType("transformers"))
    assert find_package("transformers") is None
