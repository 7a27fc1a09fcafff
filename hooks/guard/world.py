"""Everything a policy may ask about one tool call; costly answers are found on first use and kept."""

from __future__ import annotations

from . import paths
from .effects.scene import Scene
from .protected import Protected, Thing, named
from .settings import Settings
from .shell.marks import UNKNOWN
from .shell.nodes import Limit, Wide

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
        self.scene.weighs = self.weighs
        self.scene.protected = lambda folder: [thing.path for thing in self.protected.below(paths.real(folder), 500)]
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

            known = path.lstrip(UNKNOWN)
            head, _, rest = path.partition(UNKNOWN)
            if not any(c.isalnum() for c in (rest if not head or paths.is_temporary(head) else path)):
                path = ""  # nothing that is known names anything
            elif not head:
                path = paths.join(self.cwd, known) if known[:1] == "/" else ""
            candidates = globs.expand(path, "/") if path else []
            if path and not head and touch.op == "delete" and named(paths.base(known)):
                try:
                    things = self.protected.below(self.cwd, 200)
                except Wide:
                    things = []
                candidates += [thing.path for thing in things if globs.matches(thing.path, UNKNOWN + known)]
        follow = touch.follow or slash
        out = [paths.real(candidate, follow) for candidate in candidates]
        self._targets[id(touch)] = out
        return out

    def things(self, touch: Touch) -> list[Thing]:
        """The protected things that a deletion reaches."""
        found = []
        try:
            for path in self.targets(touch):
                found += self.protected.at(path, touch.tree)
            for path in touch.held if touch.tree or touch.op == "empty" else []:
                found += self.protected.at(paths.real(path, False), True)
        except Wide as error:
            if UNKNOWN in touch.path:  # a guess alone
                raise Limit(str(error)) from None
            raise
        return found

    def weighs(self, path: str) -> bool:
        """Whether a path is protected, or a folder that holds such a thing."""
        try:
            return bool(self.protected.at(paths.real(path), True))
        except Wide:
            return True

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
