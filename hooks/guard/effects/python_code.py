"""Python code, through its own `ast`: constants are followed, calls that touch files or processes are recorded.

Only what would run is walked: the body of a function counts when something calls it.
"""

from __future__ import annotations

import _ast as ast  # the node classes alone: the `ast` package would double the cost of a call

from guard.shell.marks import UNKNOWN
from guard.shell.nodes import Limit

from . import python_calls
from .python_values import Bound, FileValue, PathValue, Ref, binary, listed, method_of_value, text_of

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .commands import Call

MAX_LOOP = 120
MAX_DEPTH = 14


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes directly below a node."""
    out = []
    for name in node._fields:
        value = getattr(node, name, None)
        out += value if isinstance(value, list) else [value]
    return [each for each in out if isinstance(each, ast.AST)]


def descendants(node: ast.AST) -> list[ast.AST]:
    found = [node]
    for each in found:
        found += children(each)
    return found


class PythonWalk:
    """One piece of code with its names."""

    def __init__(self, call: Call, argv: list[str], script: str) -> None:
        self.call = call
        self.scene = call.scene
        self.state = call.state.copy()
        self.names: dict[str, Any] = {"__name__": "__main__", "__file__": script or UNKNOWN}
        self.methods: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
        self.argv = argv
        self.printed: list[str] = []
        self.depth = 0

    def text(self, code: str) -> str | None:
        """Walk source text; gives what it is known to print."""
        try:
            tree = compile(code, "code", "exec", ast.PyCF_ONLY_AST)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        try:
            self.block(tree.body)  # pyright: ignore[reportAttributeAccessIssue]
        except RecursionError:
            raise Limit("Python code nested too deeply") from None
        return "".join(self.printed) or None

    # -- statements -----------------------------------------------------------------------------------------------

    def block(self, body: list[ast.stmt]) -> bool:
        """Walk statements; True when a return, break or raise ends the block for certain."""
        for node in body:
            self.scene.step()
            kind = type(node).__name__
            method = getattr(self, "do_" + kind, None)
            if method is not None:
                if method(node):
                    return True
            else:
                for child in children(node):
                    if isinstance(child, ast.expr):
                        self.value(child)
        return False

    def do_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.name
            self.names[alias.asname or name.partition(".")[0]] = Ref(name if alias.asname else name.partition(".")[0])
            python_calls.imported(self, name)

    def do_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        python_calls.imported(self, module)
        for alias in node.names:
            self.names[alias.asname or alias.name] = Ref(module + "." + alias.name)

    def do_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self.bind(target, value)

    def do_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.bind(node.target, self.value(node.value))

    def do_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.names[node.target.id] = binary(
                self.names.get(node.target.id, UNKNOWN), node.op, self.value(node.value)
            )
        else:
            self.value(node.value)

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
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
            held = self.names.get(target.value.id)
            key = self.value(target.slice)
            if isinstance(held, dict) and isinstance(key, str):
                held[key] = value
                python_calls.keywords_seen(self, {key: value})

    def do_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.names[node.name] = node

    do_AsyncFunctionDef = do_FunctionDef

    def do_ClassDef(self, node: ast.ClassDef) -> None:
        self.names[node.name] = Ref("class:" + node.name)
        for child in node.body:
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.methods[child.name] = child

    def do_Return(self, node: ast.Return) -> bool:
        self.names["\0return"] = self.value(node.value) if node.value is not None else None
        return True

    def do_Raise(self, node: ast.Raise) -> bool:
        return True

    def do_Break(self, node: ast.Break | ast.Continue) -> bool:
        return True

    do_Continue = do_Break

    def do_If(self, node: ast.If) -> bool:
        test = self.value(node.test)
        if test is True:
            return self.block(node.body)
        if test is False or (test is None and isinstance(node.test, ast.Constant)):
            return self.block(node.orelse)
        first = self.block(node.body)
        second = self.block(node.orelse)
        return first and second and bool(node.orelse)

    def do_For(self, node: ast.For | ast.AsyncFor) -> None:
        values = listed(self, self.value(node.iter))
        for value in values[:MAX_LOOP]:
            self.bind(node.target, value)
            self.block(node.body)
        self.block(node.orelse)

    do_AsyncFor = do_For

    def do_While(self, node: ast.While) -> None:
        if self.value(node.test) is not False:
            self.block(node.body)

    def do_With(self, node: ast.With | ast.AsyncWith) -> bool:
        for item in node.items:
            value = self.value(item.context_expr)
            if item.optional_vars is not None:
                self.bind(item.optional_vars, value)
        return self.block(node.body)

    do_AsyncWith = do_With

    def do_Try(self, node: ast.Try) -> None:
        self.block(node.body)
        for handler in node.handlers:
            self.block(handler.body)
        self.block(node.orelse)
        self.block(node.finalbody)

    do_TryStar = do_Try

    def do_Expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    # -- expressions ----------------------------------------------------------------------------------------------

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
        held = self.value(node.value)
        if isinstance(held, Ref):
            full = held + "." + node.attr
            if full == "sys.argv":
                return list(self.argv)
            if full == "os.sep":
                return "/"
            return Ref(full)
        if isinstance(held, PathValue):
            return held.attribute(node.attr)
        return UNKNOWN

    def of_BinOp(self, node: ast.BinOp) -> Any:
        return binary(self.value(node.left), node.op, self.value(node.right))

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
        return UNKNOWN

    def of_JoinedStr(self, node: ast.JoinedStr) -> Any:
        return "".join(text_of(self.value(part)) for part in node.values)

    def of_FormattedValue(self, node: ast.FormattedValue) -> Any:
        return text_of(self.value(node.value))

    def of_List(self, node: ast.List | ast.Tuple | ast.Set) -> Any:
        out: list[Any] = []
        for each in node.elts:
            if isinstance(each, ast.Starred):
                out += listed(self, self.value(each.value))
            else:
                out.append(self.value(each))
        return out

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
        held = self.value(node.value)
        key = self.value(node.slice)
        if isinstance(held, Ref) and held == "os.environ" and isinstance(key, str):
            values = self.state.get(key)
            return values[0] if values else UNKNOWN
        try:
            if isinstance(held, (list, tuple, dict)) and not isinstance(node.slice, ast.Slice):
                return held[key]
        except (LookupError, TypeError):
            pass
        return held if isinstance(held, list) and isinstance(node.slice, ast.Slice) else UNKNOWN

    def of_IfExp(self, node: ast.IfExp) -> Any:
        test = self.value(node.test)
        if test is False:
            return self.value(node.orelse)
        first = self.value(node.body)
        if test is not True:
            self.value(node.orelse)  # for its effects
        return first

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

    # -- calls ----------------------------------------------------------------------------------------------------

    def of_Call(self, node: ast.Call) -> Any:
        arguments: list[Any] = []
        for each in node.args:
            value = self.value(each)
            arguments += listed(self, value) if isinstance(each, ast.Starred) else [value]
        keywords = {each.arg: self.value(each.value) for each in node.keywords if each.arg}
        for each in node.keywords:
            if each.arg is None:
                extra = self.value(each.value)
                keywords.update(extra if isinstance(extra, dict) else {})
        python_calls.keywords_seen(self, keywords)
        function = node.func
        if isinstance(function, ast.Attribute):
            held = self.value(function.value)
            if not isinstance(held, Ref):
                if function.attr in self.methods and not isinstance(held, (PathValue, FileValue, list, dict)):
                    return self.invoke(self.methods[function.attr], [UNKNOWN, *arguments], keywords)
                return method_of_value(self, held, function.attr, arguments, keywords)
            called = Ref(held + "." + function.attr)
            if held == "self" and function.attr in self.methods:
                return self.invoke(self.methods[function.attr], [UNKNOWN, *arguments], keywords)
        else:
            called = self.value(function)
        return self.apply(called, arguments, keywords)

    def apply(self, called: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        """Call a value: a function of this code, a name of a library, or a function with arguments bound to it."""
        if isinstance(called, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return self.invoke(called, arguments, keywords)
        if isinstance(called, Bound):
            return self.apply(called.function, [*called.arguments, *arguments], {**called.keywords, **keywords})
        if isinstance(called, Ref):
            if called.startswith("class:"):
                if "__init__" in self.methods:
                    self.invoke(self.methods["__init__"], [UNKNOWN, *arguments], keywords)
                return UNKNOWN
            return python_calls.library(self, str(called), arguments, keywords)
        return UNKNOWN

    def invoke(
        self,
        function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda,
        arguments: list[Any],
        keywords: dict[str, Any],
    ) -> Any:
        """Walk the body of a function with its arguments bound."""
        self.depth += 4
        if self.depth > 56:
            self.depth -= 4
            return UNKNOWN
        saved = dict(self.names)
        specification = function.args
        parameters = [*getattr(specification, "posonlyargs", []), *specification.args]
        defaults = specification.defaults
        for parameter, default in zip(parameters[len(parameters) - len(defaults) :], defaults):
            self.names[parameter.arg] = self.value(default)
        for parameter in parameters[: len(parameters) - len(defaults)]:
            self.names[parameter.arg] = UNKNOWN
        for parameter, argument in zip(parameters, arguments):
            self.names[parameter.arg] = argument
        if specification.vararg is not None:
            self.names[specification.vararg.arg] = arguments[len(parameters) :]
        self.names.update(keywords)
        self.names.pop("\0return", None)
        try:
            if isinstance(function, ast.Lambda):
                return self.value(function.body)
            self.block(function.body)
            return self.names.get("\0return", UNKNOWN)
        finally:
            changed = {
                name: self.names[name]
                for node in descendants(function)
                if isinstance(node, ast.Global)
                for name in node.names
                if name in self.names
            }
            self.names = saved
            self.names.update(changed)
            self.depth -= 4
