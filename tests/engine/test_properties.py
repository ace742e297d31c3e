"""What holds for every source and every edit."""

import ast
import textwrap

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mishformer_lens.engine import Edit, failing_edits, member_fingerprints, patch_source

# How long an example takes says more of the machine than of the engine.
steady = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])

NAMES = st.sampled_from(["x", "y", "größe", "self.norm", "名", "f(x)[0]"])
EXPRESSIONS = st.recursive(
    NAMES | st.integers(0, 9).map(str) | st.text("aé🙂 '\"{}", max_size=5).map(repr),
    lambda inner: (
        st.builds("({} + {})".format, inner, inner)
        | st.builds("g( {},\n    key={})".format, inner, inner)
        | st.builds("-{}".format, inner)
        | st.builds("({} if {} else {})".format, inner, inner, inner)
        | st.builds("lambda a: {}".format, inner).map("({})".format)
        | st.builds("[{} for a in {}]".format, inner, inner)
    ),
    max_leaves=5,
)
SIMPLE = (
    st.builds("x = {}  # größer".format, EXPRESSIONS) | st.builds("self.h({})".format, EXPRESSIONS) | st.just("pass")
)


def block(*statements: str) -> str:
    return "\n".join(statements)


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    bodies = st.lists(inner, min_size=1, max_size=3).map(lambda each: textwrap.indent(block(*each), "    "))
    return (
        st.builds("if {}:\n{}\nelse:\n{}".format, NAMES, bodies, bodies)
        | st.builds("with x:\n\n{}\n    # end".format, bodies)
        | st.builds("def h():\n{}".format, bodies)
    )


STATEMENTS = st.lists(st.recursive(SIMPLE, nested, max_leaves=6), min_size=1, max_size=5)


def method(statements: list[str], unique: str) -> str:
    """A module whose one method has ``statements`` and, somewhere in them, ``unique``."""
    body = textwrap.indent(block(*statements), " " * 8)
    return f"import os\n\nclass Größe:\n    def f(self, x):  # é\n{body}\n        return {unique}\n\ny = 1  # 🙂\n"


def dump(text: str) -> str:
    return ast.dump(ast.parse(text))


@steady
@given(STATEMENTS, STATEMENTS, STATEMENTS)
def test_an_edit_replaces_its_lines_and_no_other(before: list[str], after: list[str], new: list[str]) -> None:
    source = method([*before, "self.anchor(1)", *after], "x")
    lines = source.split("\n")
    number = lines.index("        self.anchor(1)")
    patched = patch_source(source, {"Größe.f": [Edit("self.anchor(1)", block(*new, "pass"))]}).text.split("\n")
    assert patched[:number] == lines[:number]
    rest = lines[number + 1 :]
    assert patched[-len(rest) :] == rest
    replaced = "\n".join(patched[number : len(patched) - len(rest)])
    assert dump(textwrap.dedent(replaced)) == dump(block(*new, "pass"))


@steady
@given(STATEMENTS, EXPRESSIONS, EXPRESSIONS)
def test_a_replaced_expression_is_one_on_the_tree(statements: list[str], around: str, new: str) -> None:
    source = method(statements, f"h(anchor * 2, {around}) ** anchor . real")
    patched = patch_source(source, {"Größe.f": [Edit("anchor", new, count=2)]}).text
    assert dump(patched) == dump(source.replace("anchor", f"({new})"))


@steady
@given(STATEMENTS)
def test_to_replace_statements_by_themselves_changes_no_code(statements: list[str]) -> None:
    source = method(statements, "x")
    edit = Edit(block(*statements), block(*statements))
    patched = patch_source(source, {"Größe.f": [edit]})
    assert dump(patched.text) == dump(source)
    assert member_fingerprints(patched.text, ["Größe"]) == member_fingerprints(source, ["Größe"])


@steady
@given(STATEMENTS, STATEMENTS)
def test_edits_fail_one_by_one_exactly_where_they_fail_together(statements: list[str], other: list[str]) -> None:
    source = method(statements, "x")
    edits = {"Größe.f": [Edit(block(*other), "pass"), Edit("return x", "return y")]}
    failures = [error for _, _, error in failing_edits(source, edits)]
    if failures:
        with pytest.raises(type(failures[0])) as caught:
            patch_source(source, edits)
        assert str(caught.value) == str(failures[0])
    else:
        assert patch_source(source, edits).text.endswith("        return y\n\ny = 1  # 🙂\n")
