"""What SECURITY.md says of this code's own text: no shell strings, nothing unpickled, no upload, no code taken from data."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = [file for folder in ("mcp_server", "hooks", "scripts") for file in sorted((ROOT / folder).rglob("*.py"))]
UNPICKLING = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "torch", "pandas"}
SHELLS = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn",
    "asyncio.create_subprocess_shell", "anyio.run_process",  # anyio's takes a string for a shell
}  # fmt: skip
UPLOADS = {"push_to_hub", "upload_file", "upload_folder", "upload_large_folder", "create_repo", "create_commit"}
# An own metric, behind its flag; and the launcher, which takes modules from this package's folder alone.
RUNS_CODE = {
    "mcp_server/evaluation/metrics.py": ["runs code: spec.loader.exec_module"],
    "mcp_server/launch.py": ["runs code: spec.loader.exec_module", "runs code: runpy.run_module"],
}


def found_in(source: str) -> list[str]:
    """What of ``source`` breaks a promise."""
    return [what for node in ast.walk(ast.parse(source)) for what in _broken(node)]


def _broken(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        absolute = isinstance(node, ast.Import) or node.level == 0
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        yield from (f"imports {name}" for name in names if absolute and name.split(".")[0] in UNPICKLING)
    if not isinstance(node, ast.Call):
        return
    called = ast.unparse(node.func)
    last = called.split(".")[-1]
    if called in SHELLS:
        yield f"calls {called}"
    if called in ("eval", "exec", "runpy.run_path", "runpy.run_module") or last == "exec_module":
        yield f"runs code: {called}"
    if last in UPLOADS:
        yield f"uploads: {called}"
    if called in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load") and "_Loader" not in ast.unparse(
        node
    ):
        yield f"yaml without a safe loader: {called}"
    for keyword in node.keywords:
        value = ast.unparse(keyword.value)
        if keyword.arg in ("shell", "allow_pickle", "trust_remote_code", "upload_repo") and value not in (
            "False",
            "None",
        ):
            yield f"{keyword.arg}={value}"


def test_no_shell_no_pickle_no_upload_and_no_foreign_code():
    broken = {str(file.relative_to(ROOT)): found_in(file.read_text(encoding="utf-8")) for file in OURS}
    found = {file: what for file, what in broken.items() if what}
    assert found == RUNS_CODE


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from torch import load", "os.system('ls')", "subprocess.run('ls', shell=True)",
        "numpy.load(file, allow_pickle=True)", "api.upload_folder(x)", "eval(text)", "yaml.load(text)",
        "load(model, trust_remote_code=True)", "load(model, trust_remote_code=options.trust)",
    ],
)  # fmt: skip
def test_a_broken_promise_would_be_seen(line: str):
    assert len(found_in(line)) == 1


def test_every_test_that_the_policy_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.M)
    ]
    assert missing == []


def test_the_yaml_loader_builds_plain_data_alone():
    from yaml import SafeLoader

    from mcp_server.training import config

    assert issubclass(config._Loader, SafeLoader)  # pyright: ignore[reportPrivateUsage]
