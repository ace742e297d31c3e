import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from mishformer_lens.cli.app import run
from mishformer_lens.compat.archives import open_local
from mishformer_lens.patchers import FAMILIES, Family
from mishformer_lens.patchers.releases import has_begun
from tests.compat.fake_index import FakeIndex, serve


@dataclasses.dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Finished]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``mishformer-lens`` with arguments, in this process."""

    def invoke(*arguments: str) -> Finished:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(arguments)
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Finished(code, out, err)

    return invoke


@pytest.fixture
def sources() -> dict[str, str]:
    """The installed release's own source files, by their paths in a wheel: of the families that it has."""
    installed = open_local("installed")
    return {
        family.source_path: installed.read(family.source_path)
        for family in FAMILIES.values()
        if has_begun(family, installed.release)
    }


@pytest.fixture
def index(sources: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIndex]:
    """An index that pip is set to use: 4.45.0 as installed, and 5.0.0, in which GPT-2 changed."""
    made = FakeIndex()
    made.add("4.45.0", sources)
    made.add("5.0.0", broken(sources))
    with serve(made):
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_NO_INDEX"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", made.url)
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("MISHFORMER_LENS_CACHE", str(tmp_path / "cache"))
        yield made


def broken(sources: dict[str, str]) -> dict[str, str]:
    """The sources with GPT-2's activation called under another name."""
    path = FAMILIES["gpt2"].source_path
    assert "self.act(hidden_states)" in sources[path]
    return sources | {path: sources[path].replace("self.act(hidden_states)", "self.activation(hidden_states)")}


def youngest() -> Family:
    """The family that came last; it is in no release like 4.44."""
    return max(FAMILIES.values(), key=lambda family: Version(family.first_release))
