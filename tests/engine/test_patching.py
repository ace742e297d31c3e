"""Edits on text: what they change, what they leave, and what they refuse."""

import ast
import textwrap

import pytest

from mishformer_lens.engine import Edit, patch_source
from mishformer_lens.errors import AnchorMatchError, MemberNotFoundError, PatchError, SpliceError
from tests.engine.editing import assert_edited, source

BLOCK = '''
# A module's own comment.
import math   # spaced  as  nobody   would


class Block(  Base  ):
    """A block."""

    scale = 1   # of the class

    def forward(self, x, mask = None):
        # before
        h = self.norm( x )   # normalised
        h = self.attn(h,
                      mask)
        if mask is not None:
            h = h*mask
            h = h+1
        # after
        return  x + h


    def other(self, x):
        h = self.norm( x )
        return h


def norm( x ):
    return x   /   2
'''


@pytest.mark.parametrize(
    ("member", "edit", "old", "new"),
    [
        pytest.param(
            "Block.forward",
            ("h = self.norm(x)", "h = self.hook(self.norm(x))"),
            "h = self.norm( x )   # n",
            "h = self.hook(self.norm(x))   # n",
            id="statement, comment behind it kept",
        ),
        pytest.param(
            "Block.forward",
            ("h = self.norm(x)\nh = self.attn(h, mask)", "h = self.both(x, mask)"),
            "h = self.norm( x )   # normalised\n        h = self.attn(h,\n                      mask)",
            "h = self.both(x, mask)",
            id="sequence of statements",
        ),
        pytest.param(
            "Block.forward",
            ("h = h * mask", "h = (h\n     * mask)\nh = self.hook(h)"),
            "            h = h*mask\n",
            "            h = (h\n                 * mask)\n            h = self.hook(h)\n",
            id="several lines at the place's indentation",
        ),
        pytest.param(
            "Block.forward",
            ("return x + h", "if h is None:\n    return x\nreturn x + h"),
            "        return  x + h\n",
            "        if h is None:\n            return x\n        return x + h\n",
            id="compound replacement",
        ),
        pytest.param(
            "Block.forward",
            ("if mask is not None:\n    h = h * mask\n    h = h + 1", "h = self.masked(h)"),
            "if mask is not None:\n            h = h*mask\n            h = h+1",
            "h = self.masked(h)",
            id="compound anchor",
        ),
        pytest.param(
            "Block.forward",
            ("h = h + 1", ""),
            "h = h+1",
            "pass",
            id="deleted",
        ),
        pytest.param(
            "Block.forward",
            ("h = h + 1", "# nothing any more"),
            "            h = h+1",
            "            # nothing any more\n            pass",
            id="replaced by a comment",
        ),
        pytest.param("Block.forward", ("x + h", "self.hook(x + h)"), "x + h", "self.hook(x + h)", id="expression"),
        pytest.param("Block.forward", ("self.attn", "self.hooked"), "self.attn(h,", "self.hooked(h,", id="in another"),
        pytest.param(
            "Block",
            ("def other(self, x):\n    h = self.norm(x)\n    return h", "def other(self, x):\n    return x"),
            "def other(self, x):\n        h = self.norm( x )\n        return h",
            "def other(self, x):\n        return x",
            id="method of a class",
        ),
        pytest.param("norm", ("x / 2", "x / 3"), "x   /   2", "(x / 3)", id="function"),
    ],
)
def test_one_edit_and_nothing_else(member: str, edit: tuple[str, str], old: str, new: str) -> None:
    head, found, tail = BLOCK.partition(old)
    assert found
    patched = patch_source(BLOCK, {member: [edit]})
    assert patched.text == head + new + tail
    assert patched.original == BLOCK
    assert patched.members == (member.partition(".")[0],)


def test_no_edits_no_change() -> None:
    assert patch_source(BLOCK, {}).text == BLOCK
    assert patch_source(BLOCK, {"Block.forward": []}).text == BLOCK


def test_members_in_any_order_of_the_file_and_of_the_edits() -> None:
    edits = {
        "norm": [("x / 2", "x")],
        "Block.other": [("return h", "return -h")],
        "Block.forward": [("x + h", "h")],
    }
    patched = patch_source(BLOCK, edits)
    assert patched.members == ("norm", "Block")
    assert patched.text == BLOCK.replace("x   /   2", "x").replace("return h", "return -h").replace("x + h", "h")


def test_a_later_edit_of_a_member_sees_what_an_earlier_one_made() -> None:
    assert_edited(
        "def f(x):\n    return x\n",
        {"f": ["x", "g(x)", "return g(x)", "y = g(x)\nreturn y"]},
        "def f(x):\n    y = g(x)\n    return y\n",
    )
    with pytest.raises(AnchorMatchError):
        patch_source("def f(x):\n    return x\n", {"f": ["return g(x)", "y = g(x)\nreturn y", "x", "g(x)"]})


def test_a_method_and_its_class_can_both_be_edited() -> None:
    assert_edited(
        """
        class A:
            def f(self):
                return 1
        """,
        {
            "A.f": [("return 1", "return 2")],
            "A": [("def f(self):\n    return 2", "def f(self):\n    return 3")],
        },
        """
        class A:
            def f(self):
                return 3
        """,
    )


def test_dotted_members_reach_into_classes_and_leave_their_namesakes() -> None:
    assert_edited(
        """
        class A:
            class Inner:
                def f(self):
                    return 1
            def f(self):
                return 1
        def f():
            return 1
        """,
        {"A.Inner.f": [("1", "self.one")]},
        """
        class A:
            class Inner:
                def f(self):
                    return self.one
            def f(self):
                return 1
        def f():
            return 1
        """,
    )


def test_the_last_of_several_definitions_is_edited() -> None:
    assert_edited(
        "def f():\n    return 1\n\ndef f():\n    return 1\n",
        {"f": [("return 1", "return 2")]},
        "def f():\n    return 1\n\ndef f():\n    return 2\n",
    )


def test_an_anchor_is_found_in_every_nested_scope() -> None:
    before = """
    async def f(x):
        def g():
            x = 1
        async with x:
            x = 1
        try:
            x = 1
        except E:
            x = 1
        else:
            x = 1
        finally:
            x = 1
        match x:
            case 1:
                x = 1
        while x:
            x = 1
        else:
            x = 1
    """
    assert_edited(before, {"f": [Edit("x = 1", "x = 2", count=9)]}, before.replace("x = 1", "x = 2"))
    for count in (8, 10):
        with pytest.raises(AnchorMatchError, match=f"occurs 9 times in f, and its edit needs it {count} times"):
            patch_source(source(before), {"f": [Edit("x = 1", "x = 2", count=count)]})


def test_repeated_statements_are_counted_without_overlaps() -> None:
    assert_edited(
        "def f():\n    g()\n    g()\n    g()\n    g()\n",
        {"f": [Edit("g()\ng()", "h()", count=2)]},
        "def f():\n    h()\n    h()\n",
    )


def test_an_expression_is_replaced_wherever_it_stands_alone_too() -> None:
    assert_edited(
        "def f(x):\n    g(x)\n    return [g(x) for x in g(x)]\n",
        {"f": [Edit("g(x)", "h(x)", count=3)]},
        "def f(x):\n    h(x)\n    return [h(x) for x in h(x)]\n",
    )


def test_an_expression_is_where_a_value_is_taken_not_where_one_is_stored() -> None:
    assert_edited(
        "def f(self):\n    self.x = self.x\n    del self.x\n",
        {"f": [("self.x", "self.y")]},
        "def f(self):\n    self.x = self.y\n    del self.x\n",
    )


@pytest.mark.parametrize(
    ("before", "edit", "after"),
    [
        ("a * b", ("b", "b + c"), "a * (b + c)"),
        ("-a", ("a", "a if b else c"), "-(a if b else c)"),
        ("a.real", ("a", "5"), "(5).real"),
        ("a.real", ("a", "await b"), "(await b).real"),
        ("g(a)", ("a", "lambda: 1"), "g((lambda: 1))"),
        ("g(a)", ("a", "b, c"), "g((b, c))"),
        ("g(a)", ("a", "b := c"), None),
        ("g(a)", ("a", "(b := c)"), "g((b := c))"),
        ("g(*a)", ("*a", "*b"), "g(*b)"),
        ("g(x for x in a)", ("(x for x in a)", "b"), "g(b)"),
        ("a + (b, c)", ("(b, c)", "d"), "a + (d)"),
        ("a + b", ("a", "c  # why"), "c + b"),
        ("a + b", ("a", "(c\n .d)"), "(c\n            .d) + b"),
        ("a.b.c", ("a.b", "g(a)[0]"), "g(a)[0].c"),
        ('a["é"] + b', ("b", "c"), 'a["é"] + c'),
        ("a[b]", ("b", "c:d"), None),
    ],
)
def test_a_replaced_expression_keeps_its_own_parts_together(
    before: str, edit: tuple[str, str], after: str | None
) -> None:
    text = f"async def f(a, b):\n    return {before}\n"
    if after is None:
        with pytest.raises(PatchError):
            patch_source(text, {"f": [edit]})
        return
    patched = patch_source(text, {"f": [edit]}).text
    assert patched == f"async def f(a, b):\n    return {after}\n"
    ast.parse(patched)


def test_text_that_is_not_ascii_does_not_shift_positions() -> None:
    assert_edited(
        """
        class Naïve:  # größer
            def f(self, größe):
                s = "日本語 🙂"; größe = größe * self.é("∂") + größe  # ∂
                return größe
        """,
        {"Naïve.f": [('self.é("∂")', 'self.hook("🙂")'), ("return größe", "return -größe  # ¬")]},
        """
        class Naïve:  # größer
            def f(self, größe):
                s = "日本語 🙂"; größe = größe * self.hook("🙂") + größe  # ∂
                return -größe  # ¬
        """,
    )


def test_decorators_belong_to_what_they_decorate() -> None:
    before = source(
        """
        @outer(1)
        class A:
            @inner
            @other(
                2
            )
            def f(self):
                return 1
        """
    )
    new = "@once\ndef f(self):\n    return 2"
    patched = patch_source(before, {"A": [("@inner\n@other(2)\ndef f(self):\n    return 1", new)]})
    assert patched.text == "@outer(1)\nclass A:\n" + textwrap.indent(new, "    ") + "\n"
    assert patch_source(before, {"A": [("outer(1)", "outer(2)")]}).text == before.replace("outer(1)", "outer(2)")
    with pytest.raises(AnchorMatchError):
        patch_source(before, {"A": [("def f(self):\n    return 1", new)]})


def test_f_strings_are_part_of_statements_but_not_searched_for_expressions() -> None:
    assert_edited(
        """
        def f(x):
            print(f"{x} is {x!r:>{width}} {x + 1}")
            return x + 1
        """,
        {"f": [("x + 1", "g(x)"), ('print(f"{x} is {x!r:>{width}} {x + 1}")', 'print(f"{g(x)}")')]},
        """
        def f(x):
            print(f"{g(x)}")
            return g(x)
        """,
    )


def test_strings_of_several_lines_are_not_indented() -> None:
    new = 's = """one\n  two\n\nthree"""\nt = f"""{s}\n{s}\n""", (\n    1,\n)'
    patched = patch_source("class A:\n    def f(self):\n        s = 1\n", {"A.f": [("s = 1", new)]}).text
    assert ast.dump(ast.Module(ast.parse(patched).body[0].body[0].body, [])) == ast.dump(ast.parse(new))  # type: ignore[attr-defined]
    assert patched.endswith('t = f"""{s}\n{s}\n""", (\n            1,\n        )\n')


def test_tabs_are_continued_as_tabs() -> None:
    assert_edited(
        "def f(x):\n\tif x:\n\t\treturn 1\n",
        {"f": [("return 1", "if x > 1:\n    return 2\nreturn 1")]},
        "def f(x):\n\tif x:\n\t\tif x > 1:\n\t\t    return 2\n\t\treturn 1\n",
    )


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_line_ends_are_kept(end: str) -> None:
    before = end.join(["def f(x):", "    x = 1", "    return x", ""])
    assert patch_source(before, {"f": [("x = 1", "x = 2")]}).text == before.replace("1", "2")


def test_a_file_without_a_last_line_break_and_with_odd_spaces() -> None:
    before = "x = 1\x0c\n\x0c\ndef f():\n    s = '\u2028'\n    return 1"
    assert patch_source(before, {"f": [("return 1", "return 2")]}).text == before.replace("return 1", "return 2")


@pytest.mark.parametrize(
    ("before", "edit"),
    [
        ("if x: y = 1", ("y = 1", "y = 2")),
        ("y = 1; x = 2", ("y = 1", "y = 2; z = 3")),
        ("y = 1; x = 2", ("x = 2", "x = g(\n    y,\n)")),
    ],
)
def test_a_statement_that_shares_its_line_takes_a_simple_replacement(before: str, edit: tuple[str, str]) -> None:
    patched = patch_source(f"def f(x):\n    {before}\n", {"f": [edit]}).text
    assert ast.unparse(ast.parse(patched)) == ast.unparse(ast.parse(f"def f(x):\n    {before.replace(*edit)}\n"))


@pytest.mark.parametrize(
    ("before", "edit"),
    [
        ("if x: y = 1", ("y = 1", "y = 2\nz = 3")),
        ("y = 1; x = 2", ("y = 1", "if x:\n    y = 2")),
        ("y = 1; x = 2", ("y = 1", "y = 2  # why")),
        ("return[x]", ("[x]", "y")),
    ],
)
def test_a_replacement_that_would_mean_something_else_there_is_refused(before: str, edit: tuple[str, str]) -> None:
    with pytest.raises(SpliceError) as caught:
        patch_source(f"def f(x):\n    {before}\n", {"f": [edit]})
    message = str(caught.value)
    assert "in f would mean something else where it stands" in message
    assert f"    {edit[0]}\n" in message
    assert f"    {before}\n" in message
    assert message.endswith("Take everything on these lines into the anchor.")


@pytest.mark.parametrize("member", ["g", "A.g", "A.f.g", "B", "x", "f.x"])
def test_a_missing_member_is_named(member: str) -> None:
    text = "class A:\n    def f(self):\n        def g():\n            return 1\n\ndef f():\n    x = 1\n"
    with pytest.raises(MemberNotFoundError, match=f"there is no {member} in this source"):
        patch_source(text, {member: [("return 1", "return 2")]})


def test_a_missing_anchor_is_quoted_with_the_nearest_statements() -> None:
    with pytest.raises(AnchorMatchError) as caught:
        patch_source(BLOCK, {"Block.forward": [("h = self.attn(h, mask, cache)", "pass")]})
    message = str(caught.value)
    assert message.startswith("this anchor occurs 0 times in Block.forward, and its edit needs it 1 times:\n")
    assert "\n    h = self.attn(h, mask, cache)\n" in message
    nearest = message.partition("The nearest statements in Block.forward are:\n")[2].splitlines()
    assert nearest[0] == "    h = self.attn(h, mask)"
    assert "    return h" not in nearest  # of another member


def test_an_anchor_like_nothing_in_the_member_says_so() -> None:
    with pytest.raises(AnchorMatchError, match=r"\(nothing like it\)"):
        patch_source("def f():\n    return 1\n", {"f": [("import collections.abc", "pass")]})


def test_a_source_that_is_not_python_is_no_source() -> None:
    with pytest.raises(SyntaxError):
        patch_source("def f(:", {"f": [("x", "y")]})
