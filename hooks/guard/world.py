"""Everything a policy may ask about one tool call; costly answers are found on first use and kept."""

from __future__ import annotations

from . import paths
from .effects.scene import Scene
from .protected import Protected, Thing
from .settings import Settings
from .shell.marks import UNKNOWN

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from .effects.scene import Touch
    from .jobs import Training


class World:
    """One tool call: for Bash `scene` is what the walk found; for file tools `file` is the path and `old`, `new` its texts."""

    def __init__(self, text: str, cwd: str, project: str, settings: Settings) -> None:
        self.text = text
        self.cwd = cwd
        self.project = project
        self.settings = settings
        self.protected = Protected(cwd, settings.protect)
        self.scene = Scene(cwd)  # empty for file tools
        self.tool = "Bash"
        self.file = ""
        self.old = ""
        self.new = ""
        self.pieces: list[str] = []  # the texts that a file tool puts in
        self._targets: dict[int, list[str]] = {}
        self._trainings: list[Training] | None = None

    def targets(self, touch: Touch) -> list[str]:
        """The real paths that a touch reaches now: links resolved, case folded, unknown parts tried on the disk."""
        known = self._targets.get(id(touch))
        if known is not None:
            return known
        path = touch.path
        slash = path.endswith("/") and len(path) > 1
        candidates = [path]
        if UNKNOWN in path:
            from .shell import globs

            bare = path.lstrip(UNKNOWN)
            if path.startswith(UNKNOWN):
                path = self.cwd + bare if bare.startswith("/") and bare.strip("/") else ""
            candidates = globs.expand(path, "/") if path.strip("/" + UNKNOWN) else []
        follow = touch.follow or slash
        out = [paths.real(candidate, follow) for candidate in candidates]
        self._targets[id(touch)] = out
        return out

    def things(self, touch: Touch) -> list[Thing]:
        """The protected things that a deletion reaches."""
        found = []
        for path in self.targets(touch):
            found += self.protected.at(path, touch.tree)
        for path in touch.held if touch.tree or touch.op == "empty" else []:
            found += self.protected.at(paths.real(path, False), True)
        return found

    def starts(self, names: frozenset[str]) -> bool:
        """Whether some program of these names would start."""
        return any(run.argv[0].rpartition("/")[2] in names for run in self.scene.runs)

    def says(self, word: str) -> bool:
        """Whether a word stands in the command, as written or in what its quotes and variables come to."""
        return word in self.text.lower() or any(word in each.lower() for run in self.scene.runs for each in run.argv)

    def trainings(self) -> list[Training]:
        """The jobs that run now."""
        if self._trainings is None:
            from . import jobs

            self._trainings = jobs.running()
        return self._trainings
