"""Containers and virtual machines: what runs inside, and which of our folders it sees."""

from __future__ import annotations

from guard import paths
from guard.shell.marks import UNKNOWN

from .commands import Call

# option words (with their own value) that stand before the image or the command
VALUED = {
    "-v",
    "--volume",
    "--mount",
    "-e",
    "--env",
    "--env-file",
    "-w",
    "--workdir",
    "-u",
    "--user",
    "--name",
    "-p",
    "--publish",
    "--network",
    "--net",
    "--platform",
    "--gpus",
    "-m",
    "--memory",
    "--cpus",
    "--entrypoint",
    "-h",
    "--hostname",
    "--ipc",
    "--shm-size",
    "--device",
    "--label",
    "-l",
    "--pull",
    "--runtime",
    "--add-host",
    "-f",
    "--file",
    "--profile",
    "--project-name",
    "--project-directory",
    "-c",
    "--container",
    "-n",
    "--namespace",
    "--context",
    "--log-driver",
    "--restart",
    "--security-opt",
    "--cap-add",
    "--tmpfs",
    "--ulimit",
    "--workspace-folder",
    "--config",
    "--remote-env",
    "--machine",
    "-H",
    "--host",
    "--kubeconfig",
    "--image",
    "--replicas",
    "--overrides",
    "--arch",
    "--os",
    "-B",
    "--bind",
    "--pwd",
    "--home",
    "--shell",
    "--target",
    "--cgroup-parent",
    "--dns",
    "--cidfile",
    "--kernel",
    "--ssh",
    "--prefer-index",
    "--scale",
    "-T",
}
RUN = {
    "docker": "run exec create", "podman": "run exec create", "nerdctl": "run exec create", "finch": "run exec create",
    "container": "run exec create", "docker-compose": "run exec up", "podman-compose": "run exec up", "devcontainer": "exec up run-user-commands",
    "kubectl": "exec run debug", "oc": "exec run rsh", "orb": "run", "orbctl": "run", "colima": "ssh", "lima": "", "limactl": "shell",
    "multipass": "exec", "vagrant": "ssh up", "apptainer": "exec run shell", "singularity": "exec run shell", "distrobox": "enter",
    "toolbox": "run enter", "toolboxx": "run", "toolbx": "run", "tart": "exec run", "lxc": "exec", "incus": "exec", "wsl": "", "wsl.exe": "",
    "nsenter": "", "chroot": "", "systemd-nspawn": "", "minikube": "ssh", "buildah": "run", "act": "", "crictl": "exec",
    "ctr": "run exec task", "utm": "", "utmctl": "exec", "prlctl": "exec", "machinectl": "shell", "k3s": "kubectl", "udocker": "run",
}  # fmt: skip
GROUPS = ("compose", "container", "machine", "sandbox", "buildx", "image", "tasks", "t", "c")


def handle(call: Call) -> tuple[str | None, bool | None] | None:
    name = call.name
    words = list(call.argv[1:])
    words = skip(words)
    verbs = RUN.get(name, "run exec").split()
    compose = name.endswith("-compose")
    tool = name
    while words and words[0] in GROUPS and verbs:
        if words[0] == "compose":
            compose = True
            verbs = ["run", "exec", "up", "start", "watch"]
        if words[0] == "machine":
            verbs = ["ssh", "run"]
        words = skip(words[1:])
    if not words:
        return None
    if name == "k3s" and words[0] == "kubectl":
        call.argv = words
        return handle(call)
    if verbs:
        if words[0] not in verbs:
            if name == "orb" and words[0] not in (
                "list",
                "start",
                "stop",
                "status",
                "logs",
                "config",
                "info",
                "version",
                "create",
                "delete",
                "push",
                "pull",
                "help",
            ):
                verb = "run"
            elif words[0] in ("build", "buildx", "bake") and name in (
                "docker",
                "podman",
                "nerdctl",
                "container",
                "buildah",
                "finch",
            ):
                return build(call, tool, words[1:])
            else:
                return None
        else:
            verb = words[0]
            words = words[1:]
    else:
        verb = "run"
    inner_run(call, tool, verb, words, compose)
    return None, None


def skip(words: list[str]) -> list[str]:
    k = 0
    while k < len(words) and words[k][:1] == "-" and words[k] != "--":
        k += 2 if words[k] in VALUED else 1
    return words[k:]


def inner_run(call: Call, tool: str, verb: str, words: list[str], compose: bool) -> None:
    """The command inside becomes a command of ours, in a place of its own and with the mounts as moved folders."""
    state = call.state.copy()
    state.place = "container:" + tool
    mounts = []
    image = ""
    entry = ""
    k = 0
    while k < len(words) and words[k][:1] == "-" and words[k] != "--":
        word = words[k]
        key, equals, value = word.partition("=")
        letters = word.lstrip("-itdPq")
        if word[1:2] != "-" and letters[:1] in ("v", "w") and letters:  # -v"$PWD":/w, -itw /w
            key, equals, value = "-" + letters[0], letters[1:], letters[1:]
            word = key
        if not equals and word in VALUED and k + 1 < len(words):
            value = words[k + 1]
            k += 1
        if key in ("-v", "--volume", "-B", "--bind"):
            mounts.append(value)
        elif key == "--mount":
            mounts.append(mount_of(value))
        elif key in ("-w", "--workdir"):
            state.cwd = value
        elif key == "--entrypoint":
            entry = value
        elif key == "--command" and tool in ("vagrant",):
            words = ["--", value]
            k = -1
        k += 1
    rest = words[k:]
    if tool == "vagrant" and "-c" in call.argv:
        at = call.argv.index("-c")
        rest = call.argv[at + 1 : at + 2]
        call.shell(rest[0] if rest else "", state)
        return
    named = (
        tool
        not in (
            "chroot",
            "lima",
            "wsl",
            "colima",
            "minikube",
            "act",
            "systemd-nspawn",
            "nsenter",
            "orb",
            "devcontainer",
            "machinectl",
        )
        or tool == "chroot"
    )
    if rest and named and rest[0] != "--":
        image = rest[0]
        rest = rest[1:]
    if "--" in rest:
        rest = rest[rest.index("--") + 1 :]
    if verb == "up" or (compose and not rest):
        whole_project(call, tool, image, compose)
        return
    sources = []
    for mount in mounts:
        source, colon, target = mount.partition(":")
        if colon and (
            "/" in source or source[:1] == "." or tool in ("apptainer", "singularity")
        ):  # else a volume's name
            place = paths.normal(target.partition(":")[0], "/")
            sources.append(paths.normal(source, call.state.cwd))
            call.scene.moved[place] = sources[-1]
            call.scene.made.add(place)
    inner = ([entry] if entry else []) + rest
    if not inner:
        if "mlx" in image.lower():
            call.scene.inside.append((tool, image))
        if call.stdin:
            call.shell(call.stdin, state)
        return
    before = len(call.scene.touches)
    call.run(inner, state)
    if tool not in (
        "chroot",
        "orb",
        "lima",
        "limactl",
        "colima",
        "toolbox",
        "distrobox",
        "nsenter",
        "wsl",
    ):
        call.scene.touches[before:] = [  # the rest lies on its own disk
            touch for touch in call.scene.touches[before:]
            if sources and (touch.held or UNKNOWN in touch.path or any(paths.inside(touch.path, each) for each in sources))
        ]  # fmt: skip
    words_inside = " ".join(inner)
    if "mlx" in words_inside.lower() and not any(work.place for work in call.scene.works):
        program = paths.base(inner[0])
        if (
            program.startswith("mlx")
            or program in ("pip", "pip3", "uv")
            or any(word.startswith("mlx") for word in inner[1:3])
        ):
            call.scene.inside.append((tool, words_inside))


def mount_of(value: str) -> str:
    """`source:target` of docker's `--mount type=bind,source=...,target=...`."""
    parts: dict[str, str] = {}
    for piece in value.split(","):
        key, _, text = piece.partition("=")
        parts[key] = text
    source = parts.get("source") or parts.get("src") or ""
    return source + ":" + (parts.get("target") or parts.get("dst") or parts.get("destination") or "")


def whole_project(call: Call, tool: str, service: str, compose: bool) -> None:
    """compose up, devcontainer up: the project's own files say what runs."""
    names = ["docker-compose.yml", "docker-compose.yaml", "compose.yaml", "compose.yml"] if compose else [
        ".devcontainer/devcontainer.json", ".devcontainer.json", "Vagrantfile"
    ]  # fmt: skip
    argv = call.argv
    names = [argv[k + 1] for k, word in enumerate(argv[:-1]) if word in ("-f", "--file")] or names
    for name in names:
        text = call.scene.read(name, call.state)
        if text and mentions_mlx(section(text, service) if compose and service else text):
            call.scene.inside.append((tool, name))
            return


def section(text: str, service: str) -> str:
    """The lines of one service of a compose file; all when it can't be found."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.strip() == service + ":":
            depth = len(line) - len(line.lstrip())
            end = number + 1
            while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > depth):
                end += 1
            return "\n".join(lines[number:end])
    return text


def mentions_mlx(text: str) -> bool:
    """Whether a Dockerfile or compose file runs MLX: a line that is no comment names mlx_lm, or imports mlx."""
    for line in text.split("\n"):
        line = line.split("#", 1)[0].lower()
        if (
            "mlx_lm" in line
            or "mlx-lm" in line
            or "import mlx" in line
            or "mlx.core" in line
            or "mlx[" in line
            or "mlx_vlm" in line
        ):
            return True
    return False


def build(call: Call, tool: str, words: list[str]) -> tuple[str | None, bool | None] | None:
    """A build runs the RUN lines of its Dockerfile."""
    name = next((words[k + 1] for k, word in enumerate(words[:-1]) if word in ("-f", "--file")), "")
    folder = next((word for word in reversed(words) if word[:1] != "-"), ".")
    for candidate in [name] if name else [paths.join(folder, "Dockerfile"), paths.join(folder, "Containerfile")]:
        text = call.scene.read(candidate, call.state)
        for line in (text or "").replace("\\\n", " ").split("\n"):
            if line.strip().upper().startswith(("RUN ", "CMD ", "ENTRYPOINT ")) and mentions_mlx(line):
                call.scene.inside.append((tool, line.strip()))
                return None, None
    return None, None
