"""Where pip would look for packages on this machine: its environment variables and its configuration files."""

import configparser
import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import platformdirs

from mishformer_lens.errors import RegistryError

_SECTIONS = ("global", "download")


@dataclasses.dataclass(frozen=True)
class PipSettings:
    """pip's settings that say where packages come from.

    Attributes:
        index_url: the main package index; None where nobody set one.
        extra_index_urls: further indexes.
        find_links: folders or pages with wheels.
        use_indexes: False where ``no-index`` is set.
        certificate: a file with the certificates to trust; None for the usual ones.
        timeout: seconds until a silent server counts as unreachable.
        retries: how often a failed request is tried again.
    """

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    use_indexes: bool = True
    certificate: str | None = None
    timeout: float = 15.0
    retries: int = 3


def read_pip_settings(environment: Mapping[str, str] = os.environ) -> PipSettings:
    """The settings that pip itself would use, an environment variable before a file, a later file before an earlier.

    Raises:
        RegistryError: a configuration file cannot be read, or a number in it is none.
    """
    values: dict[str, str] = {}
    for path in _files(environment):
        values |= _read(path)
    prefix = "PIP_"
    for name, value in environment.items():
        if name.startswith(prefix) and value:
            values[name.removeprefix(prefix).lower().replace("_", "-")] = value
    try:
        return PipSettings(
            index_url=values.get("index-url"),
            extra_index_urls=tuple(values.get("extra-index-url", "").split()),
            find_links=tuple(values.get("find-links", "").split()),
            use_indexes=values.get("no-index", "0").lower() not in ("1", "true", "yes", "on"),
            certificate=values.get("cert"),
            timeout=float(values.get("default-timeout", values.get("timeout", PipSettings.timeout))),
            retries=int(values.get("retries", PipSettings.retries)),
        )
    except ValueError as error:
        raise RegistryError(
            f"pip's settings hold a timeout or a number of retries that is no number ({error}). "
            "See them with: pip config list"
        ) from error


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    """pip's configuration files, the weakest first."""
    name = "pip.ini" if sys.platform == "win32" else "pip.conf"
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    folders = platformdirs.site_config_dir("pip", appauthor=False, multipath=True).split(os.pathsep)
    yield from (Path(folder, name) for folder in reversed(folders))
    if sys.platform != "win32":
        yield Path("/etc", name)
    yield Path.home() / ("pip" if sys.platform == "win32" else ".pip") / name
    yield platformdirs.user_config_path("pip", appauthor=False, roaming=True) / name
    yield Path(sys.prefix, name)
    if named:
        yield Path(named)


def _read(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise RegistryError(f"pip's configuration file {path} cannot be read: {error}. Mend or remove it.") from error
    return {
        name: value
        for section in _SECTIONS
        if parser.has_section(section)
        for name, value in parser.items(section)
        if value
    }
