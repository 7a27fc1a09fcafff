"""The values of Python expressions, as far as constants, paths and alternatives can be followed."""

from __future__ import annotations

import _ast as ast

from guard.shell.marks import UNKNOWN
from guard.shell.nodes import Limit

from . import python_calls
from .python_arguments import Namespace
from .python_values import Either, PathValue, Ref, Words, binary, each_of, either, listed, text_of

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .commands import Call
    from .scene import Scene, State

MAX_LOOP = 120


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes directly below a node."""
    out = []
    for name in node._fields:
        value = getattr(node, name, None)
        out += value if isinstance(value, list) else [value]
    return [each for each in out if isinstance(each, ast.AST)]


class Expressions:
    """What a walk over Python code needs to know of expressions; `PythonWalk` is it with statements and calls."""

    scene: Scene
    state: State
    names: dict[str, Any]
    argv: list[str]
    depth: int
    owner: str
    fields: dict[tuple[str, str], Any]
    call: Call

    def value(self, node: ast.AST) -> Any:
        """The value of an expression; UNKNOWN (a string) when it can't be known."""
        self.scene.step()
        self.depth += 1
        try:
            if self.depth > 60:
                raise Limit("Python code nested too deeply")
            method = getattr(self, "of_" + type(node).__name__, None)
            if method is not None:
                return method(node)
            for child in children(node):
                if isinstance(child, ast.expr):
                    self.value(child)
            return UNKNOWN
        finally:
            self.depth -= 1

    def of_Constant(self, node: ast.Constant) -> Any:
        return node.value

    def of_Name(self, node: ast.Name) -> Any:
        if node.id in self.names:
            return self.names[node.id]
        return Ref(node.id)

    def of_Attribute(self, node: ast.Attribute) -> Any:
        if isinstance(node.value, ast.Name) and node.value.id == "self" and (self.owner, node.attr) in self.fields:
            return self.fields[self.owner, node.attr]
        return each_of(lambda held: self.attribute(held, node.attr), [self.value(node.value)])

    def attribute(self, held: Any, name: str) -> Any:
        if isinstance(held, Ref):
            full = held + "." + name
            if full == "sys.argv":
                return Words(self.argv)
            if full == "os.sep":
                return "/"
            return Ref(full)
        if isinstance(held, PathValue):
            return held.attribute(name)
        if isinstance(held, Namespace):
            return held.get(name, UNKNOWN)
        return UNKNOWN

    def of_BinOp(self, node: ast.BinOp) -> Any:
        return each_of(lambda a, b: binary(a, node.op, b), [self.value(node.left), self.value(node.right)])

    def of_BoolOp(self, node: ast.BoolOp) -> Any:
        values = [self.value(each) for each in node.values]
        return values[0] if isinstance(node.op, ast.Or) and values[0] not in (UNKNOWN, None, "") else values[-1]

    def of_UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(node.op, ast.USub) and isinstance(value, int):
            return -value
        if isinstance(node.op, ast.Not) and isinstance(value, bool):
            return not value
        return UNKNOWN

    def of_Compare(self, node: ast.Compare) -> Any:
        left = self.value(node.left)
        rights = [self.value(each) for each in node.comparators]
        plain = (str, int)
        if len(rights) == 1 and type(left) in plain and type(rights[0]) in plain and UNKNOWN not in (left, rights[0]):
            if isinstance(node.ops[0], ast.Eq):
                return left == rights[0]
            if isinstance(node.ops[0], ast.NotEq):
                return left != rights[0]
            if type(left) is int and type(rights[0]) is int:
                kind = type(node.ops[0]).__name__
                if kind in ("Gt", "GtE", "Lt", "LtE"):
                    return (left > rights[0]) == (kind[0] == "G") if left != rights[0] else kind[-1] == "E"
        return UNKNOWN

    def of_JoinedStr(self, node: ast.JoinedStr) -> Any:
        return each_of(lambda *parts: "".join(map(text_of, parts)), [self.value(part) for part in node.values])

    def of_FormattedValue(self, node: ast.FormattedValue) -> Any:
        return each_of(text_of, [self.value(node.value)])

    def of_List(self, node: ast.List | ast.Tuple | ast.Set) -> Any:
        out: list[Any] = []
        for each in node.elts:
            if isinstance(each, ast.Starred):
                out += listed(self, self.value(each.value))
            else:
                out.append(self.value(each))
        return each_of(lambda *items: list(items), out) if any(isinstance(each, Either) for each in out) else out

    of_Tuple = of_List
    of_Set = of_List

    def of_Dict(self, node: ast.Dict) -> Any:
        out = {}
        for key, item in zip(node.keys, node.values):
            name = self.value(key) if key is not None else None
            value = self.value(item)
            if isinstance(name, str):
                out[name] = value
        python_calls.keywords_seen(self, out)
        return out

    def of_Subscript(self, node: ast.Subscript) -> Any:
        if isinstance(node.slice, ast.Slice):
            held = self.value(node.value)
            bounds = [None if bound is None else self.value(bound) for bound in (node.slice.lower, node.slice.upper)]
            if isinstance(held, list) and all(bound is None or type(bound) is int for bound in bounds):
                return type(held)(held[bounds[0] : bounds[1]])
            return held if isinstance(held, list) else UNKNOWN
        return each_of(self.item, [self.value(node.value), self.value(node.slice)])

    def item(self, held: Any, key: Any) -> Any:
        if isinstance(held, Ref) and held == "os.environ" and isinstance(key, str):
            values = self.state.get(key)
            return values[0] if values else UNKNOWN
        try:
            if isinstance(held, (list, tuple, dict)):
                return held[key]
        except (LookupError, TypeError):
            pass
        return UNKNOWN

    def of_IfExp(self, node: ast.IfExp) -> Any:
        test = self.value(node.test)
        if test is False:
            return self.value(node.orelse)
        if test is True:
            return self.value(node.body)
        return either([self.value(node.body), self.value(node.orelse)])

    def of_NamedExpr(self, node: ast.NamedExpr) -> Any:
        value = self.value(node.value)
        self.bind(node.target, value)
        return value

    def of_Lambda(self, node: ast.Lambda) -> Any:
        return node

    def of_Await(self, node: ast.Await) -> Any:
        return self.value(node.value)

    def of_Starred(self, node: ast.Starred) -> Any:
        return self.value(node.value)

    def of_ListComp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> Any:
        out: list[Any] = []
        self.generate(node.generators, 0, lambda: out.append(self.value(node.elt)))
        return out

    of_GeneratorExp = of_ListComp
    of_SetComp = of_ListComp

    def of_DictComp(self, node: ast.DictComp) -> Any:
        self.generate(node.generators, 0, lambda: self.value(node.value))
        return UNKNOWN

    def generate(self, generators: list[ast.comprehension], number: int, emit: Callable[[], object]) -> None:
        if number == len(generators):
            emit()
            return
        generator = generators[number]
        for value in listed(self, self.value(generator.iter))[:MAX_LOOP]:
            self.bind(generator.target, value)
            if all(self.value(test) is not False for test in generator.ifs):
                self.generate(generators, number + 1, emit)

    def bind(self, target: ast.AST, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.names[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            items = (
                value
                if isinstance(value, (list, tuple)) and len(value) == len(target.elts)
                else [UNKNOWN] * len(target.elts)
            )
            for inner, item in zip(target.elts, items):
                self.bind(inner, item)
        elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
            key = (self.owner, target.attr)
            self.fields[key] = either([self.fields[key], value]) if key in self.fields else value
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
            held = self.names.get(target.value.id)
            key = self.value(target.slice)
            if isinstance(held, dict) and isinstance(key, str):
                held[key] = value
                python_calls.keywords_seen(self, {key: value})
