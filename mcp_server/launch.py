"""Run a module of this very package in any interpreter: ``python -P .../mcp_server/launch.py MODULE [ARGUMENT ...]``.

The worker's interpreter need not have mlx-training installed, and putting the server's site-packages on its path would
shadow its own libraries. So only the package ``mcp_server`` is made importable, from the folder this file lies in.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path


def _make_importable() -> None:
    package = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "mcp_server", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mcp_server"] = module
    spec.loader.exec_module(module)


def command(python: Path | str, module: str, *arguments: str) -> list[str]:
    """The command line that runs ``module`` of this package in ``python``."""
    return [str(python), "-P", str(Path(__file__).resolve()), module, *arguments]


if __name__ == "__main__":
    _make_importable()
    name = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
