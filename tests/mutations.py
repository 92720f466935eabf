"""The small changes to a module that a test should notice, by the module's syntax tree."""

from __future__ import annotations

import ast
import copy
import re
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPARISONS: dict[type[ast.cmpop], list[type[ast.cmpop]]] = {
    ast.Lt: [ast.LtE, ast.Gt],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.Lt],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}

PROSE = re.compile(r"[a-z]+,? [a-z]+,? [a-z]+")
"""Wording is not mutated: a test that pins it would say nothing about behaviour."""


def mutants(source: str) -> list[str]:
    """The module with one change each, in the order of its lines."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    raw = source.encode()
    changed = {(a, b, new): raw[:a] + new.encode() + raw[b:] for a, b, new in finder.edits}
    return [text.decode() for _, text in sorted(changed.items()) if text != raw]


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        self.edits: list[tuple[int, int, str]] = []
        self._source = source
        self._line_starts = [0]
        for line in source.encode().splitlines(keepends=True):
            self._line_starts.append(self._line_starts[-1] + len(line))

    @override
    def visit(self, node: ast.AST) -> None:
        match node:
            # What is no code of the run: imports for types, docstrings.
            case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.Expr(value=ast.Constant()):
                return
            # Of text with values in it, the values alone.
            case ast.JoinedStr(values=parts):
                node = ast.Tuple([p.value for p in parts if isinstance(p, ast.FormattedValue)])
            case ast.expr() if self._is_where_it_says(node):
                for other in _other_expressions(node):
                    self._replace(node, ast.unparse(other))
        for place, new in _edits(node):
            self._replace(place, new)
        for name, value in ast.iter_fields(node):
            if name in {"annotation", "returns", "decorator_list", "type_params"}:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self.visit(child)

    def _replace(self, node: Any, new: str) -> None:
        start = self._line_starts[node.lineno - 1] + node.col_offset
        end = self._line_starts[node.end_lineno - 1] + node.end_col_offset
        self.edits.append((start, end, new))

    def _is_where_it_says(self, node: ast.expr) -> bool:
        """Whether a node's place is right: within f-strings it is not, before Python 3.12."""
        text = ast.get_source_segment(self._source, node)
        try:
            return ast.unparse(ast.parse(f"({text})", mode="eval")) == ast.unparse(node)
        except SyntaxError:
            return False


def _edits(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """What else may stand for a statement, or for a part of one."""
    match node:
        case ast.If(test=condition):
            yield condition, "True"
            yield condition, "False"
        case ast.While(test=condition):
            yield condition, "False"
        case ast.comprehension(ifs=conditions):
            yield from ((condition, "True") for condition in conditions)
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield node, "pass"
        case ast.Continue() | ast.Break():
            yield node, "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield node, "pass"
        case ast.ExceptHandler(type=ast.Tuple(elts=kinds) as caught):
            for kind in kinds:
                yield caught, f"({''.join(f'{ast.unparse(k)}, ' for k in kinds if k is not kind)})"
        case ast.ExceptHandler(type=ast.expr() as caught):
            yield caught, "()"


def _other_expressions(node: ast.expr) -> Iterator[ast.expr]:  # noqa: C901, PLR0912 - each has a case
    """What else may stand for an expression."""

    def changed(**fields: Any) -> Any:
        other = copy.copy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        return other

    match node:
        case ast.Compare(ops=ops):
            for place, op in enumerate(ops):
                for new in COMPARISONS[type(op)]:
                    yield changed(ops=[*ops[:place], new(), *ops[place + 1 :]])
        case ast.BoolOp(values=values):
            for place in range(len(values)):
                rest = values[:place] + values[place + 1 :]
                yield changed(values=rest) if len(rest) > 1 else rest[0]
        case ast.BinOp(op=op) if type(op) in OPERATORS:
            yield changed(op=OPERATORS[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=orelse):
            yield from (body, orelse)
        case ast.Subscript(slice=ast.Slice(lower=lower, upper=upper, step=step)):
            if lower:
                yield changed(slice=ast.Slice(None, upper, step))
            if upper:
                yield changed(slice=ast.Slice(lower, None, step))
        case ast.Call(func=func, args=args, keywords=keywords):
            if isinstance(func, ast.Name) and func.id in FUNCTIONS:
                yield changed(func=ast.Name(FUNCTIONS[func.id]))
            for keyword in keywords:
                yield changed(keywords=[k for k in keywords if k is not keyword], args=args)
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str() as value) if not PROSE.search(value):
            yield ast.Constant("" if value else "mutated")
        case ast.Constant(value=bytes() as value):
            yield ast.Constant(b"" if value else b"mutated")
