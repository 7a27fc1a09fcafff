"""One simple command: which family knows it, and what happens when none does."""

from __future__ import annotations

from guard import paths
from guard.shell.marks import UNKNOWN
from guard.shell.nodes import Limit

from .scene import Kill, Run, State, Touch

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from guard.shell.nodes import Script

    from .scene import Scene
    from .walker import Walker

MAX_WRAPPERS = 40
DECLARERS = frozenset(("declare", "local", "export", "typeset", "readonly"))

# family module -> the programs it knows
FAMILIES = {
    "builtins": "cd pushd popd chdir set unset shift read eval source . exit return exec alias unalias true false : "
    "test [ declare local export typeset readonly printf echo trap builtin command hash type which let mapfile readarray "
    "getopts wait jobs fg bg disown break continue print zmodload setopt unsetopt autoload",
    "wrappers": "sudo doas env nohup timeout gtimeout nice ionice renice time stdbuf setsid caffeinate taskpolicy chrt "
    "busybox toybox uv uvx poetry conda mamba micromamba pipx pixi rye hatch pdm pipenv mise asdf "
    "direnv arch script unbuffer watch entr flock strace ltrace gdb lldb dtruss xcrun npx bunx pnpm yarn npm "
    "accelerate torchrun mlx.launch su runuser noglob nocorrect - then ssh at batch screen tmux expect chronic ts "
    "rosetta sandbox-exec systemd-run unshare fakeroot faketime proot",
    "xargs": "xargs gxargs parallel",
    "shells": "sh bash zsh dash ksh ash mksh fish rbash csh tcsh osascript make gmake just task",
    "files": "rm rmdir unlink srm grm trash rimraf del-cli wipe shred gshred mv gmv cp gcp ln install ginstall rename "
    "truncate gtruncate dd tee sponge touch mkdir ditto scp gio fallocate mktemp trash-put rip chmod chown chflags xattr",
    "transfers": "rsync tar gtar bsdtar unzip 7z 7za 7zz gunzip gzip bzip2 bunzip2 xz unxz zstd unzstd zip rclone cpio pax curl "
    "wget aria2c lz4 pigz unar openssl gpg",
    "editors": "sed gsed perl awk gawk mawk sort gsort shuf ed ex vi vim nvim emacs patch jq yq split uniq iconv xxd "
    "ruby node nodejs bun deno php lua Rscript dos2unix sqlite3 duckdb",
    "search": "find gfind fd fdfind",
    "git": "git gh hub jj",
    "pythons": "python python3 python2 ipython pypy pypy3 pythonw",
    "processes": "kill pkill killall skill lsof fuser pgrep launchctl pidof ps",
    "containers": "docker podman nerdctl container docker-compose podman-compose devcontainer kubectl oc orb orbctl "
    "colima lima limactl multipass vagrant apptainer singularity distrobox toolbox toolbx tart finch lxc incus wsl "
    "nsenter chroot systemd-nspawn minikube buildah act crictl ctr utm utmctl prlctl machinectl k3s helm udocker wsl.exe",
    "mlx": "mlx_lm mlx-lm mlx_vlm mlx_whisper mlx-training hf huggingface-cli",
    "output": "cat base64 gbase64 base32 rev tr head tail pwd basename dirname realpath readlink ls seq grep egrep rg nl cut tac "
    "hostname uname whoami date wc gcat zcat column paste strings",
}
_FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names.split()}


def family_of(name: str) -> str:
    """The module that knows a program; versions (`python3.12`, `gcc-13`) are seen through."""
    family = _FAMILY_OF.get(name)
    if family is None and name[:6] == "python" and name[6:].replace(".", "").isdigit():
        return "pythons"
    if (family is None and name[:7] in ("mlx_lm.", "mlx_vlm")) or name[:4] in ("mlx_", "mlx-"):
        return "mlx"
    if family is None and not name.islower() and name.lower() in _FAMILY_OF:  # /BIN/RM on a Mac's disk
        return _FAMILY_OF[name.lower()]
    return family or ""


class Call:
    """A simple command about to start, as the families see it."""

    __slots__ = ("_line", "argv", "env", "guard", "scene", "state", "stdin", "walker", "want")

    def __init__(
        self,
        walker: Walker,
        argv: list[str],
        state: State,
        stdin: str | None,
        want: bool,
        env: dict[str, list[str]] | None = None,
    ) -> None:
        self.walker = walker
        self.scene = walker.scene
        self.argv = argv
        self.state = state
        self.stdin = stdin
        self.want = want
        self.env = env or {}
        self.guard = 0
        self._line: str | None = None

    @property
    def line(self) -> str:
        """The command as messages show it; joined once, since thousands of paths may share it."""
        if self._line is None:
            self._line = " ".join(self.argv[:40])[:400]
        return self._line

    @property
    def name(self) -> str:
        return paths.base(self.argv[0]) or self.argv[0]

    # -- what families say ----------------------------------------------------------------------------------------

    def touch(self, op: str, path: str) -> Touch:
        """This command does `op` to a path; programs refuse the empty one."""
        if not path:
            return Touch(op, path, self.line, self.state.cwd)
        return self.scene.touch(op, path, self.state, self.line)

    def kill(self, how: str, target: str, signal: str) -> None:
        self.scene.kills.append(Kill(how, target, signal, " ".join(self.argv)))

    def run(
        self, argv: list[str], state: State | None = None, stdin: str | None = None
    ) -> tuple[str | None, bool | None]:
        """Another command started by this one."""
        if not argv:
            return "", None
        call = Call(self.walker, argv, state or self.state, self.stdin if stdin is None else stdin, self.want, self.env)
        call.guard = self.guard + 1
        if call.guard > MAX_WRAPPERS:
            raise Limit("wrappers nested too deeply")
        return call.dispatch()

    def shell(
        self, text: str | None, state: State | None = None, stdin: str | None = None
    ) -> tuple[str | None, bool | None]:
        """Shell text run by this command."""
        if not text or text == UNKNOWN:
            return None, None
        return self.walker.code(text, state or self.state, stdin, self.want)

    # -- dispatch -------------------------------------------------------------------------------------------------

    def dispatch(self) -> tuple[str | None, bool | None]:
        """Find the family and let it say what happens; gives (output, status)."""
        self.scene.step()
        argv, state = self.argv, self.state
        first = argv[0]
        if first in state.aliases and self.guard < 8:
            self.guard += 1
            return self.aliased(state.aliases[first])
        if first in state.functions and self.guard < 20:
            return self.function(state.functions[first])
        if first[:1] == "=" and first[1:].isalnum():  # zsh: =rm is the path of rm
            first = argv[0] = first[1:]
        name = self.name
        family = family_of(name)
        if self.env and family != "builtins":
            self.state = self.bound()
        self.scene.runs.append(Run(argv, self.bound()))
        if family:
            module = __import__(__package__ + "." + family, globals(), locals(), ("handle",))  # pyright: ignore[reportOptionalOperand]
            result = module.handle(self)
            return (None, None) if result is None else result
        if UNKNOWN in first:
            self.unknown_program()
            return None, None
        return self.program_file(first)

    def bound(self) -> State:
        """The state with this command's own assignments, which are its environment."""
        if not self.env:
            return self.state
        state = self.state.copy()
        state.vars.update(self.env)
        return state

    def aliased(self, text: str) -> tuple[str | None, bool | None]:
        rest = " ".join(quote(word) for word in self.argv[1:])
        aliases, self.state.aliases = self.state.aliases, {}
        try:
            return self.shell(text + " " + rest, stdin=self.stdin)
        finally:
            self.state.aliases = aliases

    def function(self, body: Script) -> tuple[str | None, bool | None]:
        self.walker.nesting += 1
        old = self.state.args
        self.state.args = list(self.argv)
        name = self.argv[0]
        saved = self.state.functions.pop(name)
        try:
            if self.walker.nesting > 24:
                return None, None
            result = self.walker.script(body, self.state, self.stdin, self.want)
            self.state.stopped = False
            self.state.skip = ""
            return result
        finally:
            self.state.functions[name] = saved
            self.state.args = old
            self.walker.nesting -= 1

    def unknown_program(self) -> None:
        """A program whose name we can't know, with the flags of a recursive delete: read it as one."""
        flags = [word for word in self.argv[1:] if word[:1] == "-"]
        if any(flag in ("-rf", "-fr", "-Rf", "-r", "-R") for flag in flags):
            for word in self.argv[1:]:
                if word[:1] != "-" and not word.startswith(UNKNOWN):
                    self.touch("delete", word).tree = True

    def program_file(self, first: str) -> tuple[str | None, bool | None]:
        """A script of the project named as the command: read it as what its first line says."""
        if "/" not in first and first not in self.scene.written:
            return None, None
        text = self.scene.read(first, self.state)
        if text is None:
            return None, None
        line = text[:200].split("\n", 1)[0]
        if "python" in line or first.endswith(".py"):
            return self.run(["python3", *self.argv])
        for language in ("node", "perl", "ruby"):
            if line.startswith("#!") and language in line:
                return self.run([language, *self.argv])
        if line.startswith("#!") and not any(shell in line for shell in ("sh", "env -S")):
            return None, None
        return self.run(["bash", *self.argv])


def quote(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def options(
    argv: list[str], short_values: str = "", long_values: tuple[str, ...] = ()
) -> tuple[set[str], dict[str, str], list[str]]:
    """Split arguments as getopt does: flags (short letters and --long names), option values, operands."""
    flags: set[str] = set()
    values: dict[str, str] = {}
    operands: list[str] = []
    k = 1
    while k < len(argv):
        word = argv[k]
        k += 1
        if word == "--":
            operands += argv[k:]
            break
        if word[:2] == "--":
            name, equals, value = word[2:].partition("=")
            flags.add(name)
            if equals:
                values[name] = value
            elif name in long_values and k < len(argv):
                values[name] = argv[k]
                k += 1
        elif word[:1] == "-" and len(word) > 1:
            for number, letter in enumerate(word[1:], 2):
                flags.add(letter)
                if letter in short_values:
                    if word[number:]:
                        values[letter] = word[number:]
                    elif k < len(argv):
                        values[letter] = argv[k]
                        k += 1
                    break
        else:
            operands.append(word)
    return flags, values, operands


def has_long(flags: set[str], name: str, shortest: int = 3) -> bool:
    """Whether a GNU long option is given, in full or shortened."""
    return any(len(flag) >= shortest and name.startswith(flag) for flag in flags)


def there(path: str, scene: Scene, state: State) -> bool:
    """Whether a path is on the disk for certain, when the command gets there: nothing before it touched the path.

    That something is missing is never certain, since a program that isn't modelled may make it.
    """
    place = scene.origin(paths.normal(path, state.cwd))
    if not path or UNKNOWN in place or state.place or state.lost or state.others or not paths.exists(place):
        return False
    return not any(paths.inside(place, touch.path.rstrip("/")) or UNKNOWN in touch.path for touch in scene.touches)


def file_status(question: str, path: str, scene: Scene, state: State) -> bool | None:
    """`-e -f -d -s` of what is there now; None when the answer may be another one later."""
    if not there(path, scene, state):
        return None
    place = scene.origin(paths.normal(path, state.cwd))
    kind = paths.is_file(place) if question in "-f-s" else paths.is_dir(place) if question == "-d" else True
    return True if kind and (question != "-s" or paths.size(place) > 0) else None


def repeated(words: list[str], letter: str, name: str) -> list[str]:
    """All values of an option that may be given more than once."""
    found = []
    for k, word in enumerate(words):
        following = words[k + 1 : k + 2]
        if word == "--" + name:
            found += following
        elif word.startswith("--" + name + "="):
            found.append(word.partition("=")[2])
        elif letter and word[:1] == "-" and word[1:2] != "-" and letter in word:
            found += [word.partition(letter)[2]] if word.partition(letter)[2] else following
    return found


def test_status(words: list[str], scene: Scene, state: State) -> bool | None:
    """`[ ... ]`: known only for the simplest questions."""
    negated = bool(words) and words[0] == "!"
    if negated:
        words = words[1:]
    answer: bool | None = None
    if any(UNKNOWN in word for word in words):
        return None
    if len(words) == 2 and words[0] in ("-z", "-n"):
        answer = (words[1] == "") == (words[0] == "-z")
    elif len(words) == 2 and words[0] in ("-e", "-f", "-d", "-s"):
        answer = file_status(words[0], words[1], scene, state)
    elif len(words) == 3 and words[1] in ("=", "==", "!="):
        answer = (words[0] == words[2]) == (words[1] != "!=")
    return None if answer is None else answer != negated
