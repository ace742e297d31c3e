"""Where an anchor occurs in the syntax tree of a member."""

import ast
import difflib
from collections.abc import Iterator, Sequence

Span = tuple[int, int, int, int]
"""First line and column, last line and column; lines count from 1, columns are UTF-8 bytes, as ``ast`` gives them."""

Member = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def find_member(tree: ast.Module | ast.ClassDef, name: str) -> Member | None:
    """The class or function ``name`` in ``tree``; a dotted name goes into classes. The last definition counts."""
    head, _, rest = name.partition(".")
    found: Member | None = None
    for node in _definitions(tree.body):
        if node.name == head:
            found = node
    if not rest:
        return found
    return find_member(found, rest) if isinstance(found, ast.ClassDef) else None


def _definitions(body: Sequence[ast.stmt]) -> Iterator[Member]:
    for node in body:
        if isinstance(node, Member):
            yield node


def find_statements(root: ast.AST, anchor: Sequence[ast.stmt]) -> list[Span]:
    """Every place where the statements of ``anchor`` stand next to each other, without overlaps."""
    return [span(block[start], block[start + len(anchor) - 1]) for block, start in _find_windows(root, anchor)]


def find_expressions(root: ast.AST, anchor: ast.expr) -> list[Span]:
    """Every place where the value of the expression ``anchor`` is taken, but not inside f-strings."""
    return [span(node, node) for node in _walk(root) if isinstance(node, ast.expr) and same_code(node, anchor)]


def replace_statements(root: ast.AST, anchor: Sequence[ast.stmt], new: Sequence[ast.stmt]) -> None:
    """Do on the tree what an edit does on its text, wherever :func:`find_statements` finds ``anchor``."""
    for block, start in reversed(list(_find_windows(root, anchor))):
        block[start : start + len(anchor)] = new or [ast.Pass()]


def replace_expressions(root: ast.AST, anchor: ast.expr, new: ast.expr) -> None:
    """Do on the tree what an edit does on its text, wherever :func:`find_expressions` finds ``anchor``."""
    _Replacement(anchor, new).visit(root)


def same_code(first: object, second: object) -> bool:
    """Whether two trees, or what stands in a field of each, are the same code, wherever each stands."""
    if type(first) is not type(second):
        return False
    if isinstance(first, ast.AST):
        return all(same_code(getattr(first, name, None), getattr(second, name, None)) for name in first._fields)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same_code, first, second))
    return first == second


def span(first: ast.stmt | ast.expr, last: ast.stmt | ast.expr) -> Span:
    """From the start of ``first``, decorators included, to the end of ``last``."""
    assert last.end_lineno is not None  # always set by ast.parse
    assert last.end_col_offset is not None
    start = first.lineno
    if isinstance(first, Member):
        start = min([start, *(decorator.lineno for decorator in first.decorator_list)])
    return start, first.col_offset, last.end_lineno, last.end_col_offset


def nearest_statements(root: ast.AST, anchor: Sequence[ast.stmt], limit: int = 3) -> list[str]:
    """The statements under ``root`` whose text is closest to that of ``anchor``, the closest first."""
    candidates = {ast.unparse(node) for block in _blocks(root) for node in block if not _is_compound(node)}
    found: list[str] = []
    for statement in anchor:
        found += difflib.get_close_matches(ast.unparse(statement), sorted(candidates), n=limit, cutoff=0.4)
    return list(dict.fromkeys(found))[: limit + len(anchor) - 1]


def _is_compound(node: ast.stmt) -> bool:
    return any(isinstance(child, ast.stmt) for child in ast.iter_child_nodes(node))


def _blocks(root: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(root):
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                yield value


def _find_windows(root: ast.AST, anchor: Sequence[ast.stmt]) -> Iterator[tuple[list[ast.stmt], int]]:
    """The blocks with ``anchor`` in them, and where it starts in each."""
    for block in _blocks(root):
        start = 0
        while start + len(anchor) <= len(block):
            if same_code(block[start : start + len(anchor)], anchor):
                yield block, start
                start += len(anchor)
            else:
                start += 1


class _Replacement(ast.NodeTransformer):
    def __init__(self, anchor: ast.expr, new: ast.expr) -> None:
        self.anchor, self.new = anchor, new

    def visit(self, node: ast.AST) -> ast.AST:
        if same_code(node, self.anchor):
            return self.new
        # As in _walk.
        return node if isinstance(node, ast.JoinedStr) else self.generic_visit(node)


def _walk(root: ast.AST) -> Iterator[ast.AST]:
    """Like ``ast.walk``, but not into f-strings: before Python 3.12 positions inside them are wrong."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, ast.JoinedStr):
            stack.extend(ast.iter_child_nodes(node))
