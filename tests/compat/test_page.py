"""The page in a real browser: from a file, with the keyboard, in light and dark."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mishformer_lens.compat.outcomes import write_record
from mishformer_lens.compat.tables import as_html, build_table
from mishformer_lens.patchers import FAMILIES
from tests.compat.making_records import make_folder, make_record

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    folder = make_folder(tmp_path / "compat")
    write_record(make_record(), folder / "outcomes")
    write_record(make_record("4.45.2", code="0" * 16), folder / "outcomes")
    path = tmp_path / "index.html"
    path.write_text(as_html(build_table(folder)))
    return path


def evaluate(page: Path, script: str, *options: str, fragment: str = "") -> Any:
    """What ``script``, the body of a function, returns when it runs in the page."""
    probe = page.with_name("probe.html")
    code = f"document.title = JSON.stringify((() => {{ {script} }})());"
    errors = "window.errors = []; addEventListener('error', (event) => errors.push(event.message));"
    text = page.read_text().replace("<head>", f"<head><script>{errors}</script>", 1)
    probe.write_text(text.replace("</body>", f"<script>{code}</script></body>"))
    assert CHROMIUM is not None
    profile = page.parent / "profile"
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *options]
    command += ["--dump-dom", probe.as_uri() + fragment]
    dump = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found = re.search(r"<title>(.*?)</title>", dump, re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found.group(1)))


LABELS = "[...document.querySelectorAll('#matrix button')].map((button) => button.getAttribute('aria-label'))"


def test_the_matrix_stands_alone_and_shows_every_cell(page: Path) -> None:
    assert not re.findall(r"""(?:src|href)=["'](?!data:|compatibility\.json)""", page.read_text())
    found = evaluate(page, f"return {{labels: {LABELS}, errors, count: document.getElementById('count').textContent}}")
    assert found["errors"] == []
    assert len(found["labels"]) == 3 * len(FAMILIES)
    assert "transformers 5.9.0, gpt2, all attention, cpu: a test failed" in found["labels"]
    stale = "transformers 4.45.2, gpt2, all attention, cpu: a test failed, recorded before the code was changed"
    assert stale in found["labels"]
    assert found["count"].startswith("3 releases. Cells: 2 failed, 2 failed as expected, ")


def test_a_family_shows_each_of_its_implementations(page: Path) -> None:
    choose = (
        "const form = document.getElementById('filters');"
        "form.elements.family.value = 'gpt2'; form.dispatchEvent(new Event('input'));"
    )
    labels = evaluate(page, choose + f"return {LABELS}")
    assert len(labels) == 3 * 4
    assert "transformers 5.9.0, gpt2, sdpa, cpu: a test failed" in labels
    stale = "transformers 4.45.2, gpt2, eager, cpu: every test passed, recorded before the code was changed"
    assert stale in labels


def test_a_family_s_cell_opens_its_implementations(page: Path) -> None:
    script = (
        "const cell = [...document.querySelectorAll('#matrix button')]"
        ".find((button) => button.getAttribute('aria-label').includes('5.9.0, gpt2, all attention'));"
        "cell.click();"
        "const parts = [...document.querySelectorAll('#details-body button')].map((button) => button.textContent);"
        "document.querySelector('#details-body button').click();"
        "return {parts, text: document.getElementById('details').textContent, errors}"
    )
    found = evaluate(page, script)
    assert found["errors"] == []
    assert found["parts"] == ["eager", "sdpa", "flash_attention_2", "flex_attention"]
    assert "float32: 3 passed" in found["text"]


def test_marks_differ_in_more_than_colour(page: Path) -> None:
    script = (
        "const buttons = [...document.querySelectorAll('#matrix button')];"
        "return Object.fromEntries(buttons.map((button) => [button.className, button.textContent]))"
    )
    symbols = evaluate(page, script)
    plain = {name: symbol for name, symbol in symbols.items() if "stale" not in name}
    assert len(set(plain.values())) == len(plain) >= 4


def test_filters(page: Path) -> None:
    choose = (
        "const form = document.getElementById('filters');"
        "form.elements.family.value = 'gpt2'; form.elements.attention.value = 'sdpa';"
        "form.elements.release.value = '5.9';"
        "form.dispatchEvent(new Event('input'));"
    )
    found = evaluate(page, choose + f"return {{labels: {LABELS}, hash: location.hash}}")
    assert found["labels"] == ["transformers 5.9.0, gpt2, sdpa, cpu: a test failed"]
    # The address keeps the choice.
    assert evaluate(page, f"return {LABELS}", fragment=found["hash"]) == found["labels"]
    devices = (
        "const form = document.getElementById('filters');"
        "form.elements.device.value = 'cuda'; form.dispatchEvent(new Event('input'));"
    )
    assert all(", cuda: " in label for label in evaluate(page, devices + f"return {LABELS}"))


def test_a_cell_opens_what_ran(page: Path) -> None:
    script = (
        "const form = document.getElementById('filters');"
        "form.elements.family.value = 'gpt_neox'; form.dispatchEvent(new Event('input'));"
        "document.querySelector('button[aria-label^=\"transformers 5.9.0, gpt_neox, eager, cpu: failed as\"]').click();"
        "const dialog = document.getElementById('details');"
        "return {open: dialog.open, text: dialog.textContent, errors}"
    )
    found = evaluate(page, script)
    assert found["open"]
    assert found["errors"] == []
    for words in (
        "the kernel has no such dtype",
        "2026-11-23",
        "torch 2.13.0",
        "compat/locks/transformers-5.9.",
        "nox -s \"test-3.11(transformers='5.9.')\"",
        "float32: 2 passed, 1 xfailed",
        "bfloat16: 3 passed",
        "attn.hook_z: xfailed",
    ):
        assert words in found["text"]


def test_the_keyboard_reaches_every_cell(page: Path) -> None:
    script = (
        "const start = document.querySelector('#matrix button[tabindex=\"0\"]'); start.focus();"
        "const stops = document.querySelectorAll('#matrix button[tabindex=\"0\"]').length;"
        "const visited = [];"
        "const keys = ['Right', 'Down', 'Down', 'Down', 'Left'].map((name) => 'Arrow' + name);"
        "for (const key of [...keys, 'End', 'Home', 'ArrowUp']) {"
        "  document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));"
        "  visited.push(document.activeElement.getAttribute('aria-label').split(':')[0]); }"
        "return {stops, visited}"
    )
    found = evaluate(page, script)
    first, second, *_, last = FAMILIES
    assert found["stops"] == 1
    assert [label.removeprefix("transformers ") for label in found["visited"]] == [
        f"5.10.4, {second}, all attention, cpu",
        f"5.9.0, {second}, all attention, cpu",
        f"4.45.2, {second}, all attention, cpu",
        f"4.45.2, {second}, all attention, cpu",
        f"4.45.2, {first}, all attention, cpu",
        f"4.45.2, {last}, all attention, cpu",
        f"4.45.2, {first}, all attention, cpu",
        f"5.9.0, {first}, all attention, cpu",
    ]


def test_light_and_dark(page: Path) -> None:
    script = (
        "const style = getComputedStyle(document.body);"
        "const dark = matchMedia('(prefers-color-scheme: dark)').matches;"
        "return {dark, page: style.backgroundColor, text: style.color}"
    )
    light = evaluate(page, script)
    dark = evaluate(page, script, "--blink-settings=preferredColorScheme=0")
    assert (light["dark"], dark["dark"]) == (False, True)
    for scheme in (light, dark):
        one, other = (sum(map(int, re.findall(r"\d+", scheme[name])[:3])) for name in ("page", "text"))
        assert abs(one - other) > 500


def test_nothing_in_the_data_ends_the_script(page: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "hostile")
    record = make_record()
    object.__setattr__(record, "device_name", "</script><script>document.body.remove()</script>")
    write_record(record, folder / "outcomes")
    page.write_text(as_html(build_table(folder)))
    assert len(evaluate(page, f"return {LABELS}")) == 3 * len(FAMILIES)
