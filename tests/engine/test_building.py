"""Patched members: what is compiled, what they see, and how they look to people and debuggers."""

import asyncio
import inspect
import io
import linecache
import pdb
import re
import traceback
import types
from collections.abc import Callable
from typing import Any

import pytest

from mishformer_lens.engine import Edits, build_members, patch_source
from mishformer_lens.errors import UnsupportedEditError
from tests.engine.editing import build, make_module, source

MODULE = '''
"""A module."""
import functools

SCALE = 10

def document(text):
    def decorate(function):
        function.__doc__ = text
        return function
    return decorate

def doubled(function):
    @functools.wraps(function)
    def call(*args):
        return 2 * function(*args)
    return call

def norm(x):
    """Norm."""
    return x + SCALE

def twice(x):
    return norm(norm(x))

class Base:
    """The base."""

    def forward(self, x):
        """Base's forward."""
        return norm(x)

    def other(self, x):
        return -x

class Child(Base):
    def forward(self, x):
        return super().forward(x) + 1

class Grandchild(Child):
    pass
'''


def test_nothing_of_the_module_changes() -> None:
    before = make_module(MODULE)
    names, base = dict(vars(before)), dict(vars(before.Base))
    patched = patch_source(source(MODULE), {"norm": [("x + SCALE", "x")], "Base.forward": [("norm(x)", "x")]})
    build_members(before, patched, label="a test")
    assert vars(before) == names
    assert dict(vars(before.Base)) == base
    assert before.Base().forward(1) == 11


def test_only_changed_methods_are_compiled() -> None:
    module, built = build(MODULE, {"Base.forward": [("norm(x)", "norm(x) * 2")]})
    patched: Any = built.classes[module.Base]
    assert {name for name, value in vars(patched).items() if callable(value)} == {"forward"}
    assert patched.other is module.Base.other
    assert patched().forward(1) == 22


def test_patched_classes_are_subclasses_that_look_like_the_originals() -> None:
    module, built = build(MODULE, {"Base.forward": [("norm(x)", "x")]})
    assert list(built.classes) == [module.Base, module.Child, module.Grandchild]
    for original, patched in built.classes.items():
        assert patched is not original
        assert issubclass(patched, original)
        assert (patched.__name__, patched.__qualname__, patched.__module__, patched.__doc__) == (
            original.__name__,
            original.__qualname__,
            original.__module__,
            original.__doc__,
        )


def test_super_reaches_the_patched_parent() -> None:
    module, built = build(MODULE, {"Base.forward": [("norm(x)", "x * 100")]})
    assert built.classes[module.Child]().forward(1) == 101
    assert built.classes[module.Grandchild]().forward(1) == 101
    assert module.Child().forward(1) == 12


def test_a_patched_method_calls_super_and_skips_the_original() -> None:
    module, built = build(
        MODULE,
        {
            "Base.forward": [("norm(x)", "x * 100")],
            "Child.forward": [("super().forward(x) + 1", "super().forward(x) + 2")],
        },
    )
    assert built.classes[module.Child]().forward(1) == 102
    assert built.classes[module.Grandchild]().forward(1) == 102


def test_classes_that_do_not_inherit_from_an_edited_one_are_left() -> None:
    module, built = build(MODULE, {"Child.forward": [("super().forward(x) + 1", "0")]})
    assert list(built.classes) == [module.Child, module.Grandchild]


DIAMOND = """
class Root:
    def f(self):
        return "root"

class Left(Root):
    def f(self):
        return "left " + super().f()

class Right(Root):
    def f(self):
        return "right " + super().f()

class Mixin:
    pass

class Bottom(Mixin, Left, Right):
    def f(self):
        return "bottom " + super().f()
"""


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ({"Root.f": [('"root"', '"ROOT"')]}, "bottom left right ROOT"),
        ({"Right.f": [('"right "', '"RIGHT "')]}, "bottom left RIGHT root"),
        ({"Bottom.f": [('"bottom "', '"BOTTOM "')]}, "BOTTOM left right root"),
        (
            {name + ".f": [(f'"{name.lower()} "', f'"{name.upper()} "')] for name in ("Left", "Right", "Bottom")},
            "BOTTOM LEFT RIGHT root",
        ),
        ({"Left.f": [('"left "', '"LEFT "')], "Root.f": [('"root"', '"ROOT"')]}, "bottom LEFT right ROOT"),
    ],
)
def test_a_diamond_is_walked_in_the_order_of_the_originals(edits: Edits, expected: str) -> None:
    module, built = build(DIAMOND, edits)
    assert built.classes[module.Bottom]().f() == expected
    assert module.Bottom().f() == "bottom left right root"


def test_patched_code_sees_patched_functions_and_nothing_else_does() -> None:
    module, built = build(MODULE, {"norm": [("x + SCALE", "x * 2")], "Base.forward": [("norm(x)", "norm(x) + 1")]})
    assert built.functions["norm"](3) == 6
    assert built.classes[module.Base]().forward(3) == 7
    assert module.twice(1) == 21  # code that no edit touches goes on seeing the module


def test_what_is_replaced_in_the_module_later_counts_in_patched_code() -> None:
    module, built = build(MODULE, {"Base.forward": [("norm(x)", "norm(x) + SCALE")]})
    patched = built.classes[module.Base]()
    assert patched.forward(1) == 21
    vars(module).update(norm=lambda x: -x, SCALE=5)
    assert patched.forward(1) == 4


def test_a_class_sees_patched_classes_under_their_names() -> None:
    text = """
    class A:
        def f(self):
            return 1
        def same(self):
            return type(self) is A
    class B:
        def make(self):
            return A()
    """
    edits: Edits = {
        "A.f": [("return 1", "return 2")],
        "A.same": [("return type(self) is A", "same = type(self) is A\nreturn same")],
        "B.make": [("return A()", "made = A()\nreturn made")],
    }
    module, built = build(text, edits)
    assert built.classes[module.A]().same()
    assert built.classes[module.B]().make().f() == 2
    assert module.B().make().f() == 1


def test_says_what_patched_code_stands_in_for_and_what_a_class_uses() -> None:
    edits = {
        "norm": [("x + SCALE", "x")],
        "Base.forward": [("norm(x)", "norm(x) + 1")],
        "twice": [("norm(norm(x))", "x")],
    }
    module, built = build(MODULE, edits)
    assert built.originals == {
        "norm": (None, module.norm),
        "twice": (None, module.twice),
        "Base.forward": (module.Base, vars(module.Base)["forward"]),
    }
    assert built.uses[module.Base] == built.uses[module.Grandchild] == {"norm", "Base.forward"}


def test_extra_names_are_seen_by_patched_code_alone() -> None:
    module = make_module(MODULE)
    patched = patch_source(source(MODULE), {"norm": [("x + SCALE", "helper(x)")]})
    built = build_members(module, patched, label="a test", extra_names={"helper": abs})
    assert built.functions["norm"](-3) == 3
    assert "helper" not in vars(module)


METHODS = '''
import functools

def tagged(tag):
    def decorate(function):
        @functools.wraps(function)
        def call(*args):
            return tag, function(*args)
        return call
    return decorate

class A:
    default = 5
    __secret = "secret"

    def __init__(self):
        self.__own = "own"
        self._x = 1

    @classmethod
    def make(cls):
        """Make."""
        return cls

    @staticmethod
    def add(x, y=default):
        """Add."""
        return x + y

    @property
    def x(self):
        """X."""
        return self._x

    @x.setter
    def x(self, value):
        self._x = value

    @tagged("tag")
    def tag(self):
        return 1

    @functools.cached_property
    def cached(self):
        """Cached."""
        return 1

    def secrets(self):
        return self.__own, self.__secret, self.__private(), A.__secret

    def __private(self):
        return "private"

    async def later(self):
        return 1

    def nested(self):
        def inner():
            return __class__.__name__, self
        return inner

    def generate(self):
        yield 1
'''


def edited_a(edits: Edits) -> tuple[Any, Any]:
    module, built = build(METHODS, edits)
    return module.A, built.classes[module.A]


def test_class_and_static_methods_stay_what_they_are() -> None:
    original, patched = edited_a({"A.make": [("cls", "[cls]")], "A.add": [("x + y", "x * y")]})
    assert patched.make() == [patched]
    assert patched().add(2) == patched.add(2) == 10
    assert (patched.make.__doc__, patched.add.__doc__) == ("Make.", "Add.")
    assert original.add(2) == 7


def test_a_property_keeps_all_its_parts() -> None:
    _, patched = edited_a({"A.x": [("self._x = value", "self._x = 2 * value")]})
    instance = patched()
    instance.x = 3
    assert instance.x == 6
    assert patched.x.__doc__ == "X."
    _, patched = edited_a({"A": [("return self._x", "return -self._x")]})
    instance = patched()
    instance.x = 3
    assert instance.x == -3


def test_behaviour_of_decorators_is_kept() -> None:
    _, patched = edited_a({"A.tag": [("return 1", "return 2")], "A.cached": [("return 1", "return object()")]})
    assert patched().tag() == ("tag", 2)
    instance = patched()
    assert instance.cached is instance.cached
    assert patched.cached.__doc__ == "Cached."


def test_private_names_are_those_of_the_class() -> None:
    own = ("self.__own, self.__secret, self.__private(), A.__secret", "self.__secret, self.__own, self.__private()")
    _, patched = edited_a({"A.secrets": [own]})
    assert patched().secrets() == ("secret", "own", "private")
    _, patched = edited_a({"A.__private": [('"private"', '"patched"')]})
    assert patched().secrets() == ("own", "secret", "patched", "secret")


def test_async_methods_and_generators() -> None:
    _, patched = edited_a({"A.later": [("return 1", "return 2")], "A.generate": [("yield 1", "yield from (1, 2)")]})
    assert asyncio.run(patched().later()) == 2
    assert list(patched().generate()) == [1, 2]


def test_functions_inside_methods() -> None:
    _, patched = edited_a({"A.nested": [("__class__.__name__, self", "__class__.__name__")]})
    inner = patched().nested()
    assert inner() == "A"
    assert inner.__qualname__ == "A.nested.<locals>.inner"


def test_a_method_can_be_added_beside_another() -> None:
    _, patched = edited_a(
        {
            "A": [
                (
                    "async def later(self):\n    return 1",
                    "async def later(self):\n    return self.now()\n\ndef now(self):\n    return 2",
                )
            ]
        }
    )
    assert asyncio.run(patched().later()) == 2


DOCUMENTED = """
import docs
def document(text):
    def decorate(function):
        function.__doc__ = text
        return function
    return decorate

class A:
    @document("Made by a decorator.")
    def f(self):
        return 1

    @docs.add(to="f")
    @docs.other
    def g(self):
        return 1

@document("Made too.")
def f():
    return 1
"""


def documented(drop: tuple[str, ...], edits: Edits) -> tuple[types.ModuleType, Any, list[str]]:
    """The made-up module, its patched members, and which of the decorators in ``docs`` ran while they were built."""
    runs: list[str] = []

    def noting(name: str) -> Callable[[Any], Any]:
        def decorate(function: Any) -> Any:
            runs.append(name)
            return function

        return decorate

    docs = types.SimpleNamespace(add=lambda to: noting("add"), other=noting("other"))
    text = source(DOCUMENTED).replace("import docs\n", "\n")
    module = types.ModuleType("made_up")
    vars(module)["docs"] = docs
    exec(text, vars(module))
    runs.clear()
    return module, build_members(module, patch_source(text, edits), label="a test", drop_decorators=drop), runs


def test_dropped_decorators_do_not_run_again_and_their_documentation_stays() -> None:
    edits = {"A.f": [("return 1", "return 2")], "A.g": [("return 1", "return 3")], "f": [("return 1", "return 4")]}
    module, built, runs = documented(("document", "docs.add"), edits)
    patched = built.classes[module.A]
    assert runs == ["other"]
    assert (patched().f(), patched.f.__doc__) == (2, "Made by a decorator.")
    assert (built.functions["f"](), built.functions["f"].__doc__) == (4, "Made too.")


def test_other_decorators_run_again() -> None:
    _, _, runs = documented((), {"A.g": [("return 1", "return 3")]})
    assert runs == ["other", "add"]


def test_qualified_names_and_signatures() -> None:
    module, built = build(MODULE, {"Base.forward": [("norm(x)", "x")], "norm": [("x + SCALE", "x")]})
    for original, patched in (
        (module.Base.forward, built.classes[module.Base].forward),  # type: ignore[attr-defined]
        (module.norm, built.functions["norm"]),
    ):
        for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
            assert getattr(patched, attribute) == getattr(original, attribute)
        assert inspect.signature(patched) == inspect.signature(original)
        assert patched.__code__.co_qualname == original.__code__.co_qualname


def test_a_traceback_shows_the_patched_line() -> None:
    module, built = build(MODULE, {"Base.forward": [("return norm(x)", "y = x\nreturn  1 / y  # as written")]})
    patched: Any = built.classes[module.Base]
    linecache.checkcache()
    with pytest.raises(ZeroDivisionError) as caught:
        patched().forward(0)
    shown = "".join(traceback.format_exception(caught.value))
    assert "return  1 / y  # as written" in shown
    assert 'File "<made_up patched by a test>", line 31, in forward' in shown


def test_the_source_shown_is_the_patched_one() -> None:
    module, built = build(MODULE, {"Base.forward": [("norm(x)", "norm(x) * 2")], "norm": [("SCALE", "SCALE * 2")]})
    linecache.checkcache()
    assert inspect.getsource(built.classes[module.Base].forward) == (  # type: ignore[attr-defined]
        '    def forward(self, x):\n        """Base\'s forward."""\n        return (norm(x) * 2)\n'
    )
    assert inspect.getsource(built.functions["norm"]) == 'def norm(x):\n    """Norm."""\n    return x + (SCALE * 2)\n'
    assert inspect.getsourcefile(built.functions["norm"]) == built.filename


def test_a_debugger_lists_the_patched_source() -> None:
    module, built = build(MODULE, {"Base.forward": [("return norm(x)", "y = x\nreturn 1 / y  # as written")]})
    patched: Any = built.classes[module.Base]
    with pytest.raises(ZeroDivisionError) as caught:
        patched().forward(0)
    shown = io.StringIO()
    debugger = pdb.Pdb(stdout=shown, nosigint=True, readrc=False)
    debugger.reset()
    debugger.setup(None, caught.tb)
    debugger.onecmd("list")
    debugger.onecmd("p y, self.other(2)")
    assert re.search(r"31\s+->\s+return 1 / y  # as written", shown.getvalue())
    assert "(0, -2)" in shown.getvalue()


def test_lines_are_counted_as_python_counts_them() -> None:
    text = 'S = "\u2028 \x0c"\ndef f():\n    return 1\n'
    _, built = build(text, {"f": [("return 1", "return 2")]})
    assert inspect.getsource(built.functions["f"]) == "def f():\n    return 2\n"


def test_two_patches_of_one_module_stand_side_by_side() -> None:
    module = make_module(MODULE)
    first, second = (
        build_members(module, patch_source(source(MODULE), {"norm": [("x + SCALE", f"x + {n}")]}), label=f"number {n}")
        for n in (1, 2)
    )
    assert (first.functions["norm"](0), second.functions["norm"](0), module.norm(0)) == (1, 2, 10)
    assert "x + 1" in inspect.getsource(first.functions["norm"])
    assert "x + 2" in inspect.getsource(second.functions["norm"])


def test_future_imports_of_the_module_hold_in_its_patched_code() -> None:
    text = """
    from __future__ import annotations
    class A:
        def f(self, x: Missing) -> Missing:
            return x
    def g(x: Missing):
        return x
    """
    module, built = build(text, {"A.f": [("return x", "return -x")], "g": [("return x", "return -x")]})
    patched: Any = built.classes[module.A]
    assert patched().f(1) == built.functions["g"](1) == -1
    assert patched.f.__annotations__ == {"x": "Missing", "return": "Missing"}


def test_decorated_functions_are_decorated_again() -> None:
    text = "import functools\n@functools.lru_cache\ndef f(x):\n    '''F.'''\n    return x\n"
    _, built = build(text, {"f": [("return x", "return -x")]})
    patched: Any = built.functions["f"]
    assert patched(1) == patched(1) == -1
    assert patched.cache_info().hits == 1
    assert patched.__doc__ == "F."


def test_a_class_without_changes_gets_a_subclass_without_methods() -> None:
    module, built = build(MODULE, {"Base.forward": [("norm(x)", "norm(x)")]})
    assert not any(callable(value) for value in vars(built.classes[module.Base]).values())


@pytest.mark.parametrize(
    ("edits", "complaint"),
    [
        ({"A": [("default = 5", "default = 6")]}, "of the class A change more than its methods"),
        ({"A": [("'secret'", "'other'")]}, "of the class A change more than its methods"),
        ({"A": [("def generate(self):\n    yield 1", "")]}, "of the class A remove generate"),
    ],
)
def test_what_a_living_class_cannot_be_given_is_refused(edits: Edits, complaint: str) -> None:
    with pytest.raises(UnsupportedEditError, match=complaint):
        build(METHODS, edits)


@pytest.mark.parametrize(
    "after", ["del A", "A = None", "A = dict", "import collections; A = collections.OrderedDict", "del f", "f = None"]
)
def test_a_name_that_stands_for_something_else_by_now_is_refused(after: str) -> None:
    text = f"class A:\n    def f(self):\n        return 1\ndef f():\n    return 1\n{after}\n"
    member = "f" if after in ("del f", "f = None") else "A.f"
    with pytest.raises(UnsupportedEditError, match=f"{member[0]} of made_up is not what its source says"):
        build(text, {member: [("return 1", "return 2")]})
