"""The page of names is what the script writes, and enough of them mean the same."""

import pytest

from tests.hooked_transformer.conftest import needs_reference


@needs_reference
def test_the_page_is_up_to_date_and_most_names_mean_the_same() -> None:
    from scripts import list_hooked_transformer_names as script

    rows = script.make_rows()
    assert script.PAGE.read_text(encoding="utf-8") == script.render(rows)
    assert sum(row.verdict == "same" for row in rows) / len(rows) >= 0.95
    assert all(row.note for row in rows if row.verdict != "same")


@needs_reference
def test_a_difference_without_an_explanation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from scripts import list_hooked_transformer_names as script

    monkeypatch.delitem(script.DIFFERS, "from_pretrained")
    with pytest.raises(SystemExit, match="from_pretrained: `fold_ln` is False by default, there True"):
        script.make_rows()


@needs_reference
def test_an_explanation_of_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from scripts import list_hooked_transformer_names as script

    monkeypatch.setitem(script.DIFFERS, "no_such_name", "gone")
    with pytest.raises(SystemExit, match="no_such_name"):
        script.make_rows()
