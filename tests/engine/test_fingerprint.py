"""What a fingerprint is indifferent to, and what it notices."""

import pytest

from mishformer_lens.engine import member_fingerprints, source_fingerprint
from tests.engine.editing import source

BEFORE = source(
    '''
    class Block(Base):
        """Docs."""

        scale: float = 1.0

        @decorate(key=[1, 2])
        def forward(self, x: Tensor, *rest: int, flag: bool = None, **more: str) -> Tensor:
            """More docs."""
            y: Tensor = self.norm(x)
            if flag is not None and (n := len(rest)) > 1:
                y, *z = (lambda a, /, b=2, *, c: a[1:, ...])(y, c=b"e".decode())
            return f"{y!r:>{n}} {x=} é {{}} {x:{y}.{n}}" + "🫩 one" "two"

    async def loaded(x=1.5e300, *, y, z=-1j):
        async with x as y:
            yield {**y, "a": None}, {z for z in y if z}, ~x @ y
        match x:
            case [1, *_, {"k": v, **w}] | Point(x=0) as p if p:
                return
            case None:
                raise E from None
        try:
            del x[0]
        except* E:
            global g
            assert x, ""
    '''
)


def fingerprint(text: str, member: str = "Block") -> str:
    return member_fingerprints(text, [member])[member]


def test_the_value_is_the_same_on_every_python_and_for_ever() -> None:
    # Tables of fingerprints are committed: a Python, or a change of the engine, that gives others makes them worthless.
    assert member_fingerprints(BEFORE, ["Block", "loaded", "missing"]) == {
        "Block": "09f59ffe3afc2bc9",
        "loaded": "48639fc321e550a8",
        "missing": "absent",
    }
    assert source_fingerprint({"Block": "0123", "loaded": "absent"}) == "6ad4473170635e0e"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param('"""Docs."""', '"""Other docs."""', id="docstring of a class"),
        pytest.param('    """Docs."""\n', "", id="no docstring of a class"),
        pytest.param('"""More docs."""', "'''Other.'''", id="docstring of a method"),
        pytest.param('        """More docs."""\n', "", id="no docstring of a method"),
        pytest.param("x: Tensor, ", 'x: "torch.Tensor", ', id="annotation of a parameter"),
        pytest.param("x: Tensor, ", "x, ", id="no annotation of a parameter"),
        pytest.param("*rest: int", "*rest", id="no annotation of several parameters"),
        pytest.param("**more: str", "**more", id="no annotation of keyword parameters"),
        pytest.param("flag: bool = None", "flag=None", id="no annotation of a keyword parameter"),
        pytest.param(" -> Tensor:", ":", id="no annotation of the result"),
        pytest.param("y: Tensor = self", "y = self", id="no annotation of a variable"),
        pytest.param("        return f", "        w: int\n        return f", id="a bare annotation"),
        pytest.param("scale: float = 1.0", "scale = 1.00", id="no annotation of an attribute"),
        pytest.param("return f", "# why\n        return  f", id="comment and spaces"),
        pytest.param('"🫩 one" "two"', "'🫩 onetwo'", id="quotes"),
        pytest.param("self.norm(x)", "(self . norm(x,))", id="parentheses"),
        pytest.param("class Block", "import os\n\nclass Block", id="what stands before"),
    ],
)
def test_what_does_not_matter(old: str, new: str) -> None:
    assert old in BEFORE
    assert fingerprint(BEFORE.replace(old, new, 1)) == fingerprint(BEFORE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("scale: float = 1.0", "scale: float = 1.5", id="constant"),
        pytest.param("1.0", "1", id="type of a constant"),
        pytest.param("flag: bool = None", "flag: bool = False", id="default"),
        pytest.param("flag is not None", "flag is None", id="operator"),
        pytest.param("self.norm(x)", "self.norm(y)", id="name"),
        pytest.param("y: Tensor = self.norm(x)", "y += self.norm(x)", id="kind of statement"),
        pytest.param("key=[1, 2]", "key=[1, 2, 3]", id="decorator"),
        pytest.param("Block(Base)", "Block(Base, Other)", id="base class"),
        pytest.param("x: Tensor, ", "x: Tensor, new=1, ", id="parameter"),
        pytest.param("return f", "print(y)\n        return f", id="statement"),
        pytest.param("{x=}", "{x}", id="f-string"),
        pytest.param("!r:", "!s:", id="conversion in an f-string"),
        pytest.param("🫩", "🫨", id="character"),
    ],
)
def test_what_matters(old: str, new: str) -> None:
    assert old in BEFORE
    assert fingerprint(BEFORE.replace(old, new, 1)) != fingerprint(BEFORE)


def test_a_string_that_is_not_the_first_statement_is_no_docstring() -> None:
    texts = ['def f():\n    x = 1\n    "a"', 'def f():\n    x = 1\n    "b"']
    assert len({fingerprint(text, "f") for text in texts}) == 2


def test_a_function_of_a_docstring_alone_is_an_empty_one() -> None:
    assert fingerprint('def f():\n    """Docs."""\n', "f") == fingerprint("def f():\n    pass\n", "f")


def test_an_async_function_is_another_shape_with_docs_and_annotations_as_indifferent() -> None:
    plain = fingerprint("async def f(x):\n    return x", "f")
    assert fingerprint('async def f(x: int) -> int:\n    "Docs."\n    return x', "f") == plain
    assert fingerprint("def f(x):\n    return x", "f") != plain


def test_members_are_independent_of_each_other() -> None:
    changed = BEFORE.replace("1.5e300", "2.5e300")
    before, after = (member_fingerprints(text, ["Block", "loaded"]) for text in (BEFORE, changed))
    assert before["Block"] == after["Block"]
    assert before["loaded"] != after["loaded"]


def test_the_fingerprint_of_a_source_depends_on_members_not_on_their_order() -> None:
    assert source_fingerprint({"a": "1", "b": "2"}) == source_fingerprint({"b": "2", "a": "1"})
    assert source_fingerprint({"a": "1", "b": "2"}) != source_fingerprint({"a": "2", "b": "1"})
    assert source_fingerprint({"a": "1"}) != source_fingerprint({"a": "1", "b": "absent"})


def test_a_source_that_is_not_python_has_none() -> None:
    with pytest.raises(SyntaxError):
        member_fingerprints("class Block(:", ["Block"])
