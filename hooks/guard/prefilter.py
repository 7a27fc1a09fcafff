"""The cheap question: can this call matter at all? Most can't, and leave here before anything else is imported.

For Bash the rule is a list of what is known to be harmless, not of what is dangerous: every command one of HARMLESS
(after quotes are taken away, since `r''m` is rm), nothing that writes or starts a command, none of the NEEDLES
anywhere. Everything else is read properly.
"""

# No `from __future__`: it would be one more import on the path that every call takes.

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any

MAX_PAYLOAD = 4_000_000  # bytes; beyond that not even the JSON is read
HARMLESS = frozenset((
    "ls", "pwd", "cat", "head", "tail", "wc", "grep", "rg", "echo", "printf", "which", "date", "whoami", "hostname", "uname", "df", "du",
    "file", "stat", "tree", "id", "true", "sleep", "diff", "cmp", "uptime", "nproc", "sw_vers", "arch", "basename", "dirname", "cd",
    "pytest", "ruff", "mypy", "pyright", "black", "isort", "cargo", "go", "rustc", "gcc", "clang", "cmake", "ninja", "tsc", "eslint",
    "jest", "vitest", "prettier", "terraform", "brew", "jobs", "type", "test", "mkdir", "node --version", "python --version",
    "git status", "git diff", "git log", "git show", "git add", "git commit", "git branch", "git blame", "git fetch", "git ls-files",
    "git rev-parse", "git describe", "git tag", "git grep", "git shortlog", "gh pr", "gh issue", "gh run",
    "npm install", "npm ci", "npm ls", "npm --version", "yarn install", "pnpm install", "pip list", "pip show", "pip install",
    "uv sync", "uv lock", "uv pip", "uv add", "uv --version", "python3 --version", "docker ps", "docker images", "docker --version", "ps aux",
))  # fmt: skip
# What starts commands or writes files; globs and variables are harmless as arguments of what only reads.
SYNTAX = ("`", "<", ">", "$(", "${", "$[")
EXPANSIONS = SYNTAX[3:]  # double quotes do not keep them from being run
COMMENTS = ("#", " #", "\t#", "\n#", ";#", "&#", "|#", "(#", ")#")  # a quote in one pairs with nothing
# Words that end in an effect even as an argument of something harmless, and our own subjects.
NEEDLES = (
    "hf_", "api_org_", "sk-", "wandb", "local-", "trust", "mlx", "safetensors", "adapter", "huggingface", "-exec", "-delete", "alias", "--output",
    "-o ", "--pre", "xargs", "--fix", "upload", "filter-process", "--ext-diff", "--command",
)  # fmt: skip
PATH_NEEDLES = (
    ".jsonl", "safetensors", "adapter", ".claude", "mlx-training", "checkpoint", "config.json", "tokenizer", ".gguf", ".npz", ".bin", ".pt", ".ckpt",
    "hooks", "sysctl", "plugin", ".yaml", ".yml", "vocab", "merges", "special_tokens", "chat_template", ".model", "huggingface", "/models/",
)  # fmt: skip
SECRET_NEEDLES = ("hf_", "sk-", "api_org_", "wandb", "WANDB", "Wandb", "local-")
HARMLESS_REDIRECTS = ("2>&1", "2>/dev/null", ">/dev/null", "2> /dev/null", "> /dev/null")
_INERT = {ord(c): "_" for c in ";|&()\n\t $`*?[{<>~="}
_INERT_DOUBLE = {ord(c): "_" for c in ";|&()\n\t *?[{<>~="}
_DROP_QUOTES = {ord("'"): None, ord('"'): None, ord("\\"): None}


def settled_raw(raw: bytes) -> bool:
    """Whether the call, as it came in, is none of our business for certain. Bash commands are cut out without a JSON reader."""
    command = command_of(raw)
    if command is not None:
        return harmless(command)
    if len(raw) > MAX_PAYLOAD:
        return False
    from .wire import loads

    payload = loads(raw.decode("utf-8", "replace"))
    return not isinstance(payload, dict) or settled(payload)


def command_of(raw: bytes) -> "str | None":
    """The command of a Bash call, or None when the plain cut is not sure to be what JSON says."""
    if raw.count(b'"tool_input"') != 1 or raw.count(b'"Bash"') != 1 or len(raw) > 100_000:
        return None
    rest = raw.partition(b'"tool_input":')[2].lstrip()
    if rest[:1] != b"{":
        return None
    rest = rest[1:].lstrip()
    if rest[:10] != b'"command":':
        return None
    rest = rest[10:].lstrip()
    end = rest.find(b'"', 1)
    while end > 0 and rest[end - 1] == 92:
        end = rest.find(b'"', end + 1)
    text = rest[1:end]
    if rest[:1] != b'"' or end < 0 or b"\\\\" in text or rest[end + 1 : end + 2] not in (b",", b"}"):
        return None
    if b'"command"' in rest[end:]:
        return None
    text = text.replace(b'\\"', b'"').replace(b"\\n", b"\n").replace(b"\\t", b" ")
    return None if b"\\" in text else text.decode("utf-8", "replace")


def settled(payload: "Any") -> bool:
    """Whether the call is none of our business, for certain."""
    tool = payload.get("tool_name")
    inputs = payload.get("tool_input")
    if not isinstance(inputs, dict):
        return True
    if tool == "Bash":
        command = inputs.get("command")
        return not isinstance(command, str) or harmless(command)
    if tool in ("Write", "Edit", "MultiEdit", "NotebookEdit"):
        return plain_write(inputs)
    return True


def harmless(command: str) -> bool:
    """Plain commands of the list, joined by `;`, `&&`, `||`, `|` or newlines."""
    if len(command) > 20_000:
        return False
    text = unquoted(command.replace("\\\n", ""))
    for redirect in HARMLESS_REDIRECTS:
        text = text.replace(redirect, " ")
    if any(mark in text for mark in SYNTAX):
        return False
    lowered = text.lower()
    if any(needle in lowered for needle in NEEDLES):
        return False
    for separator in "\n|&()":
        text = text.replace(separator, ";")
    for part in text.split(";"):
        words = part.split(None, 2)
        if words and words[0] not in HARMLESS and (len(words) < 2 or words[0] + " " + words[1] not in HARMLESS):
            return False
    return True


def unquoted(command: str) -> str:
    """The command without its quotes; what separates and expands is harmless inside them, so it is blanked there.

    Only with one kind of quote, no backslash and no comment, where quotes are sure to pair; else all stays, and is read as
    syntax. So it is with what double quotes hold and the shell runs nevertheless.
    """
    mark = "'" if "'" in command else '"'
    if "\\" in command or ('"' in command and mark == "'") or command.count(mark) % 2:
        return command.translate(_DROP_QUOTES)
    if mark == '"' and any(expansion in command for expansion in EXPANSIONS):
        return command.translate(_DROP_QUOTES)
    if command[:1] == COMMENTS[0] or any(comment in command for comment in COMMENTS[1:]):
        return command.translate(_DROP_QUOTES)
    pieces = command.split(mark)
    pieces[1::2] = [piece.translate(_INERT if mark == "'" else _INERT_DOUBLE) for piece in pieces[1::2]]
    return "".join(pieces)


def plain_write(inputs: "Any") -> bool:
    """A file tool on a path that is no subject of ours, without anything that looks like a token."""
    path = inputs.get("file_path") or inputs.get("notebook_path") or ""
    lowered = path.lower() if isinstance(path, str) else ""
    if not lowered or any(needle in lowered for needle in PATH_NEEDLES):
        return False
    texts = [inputs.get("content"), inputs.get("new_string"), inputs.get("new_source")]
    edits = inputs.get("edits")
    if isinstance(edits, list):
        texts += [edit.get("new_string") for edit in edits if isinstance(edit, dict)]
    if any(needle in text for text in texts if isinstance(text, str) for needle in SECRET_NEEDLES):
        return False
    import posix

    try:
        if posix.lstat(path).st_mode & 0o170000 == 0o120000:
            return False
    except (OSError, ValueError):
        pass
    return not widened(posix) and not elsewhere(posix, lowered)


def elsewhere(posix: "Any", path: str) -> bool:
    """Whether a path may lie where a variable has put the jobs, the cache, or the hooks' own data."""
    environment = posix.environ
    for key in (b"MLX_TRAINING_HOME", b"HF_HOME", b"HF_HUB_CACHE", b"HUGGINGFACE_HUB_CACHE", b"CLAUDE_PLUGIN_DATA"):
        folder = environment.get(key)
        if folder and folder.rstrip(b"/").rpartition(b"/")[2].decode("utf-8", "replace").lower() in path:
            return True
    return False


def widened(posix: "Any") -> bool:
    """Whether a settings file may name more protected paths."""
    environment = posix.environ
    for key in (b"CLAUDE_PROJECT_DIR", b"HOME"):
        folder = environment.get(key)
        if folder:
            try:
                posix.stat(folder + b"/.claude/mlx-training.yaml")
                return True
            except OSError:
                pass
    return False
