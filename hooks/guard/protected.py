"""What a path really is: an adapter, a checkpoint, a model, a data set, a job folder, the Hub's cache."""

from __future__ import annotations

import time

from . import paths, shared
from .shell.nodes import Wide

MAX_FOUND = 8
MAX_LOOKED = 200_000  # names that all searches of one call may look at together
MAX_SECONDS = 2
DATA_FILES = frozenset(("train.jsonl", "valid.jsonl", "test.jsonl"))
WEIGHTS = (".safetensors", ".gguf", ".npz", ".mlpackage")
MAYBE_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".npz")
MARKS = (*WEIGHTS, *MAYBE_WEIGHTS, "adapter_config.json")  # of a folder in which each name is looked at
MODEL_FILES = frozenset(
    ("config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "generation_config.json", "vocab.json",
     "merges.txt", "special_tokens_map.json", "chat_template.jinja", "model.safetensors.index.json")
)  # fmt: skip
SKIPPED = frozenset((".git", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".tox"))
LABELS = {
    "adapter": "the trained adapter",
    "checkpoint": "the training checkpoint",
    "model": "the model",
    "data": "the data set",
    "job": "the state of training jobs",
    "cache": "the Hugging Face cache",
    "extra": "the path that your settings protect",
}


def named(name: str) -> bool:
    """Whether a file's name alone says what it is."""
    lowered = name.lower()
    return lowered in DATA_FILES or lowered == "adapter_config.json" or lowered.endswith(WEIGHTS[:2])


class Thing:
    """One protected file or folder that is really there."""

    __slots__ = ("kind", "path")

    def __init__(self, kind: str, path: str) -> None:
        self.kind = kind
        self.path = path

    @property
    def label(self) -> str:
        return LABELS[self.kind]


class Protected:
    """Answers questions about paths, for one project and its settings."""

    def __init__(self, cwd: str, extra: list[str]) -> None:
        self.cwd = cwd
        self.looked = 0
        self.until = 0.0
        self._below: dict[tuple[str, int], list[Thing]] = {}
        self.extra = [paths.real(path) for path in extra]
        self.jobs = paths.real(paths.normal(shared.home(), cwd))
        self.cache = paths.real(paths.hub_cache())

    def file(self, path: str) -> Thing | None:
        """What one real path is, by its place, its name and its neighbours."""
        for extra in self.extra:
            if paths.inside(path, extra):
                return Thing("extra", path)
        if paths.inside(path, self.jobs):
            return Thing("job", path)
        if paths.inside(path, self.cache):
            return Thing("cache", path)
        name = paths.base(path).lower()
        if name in DATA_FILES:
            return Thing("data", path)
        folder = paths.parent(path)
        if name.endswith(WEIGHTS) and not (name.endswith(".npz") and not self.weights_folder(folder, name)):
            if "adapter" in name:
                return Thing("checkpoint" if name[:7].isdigit() else "adapter", path)
            beside = "adapter" if paths.exists(paths.join(folder, "adapter_config.json")) else "model"
            return Thing("checkpoint" if "checkpoint" in path[len(self.cwd) :].lower() else beside, path)
        if name == "adapter_config.json":
            return Thing("adapter", path)
        if name.endswith(MAYBE_WEIGHTS) and self.weights_folder(folder, name):
            return Thing("model", path)
        if name in MODEL_FILES and any(
            each.endswith((".safetensors", ".gguf", ".npz")) for each in paths.listing(folder)
        ):
            return Thing("adapter" if paths.exists(paths.join(folder, "adapter_config.json")) else "model", path)
        return None

    def weights_folder(self, folder: str, name: str) -> bool:
        """Whether an ambiguous file (`.bin`, `.npz`) lies where weights lie."""
        if name.startswith(("pytorch_model", "adapter", "weights", "model", "consolidated")):
            return True
        return paths.exists(paths.join(folder, "config.json")) or paths.exists(
            paths.join(folder, "adapter_config.json")
        )

    def below(self, folder: str, limit: int = MAX_FOUND) -> list[Thing]:
        """The protected things that go when a folder goes, up to a number: breadth first.

        Raises:
            Wide: nothing was found in what could be searched, and there is more.
        """
        known = self._below.get((folder, limit))
        if known is None:
            known = self._below[folder, limit] = self.search(folder, limit)
        return known

    def search(self, folder: str, limit: int) -> list[Thing]:
        self.until = self.until or time.monotonic() + MAX_SECONDS
        roots = [folder]
        if paths.inside(self.cwd, folder) and self.cwd != folder:
            roots.insert(0, self.cwd)  # the project first: an ancestor may be too wide to search
        found: list[Thing] = []
        for root in (self.jobs, self.cache, *self.extra):
            if paths.inside(root, folder) and paths.exists(root):
                kind = "job" if root == self.jobs else "cache" if root == self.cache else "extra"
                found.append(Thing(kind, root))
            elif paths.inside(folder, root) and folder != root:
                found.append(Thing("job" if root == self.jobs else "cache" if root == self.cache else "extra", folder))
        for root in roots:
            if found and root != roots[0]:
                break
            todo = [] if paths.base(root) in SKIPPED else [root]
            for here in todo:
                if len(found) >= limit:
                    break
                entries = paths.entries(here)
                self.looked += 5 + len(entries)
                if self.looked > MAX_LOOKED or time.monotonic() > self.until:
                    if found:
                        return found
                    raise Wide("too many folders would have to be searched")
                lowered = {name.lower() for name, _ in entries}
                marked = not lowered.isdisjoint(DATA_FILES) or any(name.endswith(MARKS) for name in lowered)
                for name, is_folder in entries:
                    if marked and (thing := self.file(paths.join(here, name))) and len(found) < limit:
                        found.append(thing)
                    elif is_folder and name not in SKIPPED:
                        todo.append(paths.join(here, name))
        return found

    def at(self, path: str, tree: bool) -> list[Thing]:
        """The protected things that go when a real path goes."""
        if paths.is_dir(path) and not paths.is_link(path):
            return self.below(path) if tree else []
        thing = self.file(path) if paths.exists(path) else None
        return [thing] if thing else []

    def holds_weights(self, folder: str) -> bool:
        """Whether a folder is itself an adapter or a model."""
        return any(
            name.lower().endswith((".safetensors", ".gguf")) or name == "adapter_config.json"
            for name in paths.listing(folder)
        )
