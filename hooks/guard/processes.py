"""Other processes, asked only when a command at hand makes it matter."""

from __future__ import annotations

import posix

from . import paths

OUTPUT_LIMIT = 2_000_000


class Process:
    """One process: argv is split as the system keeps it on Linux, on spaces on a Mac."""

    __slots__ = ("argv", "group", "name", "parent", "pid")

    def __init__(self, pid: int, parent: int, group: int, name: str, argv: list[str]) -> None:
        self.pid = pid
        self.parent = parent
        self.group = group
        self.name = name
        self.argv = argv

    @property
    def line(self) -> str:
        return " ".join(self.argv)


def everything() -> list[Process]:
    """All processes but our own."""
    own = posix.getpid()
    found = linux() if paths.is_dir("/proc/self") else mac()
    return [process for process in found if process.pid != own]


def linux() -> list[Process]:
    out = []
    for name in posix.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            argv = read("/proc/" + name + "/cmdline")
            if not argv:
                continue
            stat = read("/proc/" + name + "/stat").decode("utf-8", "replace")
            fields = stat.rpartition(")")[2].split()
            out.append(
                Process(
                    int(name),
                    int(fields[1]),
                    int(fields[2]),
                    stat.partition("(")[2].rpartition(")")[0],
                    [word.decode("utf-8", "replace") for word in argv.rstrip(b"\0").split(b"\0")],
                )
            )
        except (OSError, ValueError, IndexError):
            continue
    return out


def read(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY)
    try:
        return posix.read(fd, 65536)
    finally:
        posix.close(fd)


def mac() -> list[Process]:
    out = []
    for line in (output(["/bin/ps", "-axww", "-o", "pid=,ppid=,pgid=,command="], "/") or "").splitlines():
        fields = line.split(None, 3)
        if len(fields) == 4 and fields[0].isdigit():
            argv = fields[3].split(" ")
            out.append(Process(int(fields[0]), int(fields[1]), int(fields[2]), paths.base(argv[0]), argv))
    return out


def output(argv: list[str], cwd: str) -> str | None:
    """What a program prints on standard output, or None when it fails. `subprocess` would cost 20 ms to import."""
    program = argv[0] if "/" in argv[0] else which(argv[0])
    if not program or not paths.is_dir(cwd):
        return None
    reading, writing = posix.pipe()
    pid = posix.fork()
    if pid == 0:
        try:
            posix.chdir(cwd)
            null = posix.open("/dev/null", posix.O_RDWR)
            posix.dup2(null, 0)
            posix.dup2(writing, 1)
            posix.dup2(null, 2)
            environment = {key: value for key, value in posix.environ.items() if not key.startswith(b"GIT_")}
            environment[b"GIT_OPTIONAL_LOCKS"] = b"0"
            posix.execve(program, argv, environment)
        finally:
            posix._exit(127)  # pyright: ignore[reportPrivateUsage]
    posix.close(writing)
    chunks = []
    total = 0
    while total < OUTPUT_LIMIT:
        chunk = posix.read(reading, 65536)
        if not chunk:
            break
        chunks.append(chunk)
        total += len(chunk)
    posix.close(reading)
    _, status = posix.waitpid(pid, 0)
    return b"".join(chunks).decode("utf-8", "replace") if status == 0 else None


def which(name: str) -> str:
    for folder in (paths.env("PATH") or "/usr/bin:/bin").split(":"):
        path = paths.join(folder or ".", name)
        if paths.is_file(path) and posix.access(path, posix.X_OK):
            return path
    return ""
