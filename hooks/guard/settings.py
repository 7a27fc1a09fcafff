"""What people may widen: `.claude/mlx-training.yaml` in the project and in the home folder.

protect: [weights/, corpora/gold.jsonl]   more paths that must not be deleted or overwritten
platforms: [linux-cpu]                    more platforms where MLX work may run
off: [hub]                                rules that don't apply here, by name
"""

from __future__ import annotations

from . import paths

NAME = "mlx-training.yaml"


class Settings:
    """The union of both files."""

    __slots__ = ("off", "platforms", "protect")

    def __init__(self) -> None:
        self.protect: list[str] = []
        self.platforms: list[str] = []
        self.off: set[str] = set()


def files(project: str) -> list[str]:
    return [paths.join(project, ".claude/" + NAME), paths.join(paths.home(), ".claude/" + NAME)]


def load(project: str) -> Settings:
    """Read both files; what can't be read is as if it weren't there."""
    settings = Settings()
    for path in files(project):
        text = paths.read_text(path)
        if text is None:
            continue
        lists = yaml_lists(text)
        base = project if path.startswith(project + "/") else paths.home()
        settings.protect += [
            paths.home() + each[1:] if each[:1] == "~" else paths.normal(each, base)
            for each in lists.get("protect", [])
        ]
        settings.platforms += lists.get("platforms", [])
        settings.off.update(lists.get("off", []))
    return settings


def yaml_lists(text: str) -> dict[str, list[str]]:
    """The part of YAML that such a file needs: `key: [a, b]`, `key: a`, and `- a` lines below a key."""
    lists: dict[str, list[str]] = {}
    key = ""
    for raw in text.split("\n"):
        line = raw.split(" #")[0].rstrip() if not raw.lstrip().startswith("#") else ""
        bare = line.strip()
        if not bare:
            continue
        if bare.startswith("- ") and key:
            lists[key].append(bare[2:].strip().strip("'\""))
        elif ":" in bare and line == bare:
            key, _, value = bare.partition(":")
            key = key.strip()
            value = value.strip()
            if value.startswith("["):
                value = value.strip("[]")
                lists[key] = [each.strip().strip("'\"") for each in value.split(",") if each.strip()]
            else:
                lists[key] = [value.strip("'\"")] if value else []
    return lists
