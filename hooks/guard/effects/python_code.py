"""Python code, through its own `ast`: constants are followed, calls that touch files or processes are recorded.

Only what would run is walked: the body of a function counts when something calls it.
"""

from __future__ import annotations

import _ast as ast  # the node classes alone: the `ast` package would double the cost of a call

from guard.shell.marks import UNKNOWN
from guard.shell.nodes import Limit

from . import python_calls
from .python_arguments import Parser
from .python_expressions import MAX_LOOP, Expressions, children
from .python_values import Bound, Either, FileValue, PathValue, Ref, binary, each_of, either, listed, method_of_value

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .commands import Call


def descendants(node: ast.AST) -> list[ast.AST]:
    found = [node]
    for each in found:
        found += children(each)
    return found


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> bool:
    """`@click.command()`: the function takes its arguments from the command line."""
    for node in getattr(function, "decorator_list", []):
        node = node.func if isinstance(node, ast.Call) else node
        if (getattr(node, "attr", "") or getattr(node, "id", "")) == "command":
            return True
    return False


class PythonWalk(Expressions):
    """One piece of code with its names."""

    def __init__(self, call: Call, argv: list[str], script: str) -> None:
        self.call = call
        self.scene = call.scene
        self.state = call.state.copy()
        self.names: dict[str, Any] = {"__name__": "__main__", "__file__": script or UNKNOWN}
        self.methods: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
        self.owners: dict[ast.AST, str] = {}  # the class of a method
        self.owner = ""
        self.fields: dict[tuple[str, str], Any] = {}  # (class, name) -> what `self.name` is
        self.argv = argv
        self.printed: list[str] = []
        self.depth = 0

    def text(self, code: str) -> str | None:
        """Walk source text; gives what it is known to print."""
        try:
            tree = compile(code, "code", "exec", ast.PyCF_ONLY_AST)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            from . import other_code  # newer Python than ours, perhaps: calls with constant strings are read

            other_code.walk(self.call, code, self.argv[1:])
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
            old = self.names.get(node.target.id, UNKNOWN)
            self.names[node.target.id] = each_of(lambda a, b: binary(a, node.op, b), [old, self.value(node.value)])
        else:
            self.value(node.value)

    def do_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.names[node.name] = node

    do_AsyncFunctionDef = do_FunctionDef

    def do_ClassDef(self, node: ast.ClassDef) -> None:
        self.names[node.name] = Ref("class:" + node.name)
        for child in node.body:
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.methods[child.name] = self.methods[node.name + "." + child.name] = child
                self.owners[child] = node.name
            elif isinstance(child, (ast.Assign, ast.AnnAssign)) and child.value is not None:
                for target in child.targets if isinstance(child, ast.Assign) else [child.target]:
                    if isinstance(target, ast.Name):
                        self.fields[node.name, target.id] = self.value(child.value)

    def do_Return(self, node: ast.Return) -> bool:
        value = self.value(node.value) if node.value is not None else None
        self.names["\0return"] = either([self.names["\0return"], value]) if "\0return" in self.names else value
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
        return self.fork([node.body, node.orelse])

    def fork(self, bodies: list[list[ast.stmt]]) -> bool:
        """Walk blocks of which one is run: a name then holds what any of them gave it."""
        before = self.names
        after: list[dict[str, Any]] = []
        ended = True
        for body in bodies:
            self.names = dict(before)
            ended = self.block(body) and bool(body) and ended
            left = bool(body) and isinstance(body[-1], (ast.Return, ast.Raise))
            after.append(
                {"\0return": self.names["\0return"]}
                if left and "\0return" in self.names
                else {}
                if left
                else self.names
            )
        self.names = before
        for name in {name for names in after for name in names}:
            before[name] = either([names[name] for names in after if name in names])
        return ended

    def do_Match(self, node: Any) -> bool:
        """All cases that the subject may fit."""
        subject = self.value(node.subject)
        bodies = []
        for case in node.cases:
            pattern = case.pattern
            if type(pattern).__name__ == "MatchValue" and type(subject) in (str, int) and subject != UNKNOWN:
                value = self.value(pattern.value)
                if type(value) in (str, int) and value != subject:
                    continue
                if value == subject and case.guard is None:
                    return self.fork([*bodies, case.body]) if bodies else self.block(case.body)
            if getattr(pattern, "name", None):
                self.names[pattern.name] = subject
            bodies.append(case.body)
        return self.fork([*bodies, []])

    def do_For(self, node: ast.For | ast.AsyncFor) -> None:
        values = listed(self, self.value(node.iter))
        for value in values[:MAX_LOOP]:
            self.bind(node.target, value)
            self.block(node.body)
        self.block(node.orelse)

    do_AsyncFor = do_For

    def do_While(self, node: ast.While) -> None:
        if self.value(node.test) is not False:
            self.fork([node.body, []])

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
            self.fork([handler.body, []])
        self.block(node.orelse)
        self.block(node.finalbody)

    do_TryStar = do_Try

    def do_Expr(self, node: ast.Expr) -> None:
        self.value(node.value)

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
                if isinstance(held, Parser):
                    return held.method(function.attr, arguments, keywords, self.argv)
                return self.spread(
                    lambda held, *rest: self.method(held, function.attr, *rest), [held], arguments, keywords
                )
            called = Ref(held + "." + function.attr)
            if held == "self" and function.attr in self.methods:
                return self.invoke(self.methods[function.attr], [UNKNOWN, *arguments], keywords)
        else:
            called = self.value(function)
        return self.apply(called, arguments, keywords)

    def apply(self, called: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        """Call a value: a function of this code, a name of a library, or a function with arguments bound to it."""
        if isinstance(called, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            if not arguments and not keywords and is_command(called):
                arguments = [word for word in self.argv[1:] if word[:1] != "-"]
            return self.invoke(called, arguments, keywords)
        if isinstance(called, Either):
            return either([self.apply(one, arguments, keywords) for one in called.values])
        if isinstance(called, Bound):
            return self.apply(called.function, [*called.arguments, *arguments], {**called.keywords, **keywords})
        if isinstance(called, Ref):
            if called.startswith("class:"):
                method = self.methods.get(called[6:] + ".__init__")
                if method is not None:
                    self.invoke(method, [UNKNOWN, *arguments], keywords)
                return UNKNOWN
            return self.spread(lambda *rest: python_calls.library(self, str(called), *rest), [], arguments, keywords)
        return UNKNOWN

    def method(self, held: Any, name: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        if isinstance(held, Ref):  # one of several names
            return python_calls.library(self, held + "." + name, arguments, keywords)
        return method_of_value(self, held, name, arguments, keywords)

    def spread(
        self, function: Callable[..., Any], first: list[Any], arguments: list[Any], keywords: dict[str, Any]
    ) -> Any:
        """Call with every choice of the alternatives among the arguments."""
        n, m = len(first), len(first) + len(arguments)
        return each_of(
            lambda *values: function(*values[:n], list(values[n:m]), dict(zip(keywords, values[m:]))),
            [*first, *arguments, *keywords.values()],
        )

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
        saved, owner = dict(self.names), self.owner
        self.owner = self.owners.get(function, owner)
        specification = function.args
        parameters = [*getattr(specification, "posonlyargs", []), *specification.args]
        defaults = specification.defaults
        for parameter, default in zip(parameters[len(parameters) - len(defaults) :], defaults):
            self.names[parameter.arg] = self.value(default)
        for parameter in parameters[: len(parameters) - len(defaults)]:
            self.names[parameter.arg] = UNKNOWN
        for parameter, default in zip(specification.kwonlyargs, specification.kw_defaults):
            self.names[parameter.arg] = UNKNOWN if default is None else self.value(default)
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
            self.names, self.owner = saved, owner
            self.names.update(changed)
            self.depth -= 4
