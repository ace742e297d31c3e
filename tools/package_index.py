"""The package index that this machine is set to use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import requests
from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple

from mishformer_lens.compat.pip_settings import read_pip_settings


def index_address(environment: Mapping[str, str]) -> str:
    """The index that uv's variables or pip's settings name, else the public one."""
    by_uv = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL")
    return by_uv or read_pip_settings(environment).index_url or PYPI_SIMPLE_ENDPOINT


@contextmanager
def package_index() -> Iterator[PyPISimple]:
    """A client for it, that trusts the certificate that pip is set to trust."""
    session = requests.Session()
    session.verify = read_pip_settings(os.environ).certificate or True
    with PyPISimple(index_address(os.environ), session=session) as index:
        yield index
