"""Changes a module's syntax tree in one place: which mutants there are, the tree of one, and which functions run.

Changed are operators, constants, conditions, keyword arguments, calls that are statements, results, and min for max.
Left alone are docstrings, annotations, decorators, imports, what is raised, f-strings, and keywords without influence
on results (NO_RESULT).
"""

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

NO_RESULT = {"name", "compiler_params", "pipeline_mode", "dimension_semantics", "vmem_limit_bytes", "static_argnames"}
OPERATORS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
OPPOSITES = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)  # whose change negates the condition already
NAMES = {one: other for pair in ("min max", "any all", "zeros ones", "argmin argmax", "floor ceil")
         for one, other in (pair.split(), pair.split()[::-1])}  # fmt: skip
LEFT_ALONE = (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)
FIELDS_LEFT_ALONE = ("annotation", "returns", "decorator_list", "type_params", "bases")


class Mutant(NamedTuple):
    """One change. All but `number` tell it from the others, wherever its line moves."""

    file: str  # from the root of the project
    function: str  # qualified name, "" outside of functions
    line: str  # its text, without indentation
    change: str
    nth: int  # of those that are the same in all of that
    number: int  # of the line


def mutants(source: str, file: str) -> list[Mutant]:
    """The mutants of a module, in order."""
    lines, seen = source.splitlines(), Counter()
    found = []
    for function, node, change, _ in _sites(ast.parse(source)):
        key = (file, function, lines[node.lineno - 1].strip(), change)
        found.append(Mutant(*key, seen[key], node.lineno))
        seen[key] += 1
    return found


def mutated(source: str, index: int) -> ast.Module:
    """The tree of a module with its mutant of this index."""
    tree = ast.parse(source)
    for place, (_, _, _, apply) in enumerate(_sites(tree)):
        if place == index:
            apply()
            return ast.fix_missing_locations(tree)
    raise ValueError(f"there is no mutant {index}")


def recording(source: str, file: str, record: str) -> ast.Module:
    """The tree of a module whose functions first call `record` (a builtin) with the file and the name in Mutant."""
    tree = ast.parse(source)
    _record(tree, "", f"{record}({file!r}, {{!r}})")
    return ast.fix_missing_locations(tree)


def _record(node: ast.AST, function: str, call: str) -> None:
    for child in ast.iter_child_nodes(node):
        inner = _inner(child, function)
        _record(child, inner, call)
        if isinstance(child, ast.FunctionDef):
            place = 1 if _is_docstring(child.body[0]) else 0
            child.body[place:place] = ast.parse(call.format(inner)).body


def _inner(node: ast.AST, function: str) -> str:
    """The name of what stands in a node of this function."""
    return f"{function}.{node.name}".lstrip(".") if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else function


Site = tuple[str, Any, str, Callable[[], None]]  # function, node with a line, change, what makes it


def _sites(node: ast.AST, function: str = "") -> Iterator[Site]:
    for field, value in ast.iter_fields(node):
        if field in FIELDS_LEFT_ALONE:
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or isinstance(child, LEFT_ALONE) or _is_docstring(child):
                continue

            def put(new: Any, field: str = field, index: int = index, value: Any = value) -> None:
                if isinstance(value, list):
                    value[index] = new
                else:
                    setattr(node, field, new)

            inner = _inner(child, function)
            if isinstance(child, ast.expr):
                condition = field == "test" and not isinstance(node, ast.While)
                yield from ((inner, child, *one) for one in _of_expression(child, put, condition))
            elif isinstance(child, ast.stmt):
                yield from ((inner, child, *one) for one in _of_statement(child, put))
            if not (isinstance(child, ast.keyword) and child.arg in NO_RESULT):
                yield from _sites(child, inner)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


Change = tuple[str, Callable[[], None]]


def _of_expression(node: ast.expr, put: Callable[[Any], None], condition: bool) -> Iterator[Change]:
    if condition and not _negated_otherwise(node):
        yield "condition negated", lambda: put(ast.UnaryOp(ast.Not(), node))
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            yield _operator(operator, lambda new, index=index: node.ops.__setitem__(index, new))
    elif isinstance(node, (ast.BinOp, ast.BoolOp)):
        if type(node.op) in OPERATORS:
            yield _operator(node.op, lambda new: setattr(node, "op", new))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield f"without {_text(node.op)}", lambda: put(node.operand)
    elif isinstance(node, ast.Constant):
        other = _other(node.value)
        if other is not None:
            yield f"{node.value!r} → {other!r}", lambda: put(ast.Constant(other))
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield f"{node.id} → {NAMES[node.id]}", lambda: setattr(node, "id", NAMES[node.id])
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield f"{node.attr} → {NAMES[node.attr]}", lambda: setattr(node, "attr", NAMES[node.attr])
    elif isinstance(node, ast.Call):
        for index, keyword in enumerate(node.keywords):
            if keyword.arg is not None and keyword.arg not in NO_RESULT:
                yield f"without {keyword.arg}=", lambda index=index: node.keywords.__delitem__(index)


def _of_statement(node: ast.stmt, put: Callable[[Any], None]) -> Iterator[Change]:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "statement left out", lambda: put(ast.Pass())
    elif isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        yield _operator(node.op, lambda new: setattr(node, "op", new))
    elif isinstance(node, ast.Return) and not (node.value is None or isinstance(node.value, ast.Constant)):
        yield "result → None", lambda: setattr(node, "value", ast.Constant(None))


def _operator(operator: ast.AST, put: Callable[[Any], None]) -> Change:
    new = OPERATORS[type(operator)]()
    return f"{_text(operator)} → {_text(new)}", lambda: put(new)


def _negated_otherwise(node: ast.expr) -> bool:
    """Whether another mutant is the negation of this condition."""
    if isinstance(node, ast.Compare):
        return len(node.ops) == 1 and isinstance(node.ops[0], OPPOSITES)
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _other(value: Any) -> Any:
    """Another constant; None: this one stays."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 2 * value or 1.0
    return "" if isinstance(value, str) and value else None


def _text(operator: ast.AST) -> str:
    """An operator as it is written."""
    left, right = ast.Name("a"), ast.Name("b")
    if isinstance(operator, ast.cmpop):
        return ast.unparse(ast.Compare(left, [operator], [right]))[2:-2]
    if isinstance(operator, ast.boolop):
        return ast.unparse(ast.BoolOp(operator, [left, right]))[2:-2]
    if isinstance(operator, ast.unaryop):
        return ast.unparse(ast.UnaryOp(operator, right))[:-1].strip()
    return ast.unparse(ast.BinOp(left, operator, right))[2:-2]  # pyright: ignore[reportArgumentType]
