"""Proof that a living function runs the code which a source text compiles to; if not, who took its place.

A file says what was written, the living object says what runs. They part where somebody sets another function on a
class or a module, wraps one, gives one another code, or changes the file after it was imported.
"""

import functools
import types
from collections.abc import Collection, Iterator, Mapping
from inspect import CO_OPTIMIZED

Function = types.FunctionType


def compiled_code(source: str, filename: str) -> Mapping[str, tuple[types.CodeType, ...]]:
    """What the functions and methods of ``source`` compile to in this process, at its level of optimization.

    Args:
        filename: what a :class:`SyntaxError` and the code objects name as their file.

    Returns:
        Qualified name to code, of all functions at the top level and in its classes, classes in classes included. A
        name with several definitions (by condition, or the parts of a property) has the code of each.

    Raises:
        SyntaxError: ``source`` is not Python.
    """
    found: dict[str, tuple[types.CodeType, ...]] = {}
    # Without dont_inherit, the future imports of this very file would hold in the source too.
    for code in _functions_in(compile(source, filename, "exec", dont_inherit=True)):
        found[code.co_qualname] = (*found.get(code.co_qualname, ()), code)
    return found


def _functions_in(scope: types.CodeType) -> Iterator[types.CodeType]:
    for constant in scope.co_consts:
        if not isinstance(constant, types.CodeType):
            continue
        if not constant.co_flags & CO_OPTIMIZED:
            yield from _functions_in(constant)  # the body of a class
        elif constant.co_name.startswith("<generic"):
            yield from _functions_in(constant)  # what Python 3.12 puts around a definition with type parameters
        elif not constant.co_name.startswith("<"):
            yield constant


def is_code(code: types.CodeType, expected: Collection[types.CodeType]) -> bool:
    """Whether ``code`` does what one of ``expected`` does, instruction by instruction, wherever each was written."""
    return any(code is each for each in expected) or _content(code) in map(_content, expected)


def replaced_by(
    function: object,
    expected: Collection[types.CodeType],
    *,
    home: str,
    trusted: Collection[str],
    like: object = None,
    like_file: str = "",
) -> str | None:
    """Say who took the place of a function or method that should run the code of its source.

    A copy of the function is as good as the function where it stands in the same module's namespace; the same code
    in another namespace means something else, and is a replacement. So is a wrapper, unless it is a trusted package's.

    Args:
        function: what stands at its place now, as ``vars(owner)`` has it: static, class methods and properties too.
        expected: the code of its name in :func:`compiled_code`.
        home: the name of the module that the source is of.
        trusted: top-level packages whose decorators may stand around it. A decorator's package is that of its code;
            the ``__module__`` of what it returns is copied from what it wraps.
        like: where given, a function with the decorators that the source has. Then a trusted wrapper is accepted only
            where ``like`` has it too.
        like_file: the file of the code of ``like`` itself: what its closure holds is not what it wraps.

    Returns:
        None where it is that code. Else what runs in its place: module, qualified name, file and line.
    """
    for part in _parts(function):
        replacement = _follow(part, expected, home, frozenset(trusted), frozenset())
        if replacement is not None:
            return replacement
    return None if like is None else _wrapped_otherwise(function, like, like_file)


def changed_since_import(
    module: types.ModuleType, code: Mapping[str, tuple[types.CodeType, ...]], members: Collection[str]
) -> list[str]:
    """The functions of ``module`` itself that do not run the ``code`` of their source any more, under any decorators.

    Args:
        code: what :func:`compiled_code` says of the source as it is now.
        members: the top-level classes and functions to look at.

    Returns:
        Their qualified names, sorted. What was set in a function's place from elsewhere is not among them, see
        :func:`replaced_by`.
    """
    functions = _own_functions(module, members)
    return sorted({name for name, function in functions if not is_code(function.__code__, code.get(name, ()))})


def _own_functions(module: types.ModuleType, members: Collection[str]) -> Iterator[tuple[str, Function]]:
    """The innermost function, with its qualified name, of all members that were defined by the source of ``module``."""
    for member in members:
        found = vars(module).get(member)
        for value in (found, *vars(found).values()) if isinstance(found, type) else (found,):
            for function in (layers[-1] for layers in map(_layers, _parts(value)) if layers):
                name = function.__code__.co_qualname
                if function.__globals__ is vars(module) and name.partition(".")[0] == member and "<" not in name:
                    yield name, function


def _parts(function: object) -> tuple[object, ...]:
    if isinstance(function, property):
        return tuple(each for each in (function.fget, function.fset, function.fdel) if each is not None)
    return (function,)


def _follow(
    layer: object, expected: Collection[types.CodeType], home: str, trusted: frozenset[str], seen: frozenset[int]
) -> str | None:
    """The first layer, from outside in, that neither is the expected code nor may stand around it."""
    function = _unbound(layer)
    if not isinstance(function, Function):
        return describe(function)
    module = _module_of(function)
    if is_code(function.__code__, expected):
        return None if module == home else f"a copy in another module: {describe(function)}"
    inside = [each for each in _inside(function) if id(each) not in seen]
    if (module != home and module.partition(".")[0] not in trusted) or not inside:
        return _own_but_other(function, home, expected) or describe(function)
    replacements = [_follow(each, expected, home, trusted, seen | {id(function)}) for each in inside]
    return None if None in replacements else replacements[0]


def _own_but_other(function: Function, home: str, expected: Collection[types.CodeType]) -> str | None:
    own = {code.co_qualname for code in expected}
    if _module_of(function) == home and function.__code__.co_qualname in own:
        return f"code that its file does not hold now: {describe(function)}"
    return None


def _unbound(layer: object) -> object:
    """What a method or an empty ``partial`` holds; one that binds arguments is not what it holds."""
    while True:
        match layer:
            case staticmethod() | classmethod() | types.MethodType():
                layer = layer.__func__
            case functools.cached_property():
                layer = layer.func
            case functools.partial() | functools.partialmethod() if not layer.args and not layer.keywords:
                layer = layer.func
            case _:
                return layer


def _inside(function: Function) -> list[object]:
    """The functions that a wrapper may call: the one in ``__wrapped__``, if that is what it holds.

    ``functools.wraps`` can be made to name any function in ``__wrapped__``; what runs is what the closure holds.
    """
    held = [each for each in _closure(function) if isinstance(_unbound(each), Function) and each is not function]
    wrapped = vars(function).get("__wrapped__")
    if wrapped is not None and (not held or any(each is wrapped for each in held)):
        return [wrapped]
    return held


def _closure(function: Function) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not set yet
            continue


def _wrapped_otherwise(function: object, like: object, like_file: str) -> str | None:
    here = _wrappers(function)
    there = [each for each in _wrappers(like) if each.__code__.co_filename != like_file]
    codes = [each.__code__ for each in there]
    if [each.__code__ for each in here] == codes:
        return None
    added = next((each for each in here if each.__code__ not in codes), None)
    if added is not None:
        return f"itself in a wrapper that its file does not have: {describe(added)}"
    return "itself with other decorators than its file has"


def _wrappers(function: object) -> list[Function]:
    """The functions around the innermost one, outermost first."""
    return [layer for part in _parts(function) for layer in _layers(part)[:-1]]


def _layers(part: object) -> list[Function]:
    """A function, what it wraps, and so on: outermost first. Where one may call several, the first is followed."""
    layers: list[Function] = []
    layer = _unbound(part)
    while isinstance(layer, Function) and layer not in layers:
        layers.append(layer)
        layer = _unbound(next(iter(_inside(layer)), None))
    return layers


def describe(function: object) -> str:
    """Module, qualified name, file and line of a function's own code; of another callable, what it is."""
    match function:
        case types.FunctionType():
            code = function.__code__
            return f"{_module_of(function)}.{code.co_qualname} ({code.co_filename}, line {code.co_firstlineno})"
        case types.MethodType():
            return describe(function.__func__)
        case functools.partial() | functools.partialmethod():
            return f"a {type(function).__name__} with arguments of {describe(_unbound(function.func))}"
        case type():
            return f"the class {function.__module__}.{function.__qualname__}"
    return f"an object of {describe(type(function))}"


def _module_of(function: Function) -> str:
    return str(function.__globals__.get("__name__", "?"))


@functools.lru_cache(maxsize=4096)
def _content(code: types.CodeType) -> tuple[object, ...]:
    """Everything of a code object that decides what it does: not its file, its lines and what encloses it."""
    return (
        code.co_name,
        code.co_flags,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
        code.co_code,
        code.co_exceptiontable,
        (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
        tuple(map(_constant, code.co_consts)),
    )


def _constant(value: object) -> tuple[object, ...]:
    """A constant with its type: 1, 1.0 and True are equal, and so are 0.0 and -0.0, but they are not the same."""
    match value:
        case types.CodeType():
            return _content(value)
        case tuple():
            return ("tuple", *map(_constant, value))
        case frozenset():
            return ("frozenset", frozenset(map(_constant, value)))
    return (type(value).__name__, repr(value))
