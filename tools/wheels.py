"""Where torch comes from: the build for the CPU, which is small, unless a session needs CUDA."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse


def find_links(value: str) -> list[str]:
    """The folders and addresses in pip's variable PIP_FIND_LINKS, which uv does not read by itself."""
    return value.split()


def has_cpu_torch(links: list[str], *, torch: str, python: str) -> bool:
    """Whether `links` offer torch's CPU build for `python`, such as "3.11". An address is taken at its word."""
    tag = f"cp{python.replace('.', '')}"
    return any(
        urlparse(link).scheme in ("http", "https")
        or any(Path(link.removeprefix("file://")).glob(f"torch-{torch}+cpu-{tag}-*.whl"))
        for link in links
    )


def torch_arguments(links: list[str], *, torch: str, python: str) -> list[str]:
    """What to tell uv so that it installs torch's CPU build, never the one that brings CUDA along."""
    arguments = [f"--find-links={link}" for link in links]
    if not has_cpu_torch(links, torch=torch, python=python):
        arguments.append("--torch-backend=cpu")
    return arguments
