"""Run a module of this very package in any interpreter: ``python -P .../mcp_server/launch.py MODULE [ARGUMENT ...]``.

The worker's interpreter need not have mlx-training installed, and putting the server's site-packages on its path would
shadow its own libraries. So only the package ``mcp_server`` is made importable, from the folder this file lies in.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
import threading
from importlib.machinery import FileFinder, SourceFileLoader
from pathlib import Path
from types import CodeType

_PACKAGE = Path(__file__).resolve().parent
# What a process of ours is not given of the user's environment: it is not theirs to know.
_PRIVATE = ("ANTHROPIC_", "CLAUDE_CODE_", "CLAUDECODE")


class _Loader(SourceFileLoader):
    """Keeps our byte code in the plugin's data folder: the plugin's root is not ours to write into.

    For our modules alone: what uv has compiled beside the libraries goes on being used.
    """

    _switching = threading.Lock()

    def get_code(self, fullname: str) -> CodeType | None:
        data = os.environ.get("CLAUDE_PLUGIN_DATA")
        if not data:
            return super().get_code(fullname)
        with self._switching:
            before = sys.pycache_prefix, sys.dont_write_bytecode
            sys.pycache_prefix, sys.dont_write_bytecode = str(Path(data) / "bytecode"), False
            try:
                return super().get_code(fullname)
            finally:
                sys.pycache_prefix, sys.dont_write_bytecode = before


def _finder(folder: str) -> FileFinder:
    if not Path(folder).is_relative_to(_PACKAGE):
        raise ImportError(f"{folder} is no folder of this package")
    return FileFinder(folder, (_Loader, [".py"]))


def _make_importable() -> None:
    sys.path_hooks.insert(0, _finder)
    file = str(_PACKAGE / "__init__.py")
    spec = importlib.util.spec_from_file_location(
        "mcp_server", file, loader=_Loader("mcp_server", file), submodule_search_locations=[str(_PACKAGE)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mcp_server"] = module
    spec.loader.exec_module(module)


def command(python: Path | str, module: str, *arguments: str) -> list[str]:
    """The command line that runs ``module`` of this package in ``python``."""
    return [str(python), "-P", str(Path(__file__).resolve()), module, *arguments]


def environment() -> dict[str, str]:
    """The user's environment less what is Claude Code's own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_PRIVATE)}


if __name__ == "__main__":
    _make_importable()
    name = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
