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
    wanted = [ast.dump(statement) for statement in anchor]
    types = [type(statement) for statement in anchor]
    spans: list[Span] = []
    for block in _blocks(root):
        start = 0
        while start + len(wanted) <= len(block):
            window = block[start : start + len(wanted)]
            if [type(node) for node in window] == types and [ast.dump(node) for node in window] == wanted:
                spans.append(span(window[0], window[-1]))
                start += len(wanted)
            else:
                start += 1
    return spans


def find_expressions(root: ast.AST, anchor: ast.expr) -> list[Span]:
    """Every place where the expression ``anchor`` occurs."""
    wanted, kind = ast.dump(anchor), type(anchor)
    return [span(node, node) for node in _walk(root) if type(node) is kind and ast.dump(node) == wanted]


def span(first: ast.stmt | ast.expr, last: ast.stmt | ast.expr) -> Span:
    """From the start of ``first`` to the end of ``last``."""
    assert last.end_lineno is not None  # always set by ast.parse
    assert last.end_col_offset is not None
    return first.lineno, first.col_offset, last.end_lineno, last.end_col_offset


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


def _walk(root: ast.AST) -> Iterator[ast.AST]:
    """Like ``ast.walk``, but not into f-strings: before Python 3.12 positions inside them are wrong."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, ast.JoinedStr):
            stack.extend(ast.iter_child_nodes(node))
