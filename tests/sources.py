"""Sources of transformers with one thing changed."""

import ast

from mishformer_lens.engine.matching import find_member


def with_another_statement(source: str, member: str) -> str:
    """``source`` with one more statement at the start of the function ``member``."""
    node = find_member(ast.parse(source), member)
    assert node is not None
    first = node.body[1] if ast.get_docstring(node) is not None else node.body[0]
    lines = source.split("\n")
    lines.insert(first.lineno - 1, " " * first.col_offset + "unused = None")
    return "\n".join(lines)
