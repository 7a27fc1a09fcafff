"""Python code, through its own `ast`: constants are followed, calls that touch files or processes are recorded.

Only what would run is walked: the body of a function counts when something calls it.
"""

from __future__ import annotations

import _ast as ast  # the node classes alone: the `ast` package would double the cost of a call

from guard.shell.marks import UNKNOWN
from guard.shell.nodes import Limit

from . import python_calls
from .python_values import Bound, FileValue, PathValue, Ref, binary, listed, method_of_value, text_of

MAX_LOOP = 120
MAX_DEPTH = 14


def children(node) -> list:
    """The nodes directly below a node."""
    out = []
    for name in node._fields:
        value = getattr(node, name, None)
        out += value if isinstance(value, list) else [value]
    return [each for each in out if isinstance(each, ast.AST)]


def descendants(node) -> list:
    found = [node]
    for each in found:
        found += children(each)
    return found


class PythonWalk:
    """One piece of code with its names."""

    def __init__(self, call, argv: list[str], script: str) -> None:
        self.call = call
        self.scene = call.scene
        self.state = call.state.copy()
        self.names: dict = {"__name__": "__main__", "__file__": script or UNKNOWN}
        self.methods: dict = {}
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
            self.block(tree.body)
        except RecursionError:
            raise Limit("Python code nested too deeply") from None
        return "".join(self.printed) or None

    # -- statements -----------------------------------------------------------------------------------------------

    def block(self, body: list) -> bool:
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

    def do_Import(self, node) -> None:
        for alias in node.names:
            name = alias.name
            self.names[alias.asname or name.partition(".")[0]] = Ref(name if alias.asname else name.partition(".")[0])
            python_calls.imported(self, name)

    def do_ImportFrom(self, node) -> None:
        module = node.module or ""
        python_calls.imported(self, module)
        for alias in node.names:
            self.names[alias.asname or alias.name] = Ref(module + "." + alias.name)

    def do_Assign(self, node) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self.bind(target, value)

    def do_AnnAssign(self, node) -> None:
        if node.value is not None:
            self.bind(node.target, self.value(node.value))

    def do_AugAssign(self, node) -> None:
        if isinstance(node.target, ast.Name):
            self.names[node.target.id] = binary(
                self.names.get(node.target.id, UNKNOWN), node.op, self.value(node.value)
            )
        else:
            self.value(node.value)

    def bind(self, target, value) -> None:
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

    def do_FunctionDef(self, node) -> None:
        self.names[node.name] = node

    do_AsyncFunctionDef = do_FunctionDef

    def do_ClassDef(self, node) -> None:
        self.names[node.name] = Ref("class:" + node.name)
        for child in node.body:
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.methods[child.name] = child

    def do_Return(self, node) -> bool:
        self.names["\0return"] = self.value(node.value) if node.value is not None else None
        return True

    def do_Raise(self, node) -> bool:
        return True

    def do_Break(self, node) -> bool:
        return True

    do_Continue = do_Break

    def do_If(self, node) -> bool:
        test = self.value(node.test)
        if test is True:
            return self.block(node.body)
        if test is False or (test is None and isinstance(node.test, ast.Constant)):
            return self.block(node.orelse)
        first = self.block(node.body)
        second = self.block(node.orelse)
        return first and second and bool(node.orelse)

    def do_For(self, node) -> None:
        values = listed(self, self.value(node.iter))
        for value in values[:MAX_LOOP]:
            self.bind(node.target, value)
            self.block(node.body)
        self.block(node.orelse)

    do_AsyncFor = do_For

    def do_While(self, node) -> None:
        if self.value(node.test) is not False:
            self.block(node.body)

    def do_With(self, node) -> bool:
        for item in node.items:
            value = self.value(item.context_expr)
            if item.optional_vars is not None:
                self.bind(item.optional_vars, value)
        return self.block(node.body)

    do_AsyncWith = do_With

    def do_Try(self, node) -> None:
        self.block(node.body)
        for handler in node.handlers:
            self.block(handler.body)
        self.block(node.orelse)
        self.block(node.finalbody)

    do_TryStar = do_Try

    def do_Expr(self, node) -> None:
        self.value(node.value)

    # -- expressions ----------------------------------------------------------------------------------------------

    def value(self, node):
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

    def of_Constant(self, node):
        return node.value

    def of_Name(self, node):
        if node.id in self.names:
            return self.names[node.id]
        return Ref(node.id)

    def of_Attribute(self, node):
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

    def of_BinOp(self, node):
        return binary(self.value(node.left), node.op, self.value(node.right))

    def of_BoolOp(self, node):
        values = [self.value(each) for each in node.values]
        return values[0] if isinstance(node.op, ast.Or) and values[0] not in (UNKNOWN, None, "") else values[-1]

    def of_UnaryOp(self, node):
        value = self.value(node.operand)
        if isinstance(node.op, ast.USub) and isinstance(value, int):
            return -value
        if isinstance(node.op, ast.Not) and isinstance(value, bool):
            return not value
        return UNKNOWN

    def of_Compare(self, node):
        left = self.value(node.left)
        rights = [self.value(each) for each in node.comparators]
        plain = (str, int)
        if len(rights) == 1 and type(left) in plain and type(rights[0]) in plain and UNKNOWN not in (left, rights[0]):
            if isinstance(node.ops[0], ast.Eq):
                return left == rights[0]
            if isinstance(node.ops[0], ast.NotEq):
                return left != rights[0]
        return UNKNOWN

    def of_JoinedStr(self, node):
        return "".join(text_of(self.value(part)) for part in node.values)

    def of_FormattedValue(self, node):
        return text_of(self.value(node.value))

    def of_List(self, node):
        out: list = []
        for each in node.elts:
            if isinstance(each, ast.Starred):
                out += listed(self, self.value(each.value))
            else:
                out.append(self.value(each))
        return out

    of_Tuple = of_List
    of_Set = of_List

    def of_Dict(self, node):
        out = {}
        for key, item in zip(node.keys, node.values):
            name = self.value(key) if key is not None else None
            value = self.value(item)
            if isinstance(name, str):
                out[name] = value
        python_calls.keywords_seen(self, out)
        return out

    def of_Subscript(self, node):
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

    def of_IfExp(self, node):
        test = self.value(node.test)
        if test is False:
            return self.value(node.orelse)
        first = self.value(node.body)
        if test is not True:
            self.value(node.orelse)  # for its effects
        return first

    def of_NamedExpr(self, node):
        value = self.value(node.value)
        self.bind(node.target, value)
        return value

    def of_Lambda(self, node):
        return node

    def of_Await(self, node):
        return self.value(node.value)

    def of_Starred(self, node):
        return self.value(node.value)

    def of_ListComp(self, node):
        out: list = []
        self.generate(node.generators, 0, lambda: out.append(self.value(node.elt)))
        return out

    of_GeneratorExp = of_ListComp
    of_SetComp = of_ListComp

    def of_DictComp(self, node):
        self.generate(node.generators, 0, lambda: self.value(node.value))
        return UNKNOWN

    def generate(self, generators: list, number: int, emit) -> None:
        if number == len(generators):
            emit()
            return
        generator = generators[number]
        for value in listed(self, self.value(generator.iter))[:MAX_LOOP]:
            self.bind(generator.target, value)
            if all(self.value(test) is not False for test in generator.ifs):
                self.generate(generators, number + 1, emit)

    # -- calls ----------------------------------------------------------------------------------------------------

    def of_Call(self, node):
        arguments: list = []
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

    def apply(self, called, arguments: list, keywords: dict):
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

    def invoke(self, function, arguments: list, keywords: dict):
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
