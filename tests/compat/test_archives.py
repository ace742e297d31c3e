"""Wheels and folders that a person points at."""

from pathlib import Path

import pytest

from mishformer_lens.compat.archives import open_local
from mishformer_lens.errors import ArchiveError, SourceFileMissingError
from mishformer_lens.patchers import FAMILIES
from mishformer_lens.patchers.installed import installed_release, installed_source
from tests.compat.fake_index import GPT2, make_wheel


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "any-name.whl"
    path.write_bytes(make_wheel("4.45.2", {GPT2: "x = 1\n"}))
    return path


def test_a_wheel(wheel: Path) -> None:
    source = open_local(wheel)
    assert source.release == "4.45.2"
    assert source.read(GPT2) == "x = 1\n"
    with pytest.raises(SourceFileMissingError, match="lacks this model"):
        source.read("transformers/models/bert/modeling_bert.py")


@pytest.mark.parametrize("layout", ["src/transformers", "transformers", "."])
def test_a_folder_or_checkout(tmp_path: Path, layout: str) -> None:
    top = tmp_path / "transformers"
    package = top / layout
    (package / "models" / "gpt2").mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "5.24.0.dev0"\n')
    (package / "models" / "gpt2" / "modeling_gpt2.py").write_text("x = 1\n")
    source = open_local(top)
    assert (source.release, source.read(GPT2)) == ("5.24.0.dev0", "x = 1\n")


def test_the_installed_package() -> None:
    source = open_local("installed")
    assert source.release == installed_release()
    assert source.read(GPT2) == installed_source(FAMILIES["gpt2"]).text


def test_half_a_wheel(wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes()[:60])
    with pytest.raises(ArchiveError, match="not a whole wheel"):
        open_local(wheel)


def test_a_wheel_with_a_flipped_byte(tmp_path: Path) -> None:
    text = "\n".join(f"x{n} = {n * n}" for n in range(200))
    data = bytearray(make_wheel("4.45.2", {GPT2: text}))
    data[len(GPT2) + 60] ^= 255
    path = tmp_path / "flipped.whl"
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="damaged"):
        open_local(path).read(GPT2)


def test_a_wheel_of_another_project(tmp_path: Path) -> None:
    path = tmp_path / "other.whl"
    path.write_bytes(make_wheel("1", {}).replace(b"transformers-1", b"transfarmers-1"))
    with pytest.raises(SourceFileMissingError, match="not a wheel of transformers"):
        _ = open_local(path).release


@pytest.mark.parametrize("make", [bytes(5 * 2**20), b"\xff\xfe\x00"], ids=["bomb", "binary"])
def test_files_that_are_no_source(tmp_path: Path, make: bytes) -> None:
    path = tmp_path / "rubbish.whl"
    path.write_bytes(make_wheel("4.45.2", {GPT2: make}))
    with pytest.raises(ArchiveError):
        open_local(path).read(GPT2)
    folder = tmp_path / "transformers"
    (folder / "models" / "gpt2").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "models" / "gpt2" / "modeling_gpt2.py").write_bytes(make)
    with pytest.raises(ArchiveError):
        open_local(folder).read(GPT2)
    with pytest.raises(SourceFileMissingError, match="does not say its version"):
        _ = open_local(folder).release


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SourceFileMissingError, match="there is nothing at"):
        open_local(tmp_path / "absent")
    with pytest.raises(SourceFileMissingError, match="no transformers in the folder"):
        open_local(tmp_path)
