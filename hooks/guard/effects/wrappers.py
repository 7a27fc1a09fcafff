"""Programs that start another program: what they wrap is what counts."""

from __future__ import annotations

from guard import paths

from .commands import Call, quote

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from .scene import State

# options that take a value, by program; everything else with a dash is a flag
VALUES = {
    "sudo": "-u -g -p -C -h -D -R -T -U -r -t --user --group --prompt --chdir --host",
    "doas": "-u -C",
    "nice": "-n --adjustment",
    "ionice": "-c -n -p --class --classdata",
    "timeout": "-s -k --signal --kill-after",
    "gtimeout": "-s -k --signal --kill-after",
    "stdbuf": "-i -o -e --input --output --error",
    "time": "-f -o --format --output",
    "caffeinate": "-t -w",
    "taskpolicy": "-c -d -g -l -t -b",
    "watch": "-n -d --interval",
    "flock": "-w -E --timeout",
    "strace": "-o -e -p -s",
    "systemd-run": "-p --unit --property --slice",
    "sandbox-exec": "-f -n -p -D",
    "faketime": "-f",
    "torchrun": "--nproc_per_node --nproc-per-node --nnodes --master_port --master-port --rdzv-endpoint",
    "accelerate": "--num_processes --config_file --num-processes --config-file",
    "mlx.launch": "-n --hosts --hostfile --backend --env --cwd --python",
    "su": "-s -g -G",
    "runuser": "-u -s -g",
    "xcrun": "--sdk --toolchain",
    "parallel": "-j --jobs -S --delay --joblog -a -N -n -L -I --colsep --results --retries",
    "xargs": "--max-args --max-procs --max-chars --delimiter --arg-file --process-slot-var",
}
# runners whose own sub-command comes before the program
RUNNERS = {
    "uv": ("run", "tool"),
    "poetry": ("run",),
    "pdm": ("run",),
    "rye": ("run",),
    "hatch": ("run",),
    "pipenv": ("run",),
    "pixi": ("run", "exec"),
    "conda": ("run",),
    "mamba": ("run",),
    "micromamba": ("run",),
    "pipx": ("run",),
    "mise": ("exec", "x"),
    "asdf": ("exec",),
    "direnv": ("exec",),
    "npm": ("exec", "x"),
    "pnpm": ("exec", "dlx"),
    "yarn": ("exec", "dlx"),
    "accelerate": ("launch",),
}
RUNNER_VALUES = [
    "-p",
    "-n",
    "-m",
    "--with",
    "--python",
    "--project",
    "--directory",
    "--extra",
    "--group",
    "--env-file",
    "--with-requirements",
    "--from",
    "--spec",
    "--name",
    "--prefix",
    "-e",
    "--environment",
    "--manifest-path",
    "--index-url",
    "--index",
    "-i",
    "--with-editable",
    "--package",
    "--only-group",
    "--refresh-package",
    "--cwd",
    "-C",
]
FOLDERS = ("--directory", "--cwd", "--chdir", "-C", "-D")  # options that name the folder to run in


def handle(call: Call) -> tuple[str | None, bool | None] | None:
    name = call.name
    if name == "env":
        return env(call)
    if name in RUNNERS:
        return runner(call)
    if name in ("uvx", "npx", "bunx"):
        return call.run(after_options(call.argv[1:], RUNNER_VALUES))
    if name == "arch":
        return arch(call)
    if name in ("busybox", "toybox"):
        return call.run(call.argv[1:])
    if name in ("su", "runuser"):
        if "-c" in call.argv[:-1]:
            return call.shell(call.argv[call.argv.index("-c") + 1])
        rest = after_options(call.argv[1:], VALUES[name].split())
        return call.run(rest) if name == "runuser" else None
    if name == "script":
        for k, word in enumerate(call.argv[:-1]):
            if (word[:1] == "-" and word[1:2] != "-" and word.endswith("c")) or word == "--command":
                return call.shell(call.argv[k + 1])
        return call.run(after_options(call.argv[1:], ["-F", "-t", "-T"])[1:])
    if name in ("ssh", "rosetta", "ltrace", "gdb", "lldb", "dtruss", "expect", "at", "batch", "ts", "entr"):
        return deferred(call, name)
    if name in ("screen", "tmux"):
        return multiplexer(call)
    rest = after_options(call.argv[1:], VALUES.get(name, "").split())
    if name in ("timeout", "gtimeout", "flock", "chrt", "faketime"):
        if name == "flock" and "-c" in call.argv[:-1]:
            return call.shell(call.argv[call.argv.index("-c") + 1])
        rest = rest[1:]
        rest = after_options(rest, [])
    if name == "sudo":
        return sudo(call, rest)
    if name == "watch" and len(rest) == 1:
        return call.shell(rest[0])
    if name in ("torchrun", "mlx.launch"):
        return launch(call, rest)
    return call.run(rest) if rest else None


def after_options(words: list[str], values: list[str]) -> list[str]:
    """Drop leading options (and the values of those that take one)."""
    k = 0
    while k < len(words) and words[k][:1] == "-" and words[k] != "-":
        if words[k] == "--":
            return words[k + 1 :]
        k += 2 if words[k] in values else 1
    return words[k:]


def folder(call: Call, word: str, following: str, state: State) -> State:
    """The state in the folder that an option names: `--directory=x`, `--chdir x`, `-C x`."""
    key, equals, value = word.partition("=")
    if key not in FOLDERS and not (key == "--prefix" and call.name == "npm"):
        return state
    place = paths.normal(value if equals else following, state.cwd)
    if paths.is_dir(place) or place in call.scene.made:  # else it is another option of that name
        state = state.copy()
        state.cwd = place
    return state


def folders(call: Call, words: list[str], state: State) -> State:
    for word, following in zip(words, [*words[1:], ""]):
        state = folder(call, word, following, state)
    return state


def sudo(call: Call, rest: list[str]) -> tuple[str | None, bool | None] | None:
    state = folders(call, call.argv[1 : len(call.argv) - len(rest)], call.state)
    while rest and "=" in rest[0] and rest[0].split("=", 1)[0].isidentifier():
        rest = rest[1:]
    if any(word in ("-i", "-s") for word in call.argv[1:4]) and rest:
        return call.shell(" ".join(rest))
    return call.run(rest, state) if rest else None


def env(call: Call) -> tuple[str | None, bool | None] | None:
    words = call.argv[1:]
    state = call.state
    k = 0
    while k < len(words):
        word = words[k]
        if word in ("-S", "--split-string") and k + 1 < len(words):
            return call.shell(" ".join([words[k + 1], *map(quote, words[k + 2 :])]))
        if word.startswith("-S") and len(word) > 2:
            return call.shell(" ".join([word[2:], *map(quote, words[k + 1 :])]))
        if word[:1] == "-":
            state = folder(call, words[k], "".join(words[k + 1 : k + 2]), state)
            k += 2 if word in ("-u", "--unset", "-C", "--chdir") else 1
        elif "=" in word:
            name, _, value = word.partition("=")
            call.env = {**call.env, name: [value]}
            k += 1
        else:
            break
    return call.run(words[k:], state) if k < len(words) else None


def runner(call: Call) -> tuple[str | None, bool | None] | None:
    """uv run, poetry run, conda run, ..."""
    name = call.name
    words = call.argv[1:]
    state = call.state
    k = 0
    while k < len(words) and words[k][:1] == "-":
        state = folder(call, words[k], "".join(words[k + 1 : k + 2]), state)
        k += 2 if words[k] in RUNNER_VALUES and k + 1 < len(words) else 1
    words = words[k:]
    if not words or words[0] not in RUNNERS[name]:
        return scripts(call, words, state) if name in ("npm", "pnpm", "yarn") else None
    words = words[1:]
    if name == "uv" and words[:1] == ["run"] and call.argv[1] == "tool":
        words = words[1:]
    rest: list[str] = []
    k = 0
    module = script = False
    while k < len(words) and words[k][:1] == "-" and words[k] not in ("-", "--"):
        if words[k] in ("-m", "--module") and name in ("uv", "pdm"):
            module = True
            k += 1
            break
        if words[k] in ("-s", "--script"):
            script = True
        state = folder(call, words[k], "".join(words[k + 1 : k + 2]), state)
        if words[k] in ("-c", "--call") and k + 1 < len(words):
            return call.shell(words[k + 1])
        k += 2 if words[k] in RUNNER_VALUES and k + 1 < len(words) else 1
    rest = words[k:]
    if rest[:1] == ["--"]:
        rest = rest[1:]
    if name == "direnv":
        rest = rest[1:]
    if name == "accelerate":
        return launch(call, rest)
    if not rest:
        return None
    if module:
        return call.run(["python3", "-m", *rest], state)
    if script or rest[0].endswith(".py") or (rest[0] == "-" and name == "uv"):
        return call.run(["python3", *rest], state)
    if name == "hatch" and ":" in rest[0]:
        return None
    return call.run(rest, state)


def launch(call: Call, rest: list[str]) -> tuple[str | None, bool | None] | None:
    rest = after_options(rest, VALUES.get(call.name, "").split())
    if call.argv[1:] and "-m" in call.argv and rest:
        at = call.argv.index("-m")
        if call.argv[at - 1] != "--" and not paths.base(rest[0]).startswith("python"):
            return call.run(["python3", "-m", *call.argv[at + 1 :]])
    if rest and rest[0].endswith(".py"):
        rest = ["python3", *rest]
    return call.run(rest) if rest else None


def scripts(call: Call, words: list[str], state: State) -> tuple[str | None, bool | None] | None:
    """npm run NAME: the text in package.json."""
    if words[:1] in (["run"], ["run-script"]):
        rest = after_options(words[1:], ["-w", "--workspace", "--prefix", "--filter", "-C"])
        state = folders(call, words[1 : len(words) - len(rest)], state)
        words = rest
    elif words[:1] in (["test"], ["t"], ["start"], ["stop"]):
        words = ["test" if words[0] == "t" else words[0]]
    elif call.name == "npm":
        return None
    text = call.scene.read("package.json", state) or ""
    at = text.find('"scripts"')
    if at < 0 or not words:
        return None
    from guard.wire import loads

    try:
        manifest = loads(text)
    except ValueError:
        return None
    script = manifest.get("scripts", {}).get(words[0]) if isinstance(manifest, dict) else None
    return call.shell(script, state) if isinstance(script, str) else None


def arch(call: Call) -> tuple[str | None, bool | None] | None:
    words = call.argv[1:]
    state = call.state
    k = 0
    while k < len(words) and words[k][:1] == "-":
        if words[k] in ("-x86_64", "-x86_64h", "-i386") or (words[k] == "-arch" and words[k + 1 : k + 2] == ["x86_64"]):
            state = state.copy()
            state.place = "rosetta"
        k += 2 if words[k] in ("-arch", "-e", "-d") else 1
    return call.run(words[k:], state) if k < len(words) else None


def deferred(call: Call, name: str) -> tuple[str | None, bool | None] | None:
    """Things run elsewhere (ssh) or later (at)."""
    if name in ("at", "batch"):
        return call.shell(call.stdin)
    if name in ("ltrace", "dtruss", "entr"):
        rest = after_options(call.argv[1:], ["-p", "-o", "-e"])
        return call.run(rest) if rest else None
    if name == "ssh":
        rest = after_options(
            call.argv[1:],
            [
                "-p",
                "-i",
                "-l",
                "-o",
                "-F",
                "-J",
                "-L",
                "-R",
                "-D",
                "-W",
                "-b",
                "-c",
                "-E",
                "-e",
                "-I",
                "-m",
                "-O",
                "-Q",
                "-S",
                "-w",
            ],
        )
        if rest and rest[0].rpartition("@")[2] in ("localhost", "127.0.0.1", "::1") and len(rest) > 1:
            state = call.state.copy()
            state.cwd = paths.home()
            return call.shell(" ".join(rest[1:]), state)
    return None


def multiplexer(call: Call) -> tuple[str | None, bool | None] | None:
    """tmux new -d 'cmd', screen -dm cmd, tmux send-keys 'cmd' Enter."""
    words = call.argv[1:]
    if call.name == "screen":
        rest = after_options(words, ["-S", "-c", "-h", "-s", "-t", "-X"])
        return call.run(rest) if rest else None
    values = ["-s", "-n", "-c", "-t", "-x", "-y", "-e", "-F", "-L", "-S", "-f"]
    words = after_options(words, values)
    if words and words[0] in (
        "new",
        "new-session",
        "new-window",
        "neww",
        "split-window",
        "run-shell",
        "respawn-pane",
        "send-keys",
        "send",
    ):
        rest = after_options(words[1:], values)
        if words[0] in ("send-keys", "send"):
            rest = [word for word in rest if word not in ("Enter", "C-m", "C-c")]
        return call.shell(" ".join(rest))
    return None
