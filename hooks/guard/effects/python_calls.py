"""What the functions of Python's libraries do to files, processes, the Hub and MLX."""

from __future__ import annotations

from guard import paths
from guard.shell.marks import UNKNOWN

from .python_arguments import Parser
from .python_values import (
    Bound,
    Either,
    PathValue,
    Ref,
    Words,
    globbed,
    joined,
    listed,
    made,
    moved,
    opened,
    path_method,
    text_of,
    there,
    touch,
    unpacked,
)
from .scene import Work

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any

    from .python_code import PythonWalk
    from .python_expressions import Expressions

DELETE = ("os.remove", "os.unlink", "posix.remove", "posix.unlink", "nt.remove")
DELETE_TREE = ("shutil.rmtree", "send2trash.send2trash", "distutils.dir_util.remove_tree", "send2trash")
MOVE = ("os.rename", "os.replace", "shutil.move", "os.renames")
COPY = ("shutil.copy", "shutil.copyfile", "shutil.copy2")
SHELL = (
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "pty.spawn",
    "commands.getoutput",
)
SPAWN = ("subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output", "subprocess.Popen")
SAVE_SECOND = (
    "torch.save",
    "safetensors.numpy.save_file",
    "safetensors.torch.save_file",
    "safetensors.mlx.save_file",
    "save_file",
)
SAVE_FIRST = (
    "mlx.core.save_safetensors", "mlx.core.savez", "mlx.core.save", "mlx.core.save_gguf", "numpy.save", "numpy.savez",
    "numpy.savez_compressed", "mlx.core.savez_compressed",
)  # fmt: skip
HUB = (
    "upload_file", "upload_folder", "upload_large_folder", "create_commit", "push_to_hub", "upload_to_hub", "create_repo",
    "update_repo_visibility", "update_repo_settings", "push_to_hub_merged", "duplicate_space", "delete_repo", "delete_file", "delete_folder", "super_squash_history",
)  # fmt: skip
UNPACK = ("extractall", "save_pretrained", "save_model")
ALIASES = {"mx": "mlx.core", "np": "numpy"}


def imported(walk: PythonWalk, module: str) -> None:
    """Importing mlx is MLX work."""
    if module.partition(".")[0] in ("mlx", "mlx_lm", "mlx_vlm", "mlx_tune", "mlx_lm_lora", "mlx_whisper"):
        if not any(work.kind == "use" and work.by == walk.call.argv[0] for work in walk.scene.works):
            work = Work("use", ["python", "import", module], walk.state, {})
            work.by = walk.call.argv[0]
            walk.scene.works.append(work)


def keywords_seen(walk: Expressions, keywords: dict[str, Any]) -> None:
    """Keyword arguments and dictionary keys that the remote-code and Hub policies ask about."""
    for name in ("trust_remote_code", "upload_repo", "push_to_hub"):
        held = keywords.get(name)
        values = held.values if isinstance(held, Either) else [held]
        value = next((value for value in values if value and value != UNKNOWN), None)
        if value is not None:
            walk.scene.python.append((name, {name: value}, " ".join(walk.call.argv)[:200]))


def library(walk: PythonWalk, name: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
    """A call of something imported or built in, by its dotted name."""
    head, _, tail = name.partition(".")
    name = ALIASES.get(head, head) + ("." + tail if tail else "")
    first = arguments[0] if arguments else keywords.get("path", keywords.get("name", keywords.get("file")))
    second = arguments[1] if len(arguments) > 1 else None
    last = name.rpartition(".")[2]
    if name in DELETE:
        touch(walk, "delete", first, follow=False)
    elif name in DELETE_TREE:
        touch(walk, "delete", first, follow=False, tree=True)
    elif name in MOVE:
        moved(
            walk,
            first if first is not None else keywords.get("src"),
            second if second is not None else keywords.get("dst"),
        )
    elif name in COPY:
        copied(walk, first, second if second is not None else keywords.get("dst"))
    elif name == "shutil.copytree":
        made(walk, second, first)
        if keywords.get("dirs_exist_ok") and isinstance(second, str):
            touch(walk, "unpack", second)
    elif name in ("os.symlink", "os.link"):
        made(walk, second, first)
    elif name in ("open", "io.open", "codecs.open", "gzip.open", "builtins.open", "os.fdopen"):
        return opened(walk, first, keywords.get("mode", second))
    elif name == "shutil.unpack_archive":
        unpacked(walk, second if second is not None else keywords.get("extract_dir"), text_of(first))
    elif name in ("zipfile.ZipFile", "tarfile.open", "tarfile.TarFile", "tarfile.TarFile.open"):
        return opened(walk, first, keywords.get("mode", second))
    elif name == "os.truncate":
        touch(walk, "overwrite", first)
    elif name == "os.open":
        if "O_TRUNC" in str(second):
            touch(walk, "overwrite", first)
    elif name in SAVE_SECOND:
        touch(walk, "overwrite", second if second is not None else keywords.get("filename", keywords.get("f")))
    elif name in SAVE_FIRST:
        touch(walk, "overwrite", first)
    elif name in SHELL:
        walk.call.shell(text_of(first), walk.state.copy())
    elif name in SPAWN:
        spawned(walk, first if first is not None else keywords.get("args"), keywords)
    elif name in ("asyncio.create_subprocess_shell",):
        walk.call.shell(text_of(first), walk.state.copy())
    elif name in ("asyncio.create_subprocess_exec",):
        spawned(walk, arguments, keywords)
    elif name.startswith(("os.exec", "os.spawn", "os.posix_spawn")):
        values = arguments[1:] if name.startswith("os.exec") else arguments[2:]
        values = values[0] if values and isinstance(values[0], list) else values
        spawned(walk, values, {})
    elif name in ("os.kill", "os.killpg"):
        signalled(walk, name, first, second)
    elif name in ("exec", "eval", "builtins.exec", "builtins.eval"):
        if isinstance(first, bytes):
            first = first.decode("utf-8", "replace")
        if isinstance(first, str) and UNKNOWN not in first and walk.depth < 40:
            walk.depth += 8
            walk.text(first)
            walk.depth -= 8
    elif name == "compile":
        return first
    elif name in ("__import__", "importlib.import_module", "builtins.__import__"):
        imported(walk, text_of(first))
        return Ref(text_of(first))
    elif name == "getattr" and isinstance(first, Ref) and isinstance(second, str):
        return Ref(first + "." + second)
    elif name == "getattr" and isinstance(second, str):
        return UNKNOWN
    elif name == "runpy.run_path" or name == "runpy.run_module":
        command = ["python3", *(["-m"] if last == "run_module" else []), text_of(first)]
        walk.call.run(command, walk.state.copy())
    elif name == "os.chdir":
        if isinstance(first, str) and UNKNOWN not in first:
            walk.state.cwd = paths.normal(first, walk.state.cwd)
    elif name in ("os.makedirs", "os.mkdir"):
        walk.scene.made.add(paths.normal(text_of(first), walk.state.cwd))
    elif name in ("map", "filter") or last in ("starmap",):
        values = listed(walk, second)[:100]
        results = [walk.apply(first, [value], {}) for value in values]
        if name == "filter":
            return [value for value, result in zip(values, results) if result is not False]
        return results
    elif name.startswith(("pathlib.Path.", "Path.")) and isinstance(first, PathValue):
        return path_method(walk, first, last, arguments[1:], keywords)
    elif name in ("argparse.ArgumentParser", "ArgumentParser"):
        return Parser()
    elif name in ("typer.run", "fire.Fire"):
        walk.apply(first, [word for word in walk.argv[1:] if word[:1] != "-"], {})
    elif last in ("Thread", "Process", "Timer"):
        target = keywords.get("target", second if last == "Timer" else None)
        bound = keywords.get("args")
        walk.apply(
            target,
            bound if isinstance(bound, list) else [],
            keywords.get("kwargs") if isinstance(keywords.get("kwargs"), dict) else {},  # pyright: ignore[reportArgumentType]
        )
    elif last == "partial":
        return Bound(first, arguments[1:], keywords)
    elif last in UNPACK:
        unpacked(walk, keywords.get("path", keywords.get("save_directory", first)), "")
    elif last in ("register", "to_thread", "call_soon", "submit", "run_sync"):
        walk.apply(first, arguments[1:], keywords)
    elif last in HUB:
        walk.scene.python.append((last, keywords, " ".join(walk.call.argv)[:200]))
    elif name.startswith("psutil.Process"):
        return Ref("psutil.Process:" + text_of(first)) if name == "psutil.Process" else process_method(walk, name)
    elif name.startswith(("mlx", "neocode.")):
        mlx_call(walk, name, last, arguments, keywords)
    return value_of(walk, name, arguments, keywords)


def process_method(walk: PythonWalk, name: str):
    """psutil.Process(7).kill()"""
    pid, _, method = name.partition(":")[2].partition(".")
    if method in ("kill", "terminate", "suspend", "send_signal"):
        walk.call.kill("pid", pid, {"kill": "KILL", "suspend": "STOP"}.get(method, "TERM"))
    return UNKNOWN


def value_of(walk: PythonWalk, name: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
    """The results that matter later: paths, lists of paths, decoded text."""
    first = arguments[0] if arguments else None
    if name in ("pathlib.Path", "pathlib.PosixPath", "Path", "pathlib.PurePath"):
        out = PathValue(text_of(first) if first is not None else ".")
        for argument in arguments[1:]:
            out = joined(out, argument)
        return out
    if name in ("pathlib.Path.home", "Path.home"):
        return PathValue(paths.home())
    if name in ("pathlib.Path.cwd", "Path.cwd"):
        return PathValue(walk.state.cwd)
    if name == "os.getcwd":
        return walk.state.cwd
    if name == "os.path.join":
        out = joined("", text_of(first))
        for argument in arguments[1:]:
            out = joined(out, argument)
        return str(out)
    if name in ("os.path.abspath", "os.path.realpath", "os.path.normpath") and isinstance(first, str):
        return paths.normal(first, walk.state.cwd) if UNKNOWN not in first else first
    if name == "os.path.expanduser" and isinstance(first, str):
        return paths.home() + first[1:] if first[:1] == "~" else first
    if name == "os.path.dirname" and isinstance(first, str):
        return paths.parent_of(first) if "/" in first else ""
    if name == "os.path.basename" and isinstance(first, str):
        return paths.base(first)
    if name in ("os.environ.get", "os.getenv") and isinstance(first, str):
        values = walk.state.get(first)
        return values[0] if values else arguments[1] if len(arguments) > 1 else UNKNOWN
    if name in ("os.path.exists", "os.path.isfile", "os.path.isdir") and isinstance(first, str):
        return there(walk, first, name.rpartition(".")[2])
    if name in ("glob.glob", "glob.iglob"):
        return globbed(walk, keywords.get("root_dir", ""), text_of(first))
    if name in ("os.listdir",):
        return paths.listing(paths.normal(text_of(first) if first is not None else ".", walk.state.cwd)) or [UNKNOWN]
    if name == "os.scandir":
        folder = text_of(first) if first is not None else "."
        return [PathValue(paths.join(folder, each)) for each in paths.listing(paths.normal(folder, walk.state.cwd))]
    if name == "os.walk":
        return walked(walk, text_of(first))
    if name == "vars" and isinstance(first, dict):
        return first
    if name == "len" and isinstance(first, Words):
        return len(first)
    if name in ("sorted", "list", "set", "tuple", "reversed", "iter"):
        return listed(walk, first)
    if name == "enumerate":
        return [[number, value] for number, value in enumerate(listed(walk, first))]
    if name in ("str", "os.fspath", "os.fsdecode", "shlex.quote"):
        return text_of(first)
    if name == "shlex.split" and isinstance(first, str):
        return first.split()
    if name in ("base64.b64decode", "binascii.a2b_base64", "base64.standard_b64decode") and isinstance(
        first, (str, bytes)
    ):
        import binascii

        try:
            return binascii.a2b_base64(first)
        except ValueError:
            return UNKNOWN
    if name == "bytes.fromhex" and isinstance(first, str):
        try:
            return bytes.fromhex(first)
        except ValueError:
            return UNKNOWN
    if name == "chr" and type(first) is int and 0 < first < 0x110000:
        return chr(first)
    if name == "print":
        if not keywords:
            walk.printed.append(" ".join(text_of(value) for value in arguments) + "\n")
        return None
    if name in ("os.getpid", "os.getppid"):
        return UNKNOWN
    if name in ("tempfile.mkdtemp", "tempfile.mktemp", "tempfile.gettempdir", "tempfile.TemporaryDirectory"):
        return "/tmp/fresh.walk.python"
    if name.startswith("psutil.Process"):
        return Ref("psutil.Process:" + text_of(first))
    return Ref(name + "()") if name[:1].isupper() else UNKNOWN


def walked(walk: PythonWalk, folder: str) -> list[Any]:
    """os.walk, bounded: [folder, folders, files] for each level."""
    out = []
    todo = [folder]
    while todo and len(out) < 60:
        here = todo.pop(0)
        absolute = paths.normal(here, walk.state.cwd)
        names = paths.listing(absolute)
        folders = [name for name in names if paths.is_dir(paths.join(absolute, name))]
        out.append([here, folders, [name for name in names if name not in folders]])
        todo += [paths.join(here, name) for name in folders if name[:1] != "."]
    return out


def copied(walk: PythonWalk, source: Any, target: Any) -> None:
    if not isinstance(target, str) or isinstance(target, Ref):
        return
    goal = str(target)
    if paths.is_dir(paths.normal(goal, walk.state.cwd)) and isinstance(source, str):
        goal = paths.join(goal, paths.base(source))
    touch(walk, "overwrite", goal)


def spawned(walk: PythonWalk, command: Any, keywords: dict[str, Any]) -> None:
    """subprocess.run and its kin: a list, or text for the shell."""
    state = walk.state.copy()
    folder = keywords.get("cwd")
    if isinstance(folder, str) and UNKNOWN not in folder:
        state.cwd = paths.normal(folder, state.cwd)
    if isinstance(command, list):
        argv = [text_of(word) for word in command]
        if any("sys.executable" in str(word) for word in command[:1]):
            argv[0] = "python3"
        if keywords.get("shell") is True:
            walk.call.shell(argv[0] if argv else "", state)
        elif argv:
            text = keywords.get("input")
            walk.call.run(argv, state, text if isinstance(text, str) else "")
    elif isinstance(command, str):
        walk.call.shell(text_of(command), state)


def signalled(walk: PythonWalk, name: str, pid: Any, signal: Any) -> None:
    number = str(signal).rpartition(".")[2]
    from .processes import signal_name

    target = text_of(pid)
    walk.call.kill("pid", "-" + target if name == "os.killpg" else target, signal_name(number))


def mlx_call(walk: PythonWalk, name: str, last: str, arguments: list[Any], keywords: dict[str, Any]) -> None:
    """Training, fusing and uploading through mlx-lm's Python API."""
    kind = ""
    if (
        last in ("train_model", "train", "run", "main")
        and ("tuner" in name or ".lora" in name or name.startswith("mlx_lm_lora"))
    ) or last in ("value_and_grad", "TrainPipeline"):
        kind = "train"
    elif last == "upload_to_hub":
        kind = "upload"
    elif last in ("convert", "fuse"):
        kind = last
    if kind and not any(work.kind == kind and work.by == " ".join(walk.call.argv) for work in walk.scene.works):
        options = {key.replace("_", "-"): value for key, value in keywords.items() if isinstance(value, str)}
        work = Work(kind, ["python", name], walk.state, options)
        work.by = " ".join(walk.call.argv)
        walk.scene.works.append(work)
    if last == "save_weights" and arguments:
        touch(walk, "overwrite", arguments[0])


def method_of_unknown(walk: PythonWalk, name: str, arguments: list[Any], keywords: dict[str, Any]):
    """A method of an object we know nothing of: only names that speak for themselves count."""
    first = arguments[0] if arguments else None
    if name in HUB:
        walk.scene.python.append((name, keywords, " ".join(walk.call.argv)[:200]))
    elif name in ("to_json", "to_csv", "to_parquet", "save_weights", "save_safetensors") and isinstance(first, str):
        touch(walk, "overwrite", first)
    elif name in UNPACK:
        unpacked(walk, keywords.get("path", keywords.get("save_directory", first)), "")
    elif name in ("submit", "apply_async", "apply", "run_in_executor", "to_thread"):
        rest = arguments[1:] if name == "run_in_executor" else arguments
        bound = rest[1] if name.startswith("apply") and len(rest) > 1 and isinstance(rest[1], list) else rest[1:]
        walk.apply(rest[0] if rest else UNKNOWN, bound, {})
    elif name in ("map", "imap", "imap_unordered", "starmap") and len(arguments) > 1:
        for value in listed(walk, arguments[1])[:100]:
            walk.apply(first, [value], {})
    return UNKNOWN
