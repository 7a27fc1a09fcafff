"""The python command line: which code it would run, from -c, -m, a file or standard input."""

from __future__ import annotations

from guard import paths

from . import mlx
from .commands import Call

DONE = (None, None)
CODE_LIMIT = 200_000


def handle(call: Call) -> tuple[str | None, bool | None] | None:
    words = call.argv[1:]
    k = 0
    while k < len(words) and words[k][:1] == "-" and len(words[k]) > 1:
        word = words[k]
        if word in ("-W", "-X", "-Q", "--check-hash-based-pycs"):
            k += 2
            continue
        if word[:2] == "--":
            k += 1
            continue
        if word in ("-V", "-h", "-VV"):
            return DONE
        for number, letter in enumerate(word[1:], 1):
            if letter == "c":
                code = word[number + 1 :] or "".join(words[k + 1 : k + 2])
                return read(call, code, ["-c", *words[k + 2 :]], "")
            if letter == "m":
                module = word[number + 1 :] or "".join(words[k + 1 : k + 2])
                return run_module(call, module, words[k + 2 :])
            if letter in "WX":
                break
        k += 1
    rest = words[k:]
    if not rest or rest[0] in ("-", "/dev/stdin"):
        return read(call, call.stdin, ["-", *rest[1:]], "")
    folder = paths.normal(rest[0], call.state.cwd)
    script = rest[0] + "/__main__.py" if paths.is_dir(folder) else rest[0]
    return read(call, call.scene.read(script, call.state), rest, script)


def read(call: Call, code: str | None, argv: list[str], script: str) -> tuple[str | None, bool | None]:
    """Walk Python code when it can be read."""
    if not code:
        return DONE
    call.scene.codes.append(("python", code))
    if len(code) > CODE_LIMIT:
        return DONE
    from .python_code import PythonWalk

    return PythonWalk(call, argv, script).text(code), None


def run_module(call: Call, module: str, rest: list[str]) -> tuple[str | None, bool | None] | None:
    if module.startswith(mlx.PACKAGES):
        return mlx.module_run(call, module, rest)
    if module.startswith("huggingface_hub"):
        return call.run(["hf", *rest])
    if module in (
        "cProfile",
        "coverage",
        "trace",
        "pdb",
        "memory_profiler",
        "scalene",
        "debugpy",
        "kernprof",
        "runpy",
        "torch.distributed.run",
    ):
        rest = [word for word in rest if word != "run"] if module == "coverage" else rest
        while rest and rest[0][:1] == "-" and rest[0] != "-m":
            rest = rest[2:] if rest[0] in ("-o", "-s") else rest[1:]
        return call.run(["python3", *rest]) if rest else None
    if module == "json.tool" and len([word for word in rest if word[:1] != "-"]) > 1:
        target = [word for word in rest if word[:1] != "-"][1]
        call.touch("overwrite", target).follow = True
        return DONE
    if module in ("tarfile", "zipfile") and rest[:1] in (["-e"], ["--extract"]):
        call.touch("unpack", rest[2] if len(rest) > 2 else ".").to = (
            paths.normal(rest[1], call.state.cwd) if rest[1:] else ""
        )
        return DONE
    if module in ("pip", "venv", "pytest", "unittest", "http.server", "json.tool", "ruff", "mypy", "black"):
        return DONE
    path = module.replace(".", "/")
    for candidate in (path + ".py", path + "/__main__.py", "src/" + path + ".py"):
        text = call.scene.read(candidate, call.state)
        if text is not None:
            return read(call, text, [candidate, *rest], candidate)
    return DONE
