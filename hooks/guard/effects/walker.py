"""Follows a script's control flow and hands every simple command to `commands`.

Conditions that can't be known are walked both ways, on copies of the state; loops over known words are really
iterated; a pipe carries the text that the stage before it is known to print.
"""

from __future__ import annotations

from guard.paths import inside, is_dir, normal
from guard.shell import expand, globs
from guard.shell.marks import STAR, UNKNOWN, plain
from guard.shell.nodes import VAR, Limit, Script, Simple
from guard.shell.reader import parse

from . import commands
from .scene import MAX_STEPS, Either, Scene, State

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from guard.shell.nodes import Compound, Pipeline, Redirect

MAX_NESTING = 24
MAX_ITERATIONS = 300
MAX_VALUES = 6  # of one variable, for each of which a command is walked
MAX_FORKS = 3  # walks within walks of what follows, for another folder or a second time around


class Walker:
    """One walk over one command line. Outputs are text, or None when not known; statuses True, False or None."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.nesting = 0
        self.forks = 0

    # -- entry ----------------------------------------------------------------------------------------------------

    def code(
        self, text: str, state: State, stdin: str | None = None, want: bool = False
    ) -> tuple[str | None, bool | None]:
        """Read and walk shell text (a command line, `bash -c`, a script file, eval)."""
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            raise Limit("scripts within scripts too deeply")
        try:
            return self.script(parse(text), state, stdin, want)
        finally:
            self.nesting -= 1

    def script(
        self, script: Script, state: State, stdin: str | None = None, want: bool = False
    ) -> tuple[str | None, bool | None]:
        """Walk pipelines in order; gives (output, status)."""
        out: list[str] | None = []
        status: bool | None = True
        items = script.items
        start = 0
        walked: list[tuple[str, str]] = []
        while start < len(items) and not state.stopped:
            end = start + 1
            while end < len(items) and items[end - 1].sep in ("&&", "||"):
                end += 1
            here = state.copy() if items[end - 1].sep == "&" else state
            text, status = self.chain(items[start:end], here, stdin, want)
            if want:
                out = None if text is None or out is None else [*out, text]
            start = end
            for place in [place for place in state.others if place not in walked]:
                walked.append(place)
                self.elsewhere(Script(items[start:]), state, place)
        return ("".join(out) if out is not None else None), status

    def elsewhere(self, script: Script, state: State, place: tuple[str, str]) -> None:
        """Walk what follows once more, from another folder in which it may be run."""
        if not script.items or self.forks >= MAX_FORKS:
            return
        other = state.copy()
        other.cwd, other.lost = place
        self.again(script, other, None)

    def again(self, script: Script, state: State, stdin: str | None) -> None:
        """Walk what was walked before, in another state: its effects count, but it starts no second training."""
        self.scene.step(MAX_STEPS // 100)
        works = len(self.scene.works)
        self.forks += 1
        self.script(script, state, stdin, False)
        self.forks -= 1
        del self.scene.works[works:]

    def chain(
        self, items: list[Pipeline], state: State, stdin: str | None, want: bool
    ) -> tuple[str | None, bool | None]:
        """Walk `a && b || c`. Where a status is not known both ways are followed, and their states merged at the end."""
        yes: State | None = state  # the state in which all so far has succeeded, None when that can't be
        no: State | None = None  # the one in which it has failed
        out: list[str] | None = []
        before = ""
        known = True
        for number, item in enumerate(items):
            self.scene.step()
            here = no if before == "||" else yes
            joint, before = before, item.sep
            if here is None or here.stopped:
                continue
            place, others = (here.cwd, here.lost), here.others
            text, status = self.pipeline(item, here, stdin, want)
            if want:
                out = None if text is None or out is None else [*out, text]
            for other in here.others if item.sep == "&&" and here.others is not others else ():
                self.elsewhere(Script(items[number + 1 :]), here, other)
            done = None if status is False else here
            failed = here if status is False else None
            last = number == len(items) - 1
            known = status is not None
            moved = place != (here.cwd, here.lost) and is_cd(item)
            if status is None and (not last or moved) and not (last and here.errexit):
                failed = here.copy()
                if moved:
                    failed.cwd, failed.lost = place  # cd into what is not there fails, and all goes on where we were
            if joint == "||":
                yes, no = self.either(yes, done), failed
            else:
                yes, no = done, self.either(no, failed)
        states = [each for each in (yes, no) if each is not None]
        going = [each for each in states if not each.stopped]
        self.merge(state, states)
        return "".join(out) if out is not None else None, going[0] is yes if known and len(going) == 1 else None

    def either(self, one: State | None, other: State | None) -> State | None:
        if one is None or other is None:
            return one or other
        self.merge(one, [one, other])
        return one

    def pipeline(self, item: Pipeline, state: State, stdin: str | None, want: bool) -> tuple[str | None, bool | None]:
        commands_ = item.commands
        if len(commands_) == 1:
            text, status = self.command(commands_[0], state, stdin, want)
        else:
            text, status = stdin, None
            for number, node in enumerate(commands_):
                last = number == len(commands_) - 1
                inner = state.copy()
                text, status = self.command(node, inner, text, want or not last)
                if last:  # zsh runs the last stage in the shell itself
                    state.vars.update({k: v for k, v in inner.vars.items() if k not in state.vars})
        if item.negated and status is not None:
            status = not status
        return text, status

    def command(
        self, node: Simple | Compound, state: State, stdin: str | None, want: bool
    ) -> tuple[str | None, bool | None]:
        if type(node) is Simple:
            return self.simple(node, state, stdin, want)
        if node.redirects:
            stdin = self.redirects(node.redirects, state, stdin, node.kind)
        return getattr(self, "walk_" + node.kind)(node, state, stdin, want)

    # -- compound commands ----------------------------------------------------------------------------------------

    def walk_group(self, node: Compound, state: State, stdin: str | None, want: bool) -> tuple[str | None, bool | None]:
        return self.script(node.parts[0], state, stdin, want)

    def walk_subshell(
        self, node: Compound, state: State, stdin: str | None, want: bool
    ) -> tuple[str | None, bool | None]:
        return self.script(node.parts[0], state.copy(), stdin, want)

    def walk_if(self, node: Compound, state: State, stdin: str | None, want: bool) -> tuple[str | None, bool | None]:
        parts = node.parts
        outs = []
        branches = []
        k = 0
        decided = False
        while k + 1 < len(parts):
            _, status = self.script(parts[k], state, stdin, False)
            if status is not False:
                branch = state if status is True and not branches else state.copy()
                outs.append(self.script(parts[k + 1], branch, stdin, want)[0])
                branches.append(branch)
                if status is True:
                    decided = True
                    break
            k += 2
        if not decided:
            branch = state.copy()
            if k < len(parts):
                outs.append(self.script(parts[k], branch, stdin, want)[0])
            branches.append(branch)
        self.merge(state, branches)
        return self.joined(outs, want), None

    def merge(self, state: State, branches: list[State]) -> None:
        """After a fork: a variable holds every value that some branch gave it."""
        if branches == [state]:
            return
        going = [branch for branch in branches if not branch.stopped]
        if not going:
            state.stopped = True
            skips = {branch.skip for branch in branches}
            state.skip = "continue" if "continue" in skips else max(skips, default="")
            return
        state.stopped, state.skip = False, ""
        for name in {name for branch in going for name in branch.vars}:
            given = [values for branch in going if (values := branch.get(name))]
            if all(values == given[0] for values in given):
                state.vars[name] = given[0] if given else []
            else:
                state.vars[name] = Either(dict.fromkeys(value for values in given for value in values))
        for branch in going:
            state.functions.update(branch.functions)
        places = [(branch.cwd, branch.lost) for branch in going]
        others = [*places, *state.others, *[place for branch in going for place in branch.others]]
        state.cwd, state.lost = places[0]
        state.others = [place for place in dict.fromkeys(others) if place != places[0]]

    def joined(self, outs: list[str | None], want: bool) -> str | None:
        return "".join(outs) if want and all(out is not None for out in outs) else None  # pyright: ignore[reportArgumentType, reportCallIssue]

    def walk_while(self, node: Compound, state: State, stdin: str | None, want: bool) -> tuple[str | None, bool | None]:
        condition, body = node.parts
        names = self.read_names(condition)
        if names is None:
            _, status = self.script(condition, state, stdin, False)
            if status is not None and (status is False) == (node.kind == "while") and condition.items:
                return "", True
            once = state if status is not None else state.copy()
            out, goes_on = self.body(body, once, want)
            if goes_on and self.forks < MAX_FORKS:  # what it counts or collects is not the same the next time
                more = once.copy()
                more.loops += 1
                self.again(body, more, None)
            self.merge(state, [state] if once is state else [state, once])
            return None if want and out else out, None
        if stdin is None or UNKNOWN in stdin:
            rows: list[str] = [UNKNOWN]
        else:
            rows = [row for row in stdin.replace("\0", "\n").split("\n") if row]
            rows = self.scene.bounded(rows, MAX_ITERATIONS, state.cwd)
        first = condition.items[0].commands[0]
        given = [word for name, _, word in first.assigns if name == "IFS"] if type(first) is Simple else []
        separators = self.expander(state).text(given[0]) if given else (state.get("IFS") or [" "])[0]
        outs = []
        before = state.copy() if rows == [UNKNOWN] else None
        for row in rows:
            values = expand.fields_of(row, separators, len(names)) if len(names) > 1 else [row.strip()]
            for number, name in enumerate(names):
                state.vars[name] = [UNKNOWN if row == UNKNOWN else values[number] if number < len(values) else ""]
            out, goes_on = self.body(body, state, want)
            outs.append(out)
            if not goes_on:
                break
        if before is not None:  # there may be no row at all
            self.merge(state, [state, before])
        return self.joined(outs, want), None

    def body(self, body: Script, state: State, want: bool, stdin: str | None = None) -> tuple[str | None, bool]:
        """Once through the body of a loop: (output, whether the loop goes on)."""
        state.loops += 1
        out, _ = self.script(body, state, stdin, want)
        state.loops -= 1
        skip, state.skip = state.skip, ""
        if skip:
            state.stopped = False
        return out, skip != "break" and not state.stopped

    walk_until = walk_while

    def read_names(self, condition: Script) -> list[str] | None:
        """The variables of `while read -r a b`, or None for any other loop."""
        for item in condition.items:
            for node in item.commands:
                if type(node) is Simple and node.words and node.words[0].literal() == "read":
                    words = [word.literal() or "" for word in node.words[1:]]
                    names = []
                    skip = False
                    for word in words:
                        if skip:
                            skip = False
                        elif word.startswith("-"):
                            skip = word[-1] in "dnNptui"
                        elif word.isidentifier():
                            names.append(word)
                    return names or ["REPLY"]
        return None

    def walk_for(self, node: Compound, state: State, stdin: str | None, want: bool) -> tuple[str | None, bool | None]:
        values = state.args[1:] if node.words is None else self.expander(state).fields(node.words)
        outs = []
        for value in self.scene.bounded(values, MAX_ITERATIONS, state.cwd):
            state.vars[node.name] = [value]
            out, goes_on = self.body(node.parts[0], state, want, stdin)
            outs.append(out)
            if not goes_on:
                break
        return self.joined(outs, want), None

    def walk_case(self, node: Compound, state: State, stdin: str | None, want: bool) -> tuple[str | None, bool | None]:
        expander = self.expander(state)
        subject = expander.text(node.words[0])  # pyright: ignore[reportOptionalSubscript]
        outs = []
        branches = []
        for patterns, body in zip(node.name, node.parts):
            encoded = [expander.encode(word) for word in patterns]
            fits = [globs.matches(subject, pattern) for pattern in encoded]
            if UNKNOWN in subject or any(fits):
                branch = state.copy()
                outs.append(self.script(body, branch, stdin, want)[0])
                branches.append(branch)
                if UNKNOWN not in subject or STAR in encoded:
                    break
        else:
            if UNKNOWN in subject:
                branches.append(state.copy())  # none may fit
        if branches:
            self.merge(state, branches)
        return self.joined(outs, want), None

    def walk_function(
        self, node: Compound, state: State, stdin: str | None, want: bool
    ) -> tuple[str | None, bool | None]:
        if node.name:
            state.functions[node.name] = node.parts[0]
        return "", True

    def walk_test(self, node: Compound, state: State, stdin: str | None, want: bool) -> tuple[str | None, bool | None]:
        words = self.expander(state).fields(node.words)  # pyright: ignore[reportArgumentType]
        return "", commands.test_status(words, self.scene, state)

    def walk_math(self, node: Compound, state: State, stdin: str | None, want: bool) -> tuple[str | None, bool | None]:
        return "", None

    # -- simple commands ------------------------------------------------------------------------------------------

    def expander(self, state: State) -> expand.Expander:
        return expand.Expander(
            state,
            lambda script: self.script(script, state.copy(), None, True)[0],
            lambda script, direction: self.process(script, direction, state),
            self.scene.origin,
            self.scene.moved,
        )

    def process(self, script: Script, direction: str, state: State) -> str:
        """`<( )` becomes a file with the known output; `>( )` is walked with nothing known on its input."""
        text, _ = self.script(script, state.copy(), None, direction == "<")
        path = "/dev/fd/walk" + str(len(self.scene.written))
        self.scene.written[path] = text
        return path

    def simple(self, node: Simple, state: State, stdin: str | None, want: bool) -> tuple[str | None, bool | None]:
        self.scene.step()
        name = self.undecided(node, state)
        if name:
            return self.each(name, node, state, stdin, want)
        expander = self.expander(state)
        env = {}
        for name, append, word in node.assigns:
            values = (
                self.elements(name, expander.fields(word.array), state)
                if word.array is not None
                else [expander.text(word)]
            )
            if append:
                old = state.get(name) or []
                values = old + values if word.array is not None else [(old[0] if old else "") + values[0]]
            env[name] = values
        argv = expander.fields(node.words)
        if not argv or node.words[0].literal() in commands.DECLARERS:
            state.vars.update(env)
            env = {}
        if node.redirects:
            stdin = self.redirects(node.redirects, state, stdin, " ".join(argv))
        writes = None
        for redirect in node.redirects:
            if redirect.op in (">", ">>", ">|", "&>", "&>>") and redirect.fd in ("", "1", "&"):
                writes = redirect
        if not argv:
            text: str | None = ""
            if writes is not None and stdin is not None:  # zsh: `< a > b` copies
                text = stdin
            result = (text, True)
        else:
            result = commands.Call(self, argv, state, stdin, want or writes is not None, env).dispatch()
        if writes is not None:
            self.content(writes, result[0], state)
            return "", result[1]
        return result

    def undecided(self, node: Simple, state: State) -> str:
        """A variable in the command of which it is not known which of several values it has; empty when there is none."""
        for word in [*node.words, *[word for _, _, word in node.assigns], *[each.target for each in node.redirects]]:
            for part in word.parts:
                if part[0] == VAR and type(state.vars.get(part[1])) is Either:
                    return part[1]
        return ""

    def each(
        self, name: str, node: Simple, state: State, stdin: str | None, want: bool
    ) -> tuple[str | None, bool | None]:
        """Walk a command once for each value that a variable may have."""
        branches = []
        outs = []
        statuses = []
        works = -1
        for value in state.vars[name][:MAX_VALUES]:
            branch = state.copy()
            branch.vars[name] = [value]
            out, status = self.simple(node, branch, stdin, want)
            branches.append(branch)
            outs.append(out)
            statuses.append(status)
            works = len(self.scene.works) if works < 0 else works
        del self.scene.works[works:]  # it is one command
        self.merge(state, branches)
        same = all(status is statuses[0] for status in statuses)
        return outs[0] if outs.count(outs[0]) == len(outs) else None, statuses[0] if same else None

    def elements(self, name: str, fields: list[str], state: State) -> list[str]:
        """The values of an array; `[key]=value` is also known by its key."""
        values = []
        for field in fields:
            key, equals, value = field.partition("]=")
            if equals and key[:1] == "[":
                state.vars[name + field[: len(key) + 1]] = [value]
                field = value
            values.append(field)
        return values

    def redirects(self, redirects: list[Redirect], state: State, stdin: str | None, by: str) -> str | None:
        """Record what redirections write; gives the new standard input."""
        expander = self.expander(state)
        for redirect in redirects:
            op = redirect.op
            if op in ("<<", "<<-"):
                if redirect.body is not None:
                    stdin = expander.text(redirect.body)
                continue
            if op == "<<<":
                stdin = expander.text(redirect.target) + "\n"
                continue
            for field in expander.fields([redirect.target]) or [""]:
                if op == "<":
                    stdin = self.scene.read(field, state)
                elif not field or field == "-" or (op in (">&", "<&") and field.isdigit()):
                    continue
                elif op in (">", ">|", "&>", ">&") and not field.startswith("/dev/"):
                    self.scene.touch("overwrite", field, state, by + " > " + plain(field)).follow = True
                elif op in (">>", "&>>") and not field.startswith("/dev/"):
                    self.scene.touch("append", field, state, by + " >> " + plain(field)).follow = True
        return stdin

    def content(self, redirect: Redirect, text: str | None, state: State) -> None:
        """Remember what a redirection wrote: the file may be run, or be data, later in the same command."""
        for field in self.expander(state).fields([redirect.target])[:1]:
            if UNKNOWN in field:
                return
            path = normal(field, state.cwd)
            append = redirect.op in (">>", "&>>")
            for touch in reversed(self.scene.touches):
                if touch.path == self.scene.place(field, state) and touch.op in ("overwrite", "append"):
                    touch.text = text
                    break
            if append:
                old = self.scene.read(path, state)
                text = None if text is None else (old or "") + text
            self.scene.written[path] = text


def is_cd(item: Pipeline) -> bool:
    node = item.commands[0]
    return type(node) is Simple and bool(node.words) and node.words[0].literal() in ("cd", "chdir", "pushd")


def change_folder(state: State, target: str, made: set[str]) -> bool | None:
    """cd; the status is None when the folder is not there now (something before may make it).

    A folder that can't be known is taken for the one where we are, and the known rest is believed where it is there.
    """
    state.others = []
    known = target.lstrip(UNKNOWN)
    if known != target:
        below = normal("./" + known, state.cwd)
        if known[:1] == "/" and below != state.cwd and UNKNOWN not in known and is_dir(below):
            state.cwd = below
        else:
            state.lost = target
        return True
    path = normal(target, state.cwd)
    there = UNKNOWN in path or is_dir(path) or any(inside(path, folder) for folder in made)
    lost = state.lost + "/" + target if state.lost and target[:1] != "/" and not there else ""
    state.cwd = path
    state.lost = lost
    return True if there else None
