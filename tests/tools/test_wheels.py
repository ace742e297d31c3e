"""Where the sessions take torch from."""

from __future__ import annotations

from pathlib import Path

from tools.wheels import find_links, torch_arguments


def test_the_wheel_folder_is_enough_when_it_has_the_build(tmp_path: Path) -> None:
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    arguments = torch_arguments([str(tmp_path)], torch="2.13.0", python="3.11")
    assert arguments == [f"--find-links={tmp_path}"]


def test_another_python_takes_the_cpu_build_of_the_index(tmp_path: Path) -> None:
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    arguments = torch_arguments([f"file://{tmp_path}"], torch="2.13.0", python="3.12")
    assert arguments == [f"--find-links=file://{tmp_path}", "--torch-backend=cpu"]


def test_a_folder_without_the_pinned_release_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "torch-2.12.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    assert "--torch-backend=cpu" in torch_arguments([str(tmp_path)], torch="2.13.0", python="3.11")


def test_without_a_folder_the_cpu_build_of_the_index_is_taken() -> None:
    assert torch_arguments(find_links(""), torch="2.13.0", python="3.11") == ["--torch-backend=cpu"]


def test_an_address_is_taken_at_its_word() -> None:
    links = find_links("https://wheels.example/simple")
    assert torch_arguments(links, torch="2.13.0", python="3.11") == ["--find-links=https://wheels.example/simple"]


def test_several_places_are_all_handed_on(tmp_path: Path) -> None:
    assert find_links(f"{tmp_path}  https://wheels.example/simple") == [str(tmp_path), "https://wheels.example/simple"]
