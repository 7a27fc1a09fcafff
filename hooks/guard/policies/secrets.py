"""Tokens of Hugging Face, Weights & Biases and OpenAI-like services: in a tracked file they are as good as published."""

from __future__ import annotations

from guard import paths, processes
from guard.verdict import ASK, DENY, Finding, short

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from guard.world import World

RULE = "secrets"
WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
# prefix, shortest body, the service; the body is made of letters, digits, - and _
SHAPES = (
    ("hf_", 30, "Hugging Face"),
    ("api_org_", 30, "Hugging Face"),
    ("sk-", 20, "OpenAI-style"),
    ("wandb_v1_", 20, "Weights & Biases"),
    ("local-", 40, "Weights & Biases"),
)
PLACEHOLDERS = (
    "your",
    "xxxx",
    "example",
    "placeholder",
    "token_here",
    "redacted",
    "dummy",
    "changeme",
    "<",
    "****",
    "....",
)
VARIABLES = {"Hugging Face": "HF_TOKEN", "Weights & Biases": "WANDB_API_KEY", "OpenAI-style": "OPENAI_API_KEY"}


def tokens(text: str, shapes: tuple[tuple[str, int, str], ...] = SHAPES) -> list[tuple[str, str]]:
    """(token, service) of everything in a text that has the shape of a real token."""
    found = []
    for prefix, least, service in shapes:
        at = text.find(prefix)
        while at >= 0:
            end = at + len(prefix)
            while end < len(text) and text[end] in WORD:
                end += 1
            body = text[at + len(prefix) : end]
            before = text[at - 1 : at]
            if len(body) >= least and (not before or before not in WORD) and real(body):
                found.append((text[at:end], service))
            at = text.find(prefix, end)
    if "wandb" in text.lower():
        found += [(word, "Weights & Biases") for word in hexadecimal(text)]
    return found


def real(body: str) -> bool:
    lowered = body.lower()
    return len(set(lowered)) > 6 and not any(mark in lowered for mark in PLACEHOLDERS)


def hexadecimal(text: str) -> list[str]:
    """40 hexadecimal digits on a line that speaks of wandb: an old-style key."""
    out = []
    for line in text.split("\n"):
        if "wandb" not in line.lower():
            continue
        run = ""
        for c in line + " ":
            if c in "0123456789abcdef":
                run += c
                continue
            if len(run) == 40 and len(set(run)) > 6 and c not in WORD:
                out.append(run)
            run = ""
    return out


def judge(world: World) -> list[Finding]:
    if world.file:
        fresh = [pair for piece in world.pieces for pair in tokens(piece) if pair[0] not in world.old]
        return [in_file(world, world.file, fresh[0][1])] if fresh else []
    found = tokens(world.text) or tokens("\n".join(word for run in world.scene.runs for word in run.argv))
    if not found:
        return []
    token, service = next((pair for pair in found if not fetched(world, pair[0])), found[0])
    outside = fetched(world, token)
    asked: list[Finding] = []
    for touch in world.scene.touches:
        if touch.op in ("overwrite", "append", "edit") and (
            token in (touch.text or "") or (touch.text is None and (touch.op == "edit" or not outside))
        ):
            for path in world.targets(touch) or [touch.path]:
                finding = in_file(world, path, service)
                if finding.decision == DENY:
                    return [finding]
                asked.append(finding)
    if outside:
        return asked[:1]
    return [Finding(
        ASK, RULE, f"a {service} token stands in the command itself",
        "it stays in the transcript, in the shell's history and in the process list",
        f"read it from the environment: `${VARIABLES[service]}`; for Hugging Face let the user run `hf auth login`",
    )]  # fmt: skip


def fetched(world: World, token: str) -> bool:
    """Whether the command holds no token, but names the variable or the file in which one is kept, as it should be."""
    return token not in world.text and (
        any(token in value and name in world.text for name, value in paths.variables())
        or any(token in text for text in world.scene.texts)
    )


def in_file(world: World, path: str, service: str) -> Finding:
    name = short(path, world.cwd)
    if tracked(path):
        return Finding(
            DENY, RULE, f"a {service} token would be written into {name}, which git tracks or would track",
            "whoever sees the repository can use it", f"read it from the environment: `${VARIABLES[service]}`",
        )  # fmt: skip
    return Finding(
        ASK, RULE, f"a {service} token would be written into {name}", "it lies there in plain text",
        f"read it from the environment: `${VARIABLES[service]}`",
    )  # fmt: skip


def tracked(path: str) -> bool:
    """Whether git tracks the file, or would with the next `git add`."""
    from guard.effects.git import root_of

    folder = paths.parent(path)
    while not paths.is_dir(folder):
        folder = paths.parent(folder)
    if not root_of(folder) or "/.git/" in path:
        return False
    return processes.output(["git", "check-ignore", "-q", path], folder) is None
