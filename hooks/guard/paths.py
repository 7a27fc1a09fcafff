"""Paths on `posix` alone: `os`, `glob` and `fnmatch` would cost more than the whole gate."""

from __future__ import annotations

import posix

TEXT_LIMIT = 262_144  # a script longer than this is not read
_environment = {k.decode("utf-8", "replace"): v.decode("utf-8", "replace") for k, v in posix.environ.items()}


def env(name: str, default: str = "") -> str:
    """A variable of the hook's own environment, which is Claude Code's and so the shell's too."""
    return _environment.get(name, default)


def variables() -> list[tuple[str, str]]:
    return list(_environment.items())


def home() -> str:
    return env("HOME") or "/"


def hub_home() -> str:
    """The folder of huggingface_hub, by its own rules."""
    return env("HF_HOME") or join(env("XDG_CACHE_HOME") or join(home(), ".cache"), "huggingface")


def hub_cache() -> str:
    """Where it keeps what it has downloaded."""
    return env("HF_HUB_CACHE") or env("HUGGINGFACE_HUB_CACHE") or join(hub_home(), "hub")


def normal(path: str, cwd: str) -> str:
    """Absolute path with `.`, `..` and double slashes removed, links not followed."""
    if not path.startswith("/"):
        path = cwd + "/" + path
    out: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if out:
                out.pop()
        elif part and part != ".":
            out.append(part)
    return "/" + "/".join(out)


def base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def parent(path: str) -> str:
    return path.rstrip("/").rpartition("/")[0] or "/"


def is_temporary(folder: str) -> bool:
    """Whether a folder, written with a slash at its end, is one of those in which programs put what nobody keeps."""
    return folder in (
        "/tmp/",
        "/var/tmp/",
        "/private/tmp/",
        "/private/var/tmp/",
        env("TMPDIR", "/tmp").rstrip("/") + "/",
    )


def join(folder: str, name: str) -> str:
    return folder.rstrip("/") + "/" + name


def inside(path: str, folder: str) -> bool:
    """Whether path is folder or lies below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def mode(path: str, follow: bool = True) -> int:
    """The kind bits of st_mode (0o040000 folder, 0o100000 file, 0o120000 link), 0 when there is nothing."""
    try:
        return (posix.stat(path) if follow else posix.lstat(path)).st_mode & 0o170000
    except (OSError, ValueError):
        return 0


def is_dir(path: str) -> bool:
    return mode(path) == 0o040000


def is_file(path: str) -> bool:
    return mode(path) == 0o100000


def is_link(path: str) -> bool:
    return mode(path, follow=False) == 0o120000


def exists(path: str) -> bool:
    return mode(path, follow=False) != 0


def size(path: str) -> int:
    try:
        return posix.stat(path).st_size
    except (OSError, ValueError):
        return -1


_listings: dict[str, list[str]] = {}
_entries: dict[str, list[tuple[str, bool]]] = {}
_real: dict[str, str] = {}


def forget() -> None:
    """What was read of the disk holds for one call; the gate forgets it before the next."""
    _listings.clear()
    _entries.clear()
    _real.clear()


def listing(path: str) -> list[str]:
    """The names in a folder, sorted; empty when it can't be read."""
    found = _listings.get(path)
    if found is None:
        try:
            found = sorted(posix.listdir(path or "/"))
        except (OSError, ValueError):
            found = []
        _listings[path] = found
    return found


def entries(path: str) -> list[tuple[str, bool]]:
    """(name, whether it is a folder itself, not a link to one) of what lies in a folder: one call, no look at each name."""
    found = _entries.get(path)
    if found is None:
        try:
            with posix.scandir(path or "/") as rows:
                found = sorted([(row.name, row.is_dir(follow_symlinks=False)) for row in rows])
        except (OSError, ValueError):
            found = []
        _entries[path] = found
    return found


def real(path: str, follow_last: bool = True) -> str:
    """Resolve links (all parents, and the last part when asked) and the case in which names are really written.

    Case is folded whatever the machine: a Mac's disk ignores it, and the stricter reading wins.
    """
    key = path if follow_last else path + "//"
    known = _real.get(key)
    if known is None:
        known = _real[key] = _resolved(path, follow_last)
    return known


def _resolved(path: str, follow_last: bool) -> str:
    out = ""
    todo = [part for part in path.split("/") if part][::-1]
    hops = 0
    while todo:
        name = todo.pop()
        if name == ".":
            continue
        if name == "..":
            out = out.rpartition("/")[0]
            continue
        here = out + "/" + name
        kind = mode(here, follow=False)
        if not kind:
            folded = name.lower()
            for other in listing(out or "/") if folded != name.upper() or name.isalpha() else ():
                if other.lower() == folded:
                    here = out + "/" + other
                    kind = mode(here, follow=False)
                    break
            if not kind:
                return here + "".join("/" + part for part in reversed(todo))
        if kind == 0o120000 and (todo or follow_last) and hops < 20:
            hops += 1
            try:
                target = posix.readlink(here)
            except OSError:
                target = ""
            if target.startswith("/"):
                out = ""
            todo += [part for part in target.split("/") if part][::-1]
            continue
        out = here
    return out or "/"


def read_text(path: str, limit: int = TEXT_LIMIT) -> str | None:
    """The file's text, or None when it can't be read, is longer than the limit, or is binary."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        data = posix.read(fd, limit + 1)
    except OSError:
        return None
    finally:
        posix.close(fd)
    if len(data) > limit or b"\0" in data[:1024]:
        return None
    return data.decode("utf-8", "replace")


def parent_of(path: str) -> str:
    """The folder part of a path as written; `.` when there is none."""
    head, slash, _ = path.rpartition("/")
    return head or ("/" if slash else ".")


def changed(path: str) -> int:
    """When a file was last changed, in nanoseconds; 0 when it isn't there."""
    try:
        return posix.stat(path).st_mtime_ns
    except (OSError, ValueError):
        return 0


def replace_text(path: str, text: str) -> bool:
    """Put a small file in place at once, its folder made when missing; False when that can't be done."""
    temporary = path + "." + str(posix.getpid())
    try:
        if not is_dir(parent(path)):
            posix.mkdir(parent(path), 0o700)
        fd = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600)
        try:
            posix.write(fd, text.encode())
        finally:
            posix.close(fd)
        posix.rename(temporary, path)
    except OSError:
        return False
    return True


def append_line(path: str, line: str) -> bool:
    """Add a line to a small log, its folder made when missing; False when that can't be done."""
    try:
        if not is_dir(parent(path)):
            posix.mkdir(parent(path), 0o700)
        fd = posix.open(path, posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT, 0o600)
        try:
            posix.write(fd, (line + "\n").encode())
        finally:
            posix.close(fd)
    except OSError:
        return False
    return True
