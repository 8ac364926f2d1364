"""One-token mutations of a module's source: which ones there are, and the syntax tree with one of them made."""

import ast
from collections.abc import Callable, Iterator
from copy import copy
from typing import NamedTuple

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
"""Off by the boundary, and turned round."""
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
PAIRS = {
    "min": "max",
    "minimum": "maximum",
    "clamp_min": "clamp_max",
    "argmin": "argmax",
    "nanargmin": "nanargmax",
    "floor": "ceil",
    "sum": "mean",
    "any": "all",
    "sin": "cos",
    "cdf": "sf",
    "exp": "log",
    "sqrt": "square",
    "zeros": "ones",
    "zeros_like": "ones_like",
}
NAMES = PAIRS | {partner: name for name, partner in PAIRS.items()}
"""Functions and methods that take each other's place."""
BUILTINS = {"min", "max", "any", "all"}
"""Those that need no module or object before them."""
SYMMETRIC = {"min", "max", "minimum", "maximum", "zip", "logaddexp", "isinstance", "print"}
"""Calls whose first two arguments say the same in the other order, or only word a message."""
NUMBERS = {"float", "int", "Tensor", "Float", "Floats", "NDArray[np.float64]"}
"""Return types of which the negative is another value."""
NO_BEHAVIOUR = {"strict", "fmt", "dtype", "device"}
"""Keyword arguments that guard or place a value and do not change it."""


class Site(NamedTuple):
    """A place in a syntax tree and what one mutation puts there."""

    line: int
    before: str
    after: str
    mutate: Callable[[], None]


def sites(tree: ast.Module) -> Iterator[Site]:
    """Every one-token mutation of a module, in the order of its source."""
    yield from _below(tree, None)


def mutated(source: str, number: int) -> ast.Module:
    """The syntax tree of `source` with the mutation of this number, from 0 in the order of `sites`."""
    tree = ast.parse(source)
    for place, site in enumerate(sites(tree)):
        if place == number:
            site.mutate()
            return ast.fix_missing_locations(tree)
    raise IndexError(f"mutation {number}: the source has fewer")


def _below(node: ast.AST, returns: str | None) -> Iterator[Site]:
    if isinstance(node, ast.FunctionDef):
        returns = ast.unparse(node.returns) if node.returns else None
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        children = value if isinstance(value, list) else [value]
        for place, child in enumerate(children):
            if not isinstance(child, ast.AST) or _says_nothing(child):
                continue
            for variant in _variants(child, returns):
                yield Site(
                    child.lineno, ast.unparse(child), ast.unparse(variant), _setter(node, field, value, place, variant)
                )
            yield from _below(child, returns)


def _setter(parent: ast.AST, field: str, value: object, place: int, variant: ast.AST) -> Callable[[], None]:
    def put() -> None:
        if isinstance(value, list):
            value[place] = variant
        else:
            setattr(parent, field, variant)

    return put


def _says_nothing(node: ast.AST) -> bool:
    """Messages, checks of types and imports: nothing there decides or computes."""
    if isinstance(node, ast.keyword):
        return node.arg in NO_BEHAVIOUR
    if isinstance(node, ast.AnnAssign):
        return ast.unparse(node.annotation) == "TypeAlias"
    if isinstance(node, ast.Expr):
        call = node.value
        is_print = isinstance(call, ast.Call) and ast.unparse(call.func) == "print"
        return is_print or isinstance(call, ast.Constant)
    return isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom))


def _variants(node: ast.AST, returns: str | None) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                yield _with(node, ops=[*node.ops[:place], other(), *node.ops[place + 1 :]])
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.BinOp | ast.AugAssign):
        if type(node.op) in ARITHMETIC:
            yield _with(node, op=ARITHMETIC[type(node.op)]())
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
            yield node.left
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield from _returns(node, returns)
    if isinstance(node, ast.If | ast.IfExp | ast.While) and isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
        yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    if isinstance(node.value, bool):
        yield _with(node, value=not node.value)
    elif isinstance(node.value, int):
        yield _with(node, value=node.value + 1)
    elif isinstance(node.value, float):
        yield _with(node, value=2 * node.value or 1.0)


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in NAMES and (isinstance(node.func, ast.Attribute) or NAMES[name] in BUILTINS):
        changed = {"attr": NAMES[name]} if isinstance(node.func, ast.Attribute) else {"id": NAMES[name]}
        yield _with(node, func=_with(node.func, **changed))
    if len(node.args) > 1 and name not in SYMMETRIC and not any(isinstance(one, ast.Starred) for one in node.args):
        first, second, *more = node.args
        if ast.unparse(first) != ast.unparse(second):
            yield _with(node, args=[second, first, *more])


def _returns(node: ast.Return, returns: str | None) -> Iterator[ast.AST]:
    if returns == "bool":
        yield _with(node, value=ast.UnaryOp(ast.Not(), node.value))
    elif returns in NUMBERS and not isinstance(node.value, ast.UnaryOp):
        yield _with(node, value=ast.UnaryOp(ast.USub(), node.value))


def _with(node: ast.AST, **fields: object) -> ast.AST:
    variant = copy(node)
    for name, value in fields.items():
        setattr(variant, name, value)
    return variant
