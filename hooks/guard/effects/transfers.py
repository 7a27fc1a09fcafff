"""Archives, synchronising copies, downloads: programs that write many files, or one named by an option."""

from __future__ import annotations

from guard import paths
from guard.shell import globs
from guard.shell.marks import live

from .commands import Call, options, repeated
from .files import arrive, fetch, overlay

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from collections.abc import Callable

DONE = ("", None)
JUNKED = -1  # an archive's members lose all their folders
RCLONE_VALUES = (
    "transfers", "checkers", "bwlimit", "config", "include", "exclude", "filter", "max-age", "min-age", "max-size", "min-size", "log-file",
    "log-level", "retries", "files-from", "exclude-from", "include-from", "filter-from", "backup-dir", "suffix", "multi-thread-streams",
)  # fmt: skip


def handle(call: Call) -> tuple[str | None, bool | None] | None:
    name = call.name
    if name == "rsync":
        return rsync(call)
    if name in ("tar", "gtar", "bsdtar"):
        return tar(call)
    if name in ("unzip", "7z", "7za", "7zz", "unar", "cpio", "pax"):
        return unpack(call, name)
    if name in ("gzip", "bzip2", "xz", "zstd", "lz4", "pigz", "gunzip", "bunzip2", "unxz", "unzstd"):
        return compress(call, name)
    if name == "zip":
        flags, _, operands = options(call.argv, "xitnb")
        if flags & {"m", "move"}:
            for path in operands[1:]:
                call.touch("delete", path).tree = True
        return DONE
    if name == "rclone":
        return rclone(call)
    if name in ("curl", "wget", "aria2c"):
        return download(call, name)
    if name in ("openssl", "gpg"):
        return crypt(call, name)
    return None


def rsync(call: Call) -> tuple[str | None, bool | None]:
    flags, _, operands = options(
        call.argv,
        "eBTfM",
        ("exclude", "include", "rsh", "filter", "exclude-from", "include-from", "backup-dir", "files-from"),
    )
    if flags & {"n", "dry-run", "list-only"} or len(operands) < 2:
        return DONE
    target = operands[-1]
    if ":" in target.split("/", 1)[0]:
        target = ""
    if "remove-source-files" in flags:
        for source in operands[:-1]:
            if ":" not in source.split("/", 1)[0]:
                call.touch("empty", source)
    if not target:
        return DONE
    keeps = bool(flags & {"ignore-existing", "b", "backup"})
    if any(flag.startswith("del") for flag in flags):
        for source in operands[:-1]:
            goal = target if source.endswith("/") else paths.join(target, paths.base(source))
            extra(call, source, goal, excluded(call, flags, source))
    for source in operands[:-1] if keeps else []:
        arrive(call, source, target, not source.endswith("/"))
    if not keeps:
        for source in operands[:-1]:
            if ":" in source.split("/", 1)[0]:
                fetch(call, source, target, True)
            else:
                folder = paths.is_dir(paths.normal(source, call.state.cwd))
                into = (
                    not source.endswith("/")
                    if folder
                    else target.endswith("/") or paths.is_dir(paths.normal(target, call.state.cwd))
                )
                overlay(call, source, target, into, True, excluded(call, flags, source))
    return DONE


def excluded(call: Call, flags: set[str], source: str) -> Callable[[str, bool], bool] | None:
    """Which paths below a source rsync leaves alone: `--exclude=NAME`, `/anchored`, `folder/`, globs without `**`.

    With includes or filters the order decides; then none is believed.
    """
    patterns = [pattern for pattern in repeated(call.argv, "", "exclude") if pattern.strip("/") and "**" not in pattern]
    if not patterns or flags & {"include", "filter", "f", "F", "include-from", "delete-excluded"}:
        return None
    top = "" if source.endswith("/") else "/" + paths.base(source)

    def spared(path: str, folder: bool) -> bool:
        parts = (top + path).split("/")[1:]
        for pattern in patterns:
            wanted = pattern.strip("/").split("/")
            if (pattern.endswith("/") and not folder) or len(wanted) > len(parts):
                continue
            if not (pattern.startswith("/") and len(wanted) != len(parts)) and all(
                globs.matches(part, live(each)) for part, each in zip(parts[-len(wanted) :], wanted)
            ):
                return True
        return False

    return spared


def extra(call: Call, source: str, goal: str, spared: Callable[[str, bool], bool] | None = None) -> None:
    """What rsync --delete removes: everything at the goal that the source lacks, all the way down."""
    begin = call.scene.origin(paths.normal(source, call.state.cwd))
    end = paths.normal(goal, call.state.cwd)
    todo = [""]
    seen = 0
    while todo and seen < 2000:
        below = todo.pop()
        for name in paths.listing(end + below):
            seen += 1
            path = below + "/" + name
            folder = paths.is_dir(end + path)
            if spared and spared(path, folder):
                continue
            if paths.exists(begin + path) or (folder and spared):  # a folder that holds something excluded stays
                if folder:
                    todo.append(path)
            else:
                call.touch("delete", end + path).tree = True


def tar(call: Call) -> tuple[str | None, bool | None]:
    words = call.argv[1:]
    if words and words[0][:1] != "-":
        words = ["-" + words[0], *words[1:]]
    flags, values, operands = options(
        ["tar", *words],
        "fCXTbIFLNVHgKs" if call.name == "bsdtar" else "fCXTbIFLNVHgK",
        (
            "file",
            "directory",
            "exclude",
            "exclude-from",
            "use-compress-program",
            "strip-components",
            "strip-path",
            "transform",
            "xform",
        ),
    )
    state = call.state
    where = values.get("C") or values.get("directory") or "."
    if flags & {"x", "extract", "get"}:
        if not flags & {"k", "keep-old-files", "skip-old-files", "keep-newer-files", "O", "to-stdout", "backup"}:
            touch = call.scene.touch("unpack", where, state, " ".join(call.argv))
            archive = values.get("f") or values.get("file") or ""
            renamed = flags & {"transform", "xform"} or (call.name == "bsdtar" and "s" in flags)
            touch.to = paths.normal(archive, state.cwd) if archive and not renamed else ""
            count = values.get("strip-components") or values.get("strip-path") or values.get("strip") or "0"
            touch.strip = int(count) if count.isdigit() else 0
        return DONE
    if "remove-files" in flags:
        for path in operands:
            call.touch("delete", paths.join(where, path)).tree = True
    if flags & {"c", "create"}:
        archive = values.get("f") or values.get("file") or ""
        if archive and archive != "-":
            call.touch("overwrite", archive).follow = True
    return DONE


def unpack(call: Call, name: str) -> tuple[str | None, bool | None]:
    words = call.argv[1:]
    flags, values, operands = options(call.argv, "dxP" if name == "unzip" else "", ())
    if name == "unzip":
        if flags & {"l", "t", "n", "p", "v", "Z"}:
            return DONE
        touch = call.touch("unpack", values.get("d", "."))
        touch.to = paths.normal(operands[0], call.state.cwd) if operands else ""
        touch.strip = JUNKED if "j" in flags else 0
    elif name.startswith("7z"):
        if words[:1] in (["x"], ["e"]) and "-aos" not in words:
            touch = call.touch("unpack", next((word[2:] for word in words if word.startswith("-o")), "."))
            touch.to = paths.normal(words[1], call.state.cwd) if len(words) > 1 else ""
            touch.strip = JUNKED if words[0] == "e" else 0
        if "-sdel" in words:
            for path in words[2:]:
                call.touch("delete", path).tree = True
    elif name in ("cpio", "pax") and "r" in flags | ({"r"} if "i" in flags else set()):
        call.touch("unpack", ".")
    return DONE


def compress(call: Call, name: str) -> tuple[str | None, bool | None]:
    flags, _values, operands = options(call.argv, "S")
    if flags & {"k", "keep", "c", "stdout", "t", "l"} or (name in ("zstd", "unzstd", "lz4") and "rm" not in flags):
        return DONE
    for path in operands:
        undo = name.startswith("un") or name in ("gunzip", "bunzip2") or flags & {"d", "decompress"}
        goal = path.rpartition(".")[0] if undo else path + ".gz"
        if undo and (flags & {"f", "force"}) and goal:
            call.touch("overwrite", goal)
        if not undo:
            call.touch("move", path).to = paths.normal(goal, call.state.cwd)
    return DONE


def rclone(call: Call) -> tuple[str | None, bool | None]:
    flags, _, words = options(call.argv, "", RCLONE_VALUES)
    local = [word for word in words[1:] if ":" not in word.split("/", 1)[0]]
    if flags & {"dry-run", "n", "ignore-existing", "immutable", "backup-dir"} or not words:
        return DONE
    if words[0] in ("delete", "purge", "deletefile", "rmdirs"):
        for path in local:
            call.touch("delete", path).tree = True
    if words[0] in ("move", "moveto") and len(words) > 1 and words[1] in local:
        call.touch("empty", words[1])
    if words[0] in ("sync", "copy", "copyto", "move", "moveto") and len(words) > 2 and words[2] in local:
        if words[0] == "sync":
            extra(call, words[1], words[2])
        if words[1] in local:
            overlay(call, words[1], words[2], False, True)
        else:
            fetch(call, words[1] if words[0][-2:] == "to" else words[1] + "/", words[2], True)
    return DONE


def download(call: Call, name: str) -> tuple[str | None, bool | None] | None:
    if name == "curl":
        flags, values, operands = options(
            call.argv, "oHdXuTFAebKmxCrYyzwEc", ("output", "header", "data", "request", "upload-file", "form")
        )
        target = values.get("o") or values.get("output")
        if not target and "O" in flags:
            target = next((paths.base(word) for word in operands if "/" in word), "")
    else:
        flags, values, operands = options(call.argv, "OoPaUet", ("output-document", "out", "directory-prefix"))
        target = (
            values.get("O") or values.get("output-document") if name == "wget" else values.get("o") or values.get("out")
        )
    if target and target != "-" and not target.startswith("/dev/") and not ("c" in flags and name == "wget"):
        call.touch("overwrite", target).follow = True
        call.scene.made.add(paths.normal(target, call.state.cwd))
        return "", None
    return None, None


def crypt(call: Call, name: str) -> tuple[str | None, bool | None] | None:
    words = call.argv[1:]
    if (
        name == "openssl"
        and words[:1] in (["base64"], ["enc"])
        and ("base64" in words[0] or "-base64" in words or "-a" in words)
        and "-d" in words
    ):
        from .output import unbase64

        source = words[words.index("-in") + 1] if "-in" in words[:-1] else ""
        return unbase64(call.scene.read(source, call.state) if source else call.stdin), None
    for flag in ("-out", "-o", "--output"):
        if flag in words[:-1]:
            call.touch("overwrite", words[words.index(flag) + 1]).follow = True
    return None
