"""What the nightly look reports."""

from __future__ import annotations

import json

from tools.grid import read_grid
from tools.watch import Finding, ScanRow, make_report, moved_cells, read_scan

GRID = read_grid()
CELL = GRID.newest
FITS = ScanRow("gpt2", "v5_4", "applies", ())
BROKEN = ScanRow("gpt_neox", "v5_1", "fails", ("GPTNeoXLayer.forward: the anchor is found 0 times",))


def test_nothing_new_is_nothing_to_report() -> None:
    assert make_report([]).kind == "nothing"


def test_a_cell_that_passed_is_a_pull_request_that_says_green() -> None:
    report = make_report([Finding(CELL, (FITS,), suite_passed=True)])
    assert report.kind == "pull-request"
    assert CELL.transformers in report.title
    assert f"| {CELL.transformers} | gpt2 | v5_4 | applies | green |" in report.body


def test_a_cell_that_failed_is_a_pull_request_that_says_red() -> None:
    report = make_report([Finding(CELL, (FITS,), suite_passed=False)])
    assert report.kind == "pull-request"
    assert "| applies | red |" in report.body


def test_missing_anchors_are_an_issue_that_names_them() -> None:
    report = make_report([Finding(CELL, (FITS, BROKEN), suite_passed=None)])
    assert report.kind == "issue"
    assert "- GPTNeoXLayer.forward: the anchor is found 0 times" in report.body
    assert "| fails | not run: anchors are missing |" in report.body


def test_one_release_without_its_anchors_holds_back_the_others() -> None:
    good = Finding(GRID.cells[-2], (FITS,), suite_passed=True)
    report = make_report([good, Finding(CELL, (BROKEN,), suite_passed=None)])
    assert report.kind == "issue"
    assert report.title == f"transformers {CELL.transformers}: anchors are missing"


def test_the_scan_is_read_as_the_command_prints_it() -> None:
    failure = {"member": "GPTNeoXLayer.forward", "message": "the anchor is found 0 times"}
    text = json.dumps(
        [
            {"release": "9.0", "family": "gpt2", "variant": "v5_4", "status": "applies", "failures": []},
            {"release": "9.0", "family": "gpt_neox", "variant": "v5_1", "status": "fails", "failures": [failure]},
        ]
    )
    assert read_scan(text) == (FITS, BROKEN)


def test_moved_cells_are_those_with_another_release() -> None:
    fewer = type(GRID)(GRID.pythons, GRID.torch, GRID.torch_requires, GRID.cells[:-1])
    assert moved_cells(fewer, GRID) == [CELL]
    assert moved_cells(GRID, GRID) == []
