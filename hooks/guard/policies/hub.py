"""What leaves for the Hugging Face Hub: weights and data may be private, and what was public can't be taken back."""

from __future__ import annotations

from guard.effects.commands import options
from guard.verdict import ASK, Finding, said

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from guard.world import World

RULE = "hub"
HOSTS = ("huggingface.co", "hf.co", "hf.space")
UPLOADS = ("upload", "upload-large-folder", "lfs-multipart-upload")


def judge(world: World) -> list[Finding]:
    findings = []
    scene = world.scene
    for work in scene.works:
        if work.kind in ("upload", "share") or "upload-repo" in work.options:
            findings.append(found(work.by, "uploads a model to the Hub"))
    for url, command in scene.pushes:
        if any(host in url for host in HOSTS):
            findings.append(found(command, f"pushes to the Hub ({url.rpartition('@')[2][:80]})"))
    for name, keywords, command in scene.python:
        if name == "trust_remote_code":
            continue
        if name in ("update_repo_visibility", "update_repo_settings"):
            if keywords.get("private") is False or keywords.get("visibility") == "public":
                findings.append(found(command, "makes a repository public"))
        elif name == "create_repo":
            if keywords.get("private") is not True:
                findings.append(found(command, "creates a public repository"))
        else:
            findings.append(found(command, f"sends something to the Hub ({name})"))
    for run in scene.runs:
        name = run.argv[0].rpartition("/")[2]
        if name in ("hf", "huggingface-cli"):
            what = hub_command(run.argv[1:])
            if what:
                findings.append(found(" ".join(run.argv), what))
        elif name in ("curl", "wget", "http", "https", "xh") and sends(run.argv[1:]):
            findings.append(found(" ".join(run.argv), "sends something to the Hub"))
    return findings[:3]


def found(command: str, what: str) -> Finding:
    return Finding(
        ASK, RULE, f"{said(command)} {what}", "weights and data may be private, and others can copy what was public for a minute",
        "let the user confirm the repository and its visibility; nothing needs the Hub to train or to compare",
    )  # fmt: skip


def hub_command(words: list[str]) -> str:
    """What an hf command would change on the Hub; empty for downloads, logins and listings."""
    flags, values, operands = options(
        ["hf", *words], "", ("repo-type", "revision", "token", "commit-message", "type", "space-sdk", "private")
    )
    if not operands or flags & {"help", "h"}:
        return ""
    if operands[0] in UPLOADS:
        return "uploads to the Hub"
    if operands[0] in ("repo", "repos") and len(operands) > 1:
        if operands[1] == "create" and "private" not in flags:
            return "creates a public repository"
        if operands[1] in ("settings", "update", "visibility") and (
            "public" in flags or values.get("private", "").lower() in ("false", "0", "no") or "public" in operands
        ):
            return "makes a repository public"
        if operands[1] in ("delete", "move", "delete-files"):
            return "changes a repository on the Hub"
    if operands[0] in ("repo-files",) and "delete" in operands:
        return "deletes files on the Hub"
    return ""


def sends(words: list[str]) -> bool:
    """Whether an HTTP client sends a body to the Hub."""
    if not any(host in word for word in words for host in HOSTS):
        return False
    if any(word in ("-G", "--get", "-I", "--head") for word in words):
        return False
    methods = [words[k + 1].upper() for k, word in enumerate(words[:-1]) if word in ("-X", "--request")]
    methods += [word[2:].upper() for word in words if word[:2] == "-X" and len(word) > 2]
    methods += [word.upper() for word in words if word in ("POST", "PUT", "DELETE")]
    body = any(
        word
        in (
            "-T",
            "--upload-file",
            "-F",
            "--form",
            "-d",
            "--data",
            "--data-binary",
            "--data-raw",
            "--json",
            "--post-file",
            "--post-data",
        )
        or word.startswith(("--data", "--upload-file=", "--post-file=", "--body-file", "--form=", "-F", "-T", "-d@"))
        for word in words
    )
    return body or any(method in ("POST", "PUT", "DELETE", "PATCH") for method in methods)
