"""What commands print where a person watches a terminal, and what none of them can print."""

import sys

import pytest

from mishformer_lens.cli import output
from mishformer_lens.cli.compat import FamilyName
from mishformer_lens.patchers import FAMILIES
from tests.cli.conftest import Command


def test_a_progress_bar_only_where_a_person_watches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(output.tracked([1, 2, 3], "reading")) == [1, 2, 3]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(output.tracked([1, 2, 3], "reading")) == [1, 2, 3]
    assert "reading" in capsys.readouterr().err


@pytest.mark.usefixtures("index")
def test_a_difference_in_colour_on_a_terminal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = command("compat", "diff", "gpt2", "4.45.0", "5.0.0").out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = command("compat", "diff", "gpt2", "4.45.0", "5.0.0").out
    assert "\x1b[" in coloured
    assert "\x1b[" not in plain


def test_what_is_no_dataclass_is_not_printed_as_json() -> None:
    with pytest.raises(TypeError, match="object is nothing that a command prints"):
        output.write_json(object())


def test_a_family_is_converted_once() -> None:
    converter = FamilyName()
    family = converter.convert("gpt2", None, None)
    assert family is FAMILIES["gpt2"]
    assert converter.convert(family, None, None) is family
