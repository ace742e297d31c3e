"""That a living function is what its source says, or who took its place."""

import __future__

import functools
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from typing import Any

import pytest

from mishformer_lens.engine.live_code import changed_since_import, compiled_code, replaced_by
from tests.engine.editing import source

HOME = "made_up"

TEXT = source(
    """
    import functools

    def twice(x, factor=2):
        '''Doubled.'''
        if x in {1, 2, "three"}:
            assert factor
        return factor * x + 0.0

    def wrapped_at_home(function):
        def wrapper(*args):
            return function(*args)
        return wrapper

    if twice(1) > 1:
        def by_condition(x):
            return x + 1
    else:
        def by_condition(x):
            return x - 1

    class Base:
        def method(self, x):
            return x

    class Part(Base):
        class Inner:
            def method(self, x):
                return lambda: x

        def method(self, x):
            return super().method(x) + [x for x in (1, 2)][0]

        @staticmethod
        def static(x):
            return x

        @classmethod
        def of_class(cls, x):
            return x

        @property
        def value(self):
            return 1

        @value.setter
        def value(self, new):
            self.new = new

        @functools.cached_property
        def cached(self):
            return 1

        @wrapped_at_home
        def wrapped(self, x):
            return x
    """
)

METHODS = ("method", "static", "of_class", "value", "cached", "wrapped")


@pytest.fixture
def module() -> types.ModuleType:
    return executed(TEXT, HOME, "/somewhere/made_up.py")


def executed(text: str, name: str, filename: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec(compile(text, filename, "exec"), vars(module))
    return module


CODE = compiled_code(TEXT, "<another file>")


def replacement(function: object, name: str, **options: Any) -> str | None:
    return replaced_by(function, CODE[name], home=HOME, trusted={"trusted"}, **options)


def in_package(package: str, text: str, **names: object) -> Any:
    """What ``made`` is after ``text`` was run in a module of ``package``."""
    namespace: dict[str, Any] = {"__name__": f"{package}.layers", "functools": functools, **names}
    exec(compile(source(text), f"/site/{package}/layers.py", "exec"), namespace)
    return namespace["made"]


DECORATOR = """
    def decorator(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)
        return wrapper
    made = decorator(original)
    """


def test_all_functions_and_methods_have_their_code_and_nothing_else_has() -> None:
    assert set(CODE) == {
        "twice",
        "wrapped_at_home",
        "by_condition",
        "Base.method",
        "Part.Inner.method",
        *(f"Part.{name}" for name in METHODS),
    }
    assert len(CODE["by_condition"]) == len(CODE["Part.value"]) == 2


@pytest.mark.parametrize("name", CODE)
def test_what_stands_at_its_place_is_its_source(module: types.ModuleType, name: str) -> None:
    assert replacement(at(module, name), name) is None


@pytest.mark.parametrize("flag", ["-O", "-OO", "-B"])
def test_so_it_is_where_python_leaves_assertions_and_docstrings_out(flag: str) -> None:
    check = f"""
        import types
        from mishformer_lens.engine.live_code import changed_since_import, compiled_code, replaced_by
        module = types.ModuleType({HOME!r})
        exec(compile({TEXT!r}, "/somewhere/made_up.py", "exec"), vars(module))
        code = compiled_code({TEXT!r}, "<other>")["twice"]
        assert __debug__ or module.twice.__code__.co_consts
        print(replaced_by(module.twice, code, home={HOME!r}, trusted=()))
        """
    command = [sys.executable, "-W", "ignore", flag, "-c", textwrap.dedent(check)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "None"


def test_the_source_is_compiled_by_its_own_future_imports() -> None:
    plain = compiled_code("def f(x): return x", "<plain>")["f"][0]
    future = compiled_code("from __future__ import annotations\ndef f(x): return x", "<future>")["f"][0]
    assert future.co_flags == plain.co_flags | __future__.annotations.compiler_flag


def at(module: types.ModuleType, name: str) -> Any:
    """What ``vars`` of its owner has for a qualified name."""
    *owners, last = name.split(".")
    owner: Any = module
    for each in owners:
        owner = vars(owner)[each]
    return vars(owner)[last]


def test_lines_and_file_do_not_count(module: types.ModuleType) -> None:
    moved = compiled_code("\n\n# moved\n" + TEXT, "<moved>")
    for name, code in moved.items():
        assert replaced_by(at(module, name), code, home=HOME, trusted=()) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x in {1, 2", "x in {1, 2.0"),
        ("+ 0.0", "+ -0.0"),
        ("assert factor", "pass"),
        ("factor * x", "x * factor"),
        ("def twice(x, factor", "def twice(x, /, factor"),
    ],
)
def test_anything_else_counts(module: types.ModuleType, old: str, new: str) -> None:
    assert TEXT.count(old) == 1
    code = compiled_code(TEXT.replace(old, new), "<changed>")["twice"]
    found = replaced_by(module.twice, code, home=HOME, trusted=())
    assert found == "code that its file does not hold now: made_up.twice (/somewhere/made_up.py, line 3)"


def test_a_function_set_in_its_place_is_named_by_where_it_is_from(module: types.ModuleType) -> None:
    foreign = in_package("liger", "def made(self, x):\n    return x + 1")
    places: list[object] = [
        foreign,
        staticmethod(foreign),
        classmethod(foreign),
        property(foreign),
        functools.partial(foreign),
    ]
    for place in places:
        assert replacement(place, "Part.method") == "liger.layers.made (/site/liger/layers.py, line 1)"


def test_a_function_of_a_trusted_package_is_no_decorator_where_it_holds_no_function(module: types.ModuleType) -> None:
    other = in_package("trusted", "def made(self, x):\n    return x + 1")
    assert replacement(other, "Part.method") == "trusted.layers.made (/site/trusted/layers.py, line 1)"


def test_a_wrapper_is_accepted_from_a_trusted_package_only(module: types.ModuleType) -> None:
    original = module.Part.method
    assert replacement(in_package("trusted", DECORATOR, original=original), "Part.method") is None
    found = replacement(in_package("foreign", DECORATOR, original=original), "Part.method")
    assert found == "foreign.layers.decorator.<locals>.wrapper (/site/foreign/layers.py, line 2)"


def test_what_a_trusted_wrapper_holds_is_looked_at(module: types.ModuleType) -> None:
    foreign = in_package("foreign", "def made(self, x):\n    return x")
    found = replacement(in_package("trusted", DECORATOR, original=foreign), "Part.method")
    assert found == "foreign.layers.made (/site/foreign/layers.py, line 1)"


def test_a_wrapper_without_a_mark_is_looked_into_and_a_false_mark_is_not_believed(module: types.ModuleType) -> None:
    original, foreign = module.Part.method, in_package("foreign", "def made(self, x):\n    return x")
    unmarked = DECORATOR.replace("@functools.wraps(function)\n", "\n")
    assert replacement(in_package("trusted", unmarked, original=original), "Part.method") is None
    false = functools.update_wrapper(in_package("trusted", unmarked, original=foreign), original)
    assert replacement(false, "Part.method") == "foreign.layers.made (/site/foreign/layers.py, line 1)"


def test_a_wrapper_that_holds_itself_and_helpers_is_looked_through(module: types.ModuleType) -> None:
    text = """
        def helper(): pass
        def decorator(function, helper):
            def wrapper(*args):
                helper(), wrapper
                return function(*args)
            return wrapper
        made = decorator(decorator(original, helper), helper)
        """
    assert replacement(in_package("trusted", text, original=module.Part.method), "Part.method") is None
    other = in_package("foreign", "def made(self, x):\n    return x")
    found = replacement(in_package("trusted", text, original=other), "Part.method")
    assert found is not None


def test_the_same_code_elsewhere_is_a_replacement_and_in_the_same_namespace_is_not(module: types.ModuleType) -> None:
    code = module.Part.method.__code__
    copied = types.FunctionType(code, vars(module), closure=module.Part.method.__closure__)
    assert replacement(copied, "Part.method") is None
    elsewhere = executed(TEXT, "elsewhere", "/elsewhere.py").Part.method
    assert replacement(elsewhere, "Part.method") == (
        "a copy in another module: elsewhere.Part.method (/elsewhere.py, line 30)"
    )


def test_code_set_on_the_function_itself_is_a_replacement(module: types.ModuleType) -> None:
    def other(x: int, factor: int = 2) -> int:
        return x

    module.twice.__code__ = other.__code__
    assert "other" in str(replacement(module.twice, "twice"))


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (lambda original: functools.partial(original, factor=3), "a partial with arguments of made_up.twice"),
        (lambda original: functools.partialmethod(original, 3), "a partialmethod with arguments of made_up.twice"),
        (lambda original: Standing(), "an object of the class"),
        (lambda original: len, "an object of the class builtins.builtin_function_or_method"),
        (lambda original: None, "an object of the class builtins.NoneType"),
    ],
)
def test_what_is_no_function_is_named_by_what_it_is(
    module: types.ModuleType, made: Callable[[object], object], name: str
) -> None:
    assert str(replacement(made(module.twice), "twice")).startswith(name)


class Standing:
    def __call__(self) -> None: ...


def test_each_part_of_a_property_counts(module: types.ModuleType) -> None:
    value = module.Part.value if isinstance(module.Part.value, property) else vars(module.Part)["value"]
    foreign = in_package("foreign", "def made(self, new): pass")
    assert replacement(value.setter(foreign), "Part.value") == "foreign.layers.made (/site/foreign/layers.py, line 1)"


def test_a_trusted_wrapper_that_the_source_has_not_is_a_replacement_where_it_is_compared(
    module: types.ModuleType,
) -> None:
    decorator = in_package("trusted", DECORATOR.replace("made = decorator(original)", "made = decorator"))
    original, patched = module.Part.method, executed(TEXT, HOME, "<patched>").Part.method
    assert replacement(original, "Part.method", like=patched) is None
    assert replacement(decorator(original), "Part.method", like=decorator(patched)) is None
    added = replacement(decorator(original), "Part.method", like=patched)
    assert added == (
        "itself in a wrapper that its file does not have: "
        "trusted.layers.decorator.<locals>.wrapper (/site/trusted/layers.py, line 2)"
    )
    for live, like in ((original, decorator(patched)), (decorator(decorator(original)), decorator(patched))):
        found = replacement(live, "Part.method", like=like)
        assert found == "itself with other decorators than its file has"


def test_a_source_that_changed_since_it_was_imported_is_noticed_by_member(module: types.ModuleType) -> None:
    members = ("twice", "Part", "Base", "by_condition")
    assert changed_since_import(module, CODE, members) == []
    moved = compiled_code("# moved\n" + TEXT.replace("self.new = new", "self.old = new"), "<moved>")
    assert changed_since_import(module, moved, members) == ["Part.value"]
    assert changed_since_import(module, moved, ("Base", "twice")) == []
    lost = {name: code for name, code in CODE.items() if name not in ("twice", "Part.static", "Base.method")}
    assert changed_since_import(module, lost, members) == ["Base.method", "Part.static", "twice"]


def test_what_was_set_from_elsewhere_does_not_make_a_source_a_changed_one(module: types.ModuleType) -> None:
    foreign = in_package("foreign", "def made(self, x):\n    return x + 1")
    module.Part.method = foreign
    vars(module).update(twice=foreign, Base=type("Base", (), {"method": foreign}))
    del vars(module)["by_condition"]
    assert changed_since_import(module, CODE, ("twice", "Part", "Base", "by_condition")) == []


def test_a_changed_source_is_noticed_under_decorators(module: types.ModuleType) -> None:
    module.Part.method = in_package("foreign", DECORATOR, original=module.Part.method)
    assert changed_since_import(module, CODE, ("Part",)) == []
    changed = compiled_code(TEXT.replace("super().method(x) + ", "super().method(x) * "), "<changed>")
    assert changed_since_import(module, changed, ("Part",)) == ["Part.method"]


def test_code_that_ran_and_was_traced_is_its_source_still(module: types.ModuleType) -> None:
    lines = []

    def trace(frame: types.FrameType, event: str, argument: object) -> Any:
        lines.append(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for number in range(200):  # Python rewrites what runs often
            module.twice(number)
    finally:
        sys.settrace(before)
    for number in range(200):
        module.twice(number)
    assert lines
    assert replacement(module.twice, "twice") is None
