"""Signals: kill, pkill, killall, and the programs whose output feeds them."""

from __future__ import annotations

from guard.shell.marks import UNKNOWN

from .commands import Call, options

DONE = ("", None)
# A word that stands for process ids which only the machine knows, written so that it survives pipes and words.
PIDS_OF = "pids-of:"
SIGNALS = {
    "0": "0",
    "1": "HUP",
    "2": "INT",
    "3": "QUIT",
    "9": "KILL",
    "15": "TERM",
    "17": "STOP",
    "18": "CONT",
    "19": "STOP",
    "20": "TSTP",
}


def handle(call: Call) -> tuple[str | None, bool | None] | None:
    name = call.name
    if name in ("kill", "skill"):
        return kill(call)
    if name in ("pkill", "killall"):
        return by_name(call)
    if name in ("pgrep", "pidof"):
        return pids(call)
    if name in ("lsof", "fuser"):
        return files(call)
    if name == "ps":
        return None, None
    if name == "launchctl":
        words = call.argv[1:]
        if words[:1] in (["kill"], ["stop"], ["bootout"], ["remove"], ["unload"]):
            call.kill("pattern", words[-1], "TERM")
        return DONE
    return None


def signal_name(word: str) -> str:
    word = word.upper()
    word = word[3:] if word.startswith("SIG") else word
    return SIGNALS.get(word, word)


def kill(call: Call) -> tuple[str | None, bool | None]:
    words = call.argv[1:]
    signal = "TERM"
    targets = []
    k = 0
    while k < len(words):
        word = words[k]
        if word in ("-l", "-L", "--list", "--table") and k == 0:
            return DONE
        if word in ("-s", "-n", "--signal") and k + 1 < len(words):
            signal = signal_name(words[k + 1])
            k += 1
        elif word.startswith("--signal="):
            signal = signal_name(word[9:])
        elif word == "--":
            targets += words[k + 1 :]
            break
        elif word[:1] == "-" and k == 0 and len(words) != 1:
            signal = signal_name(word[1:])
        else:
            targets.append(word)
        k += 1
    for target in targets:
        send(call, target, signal)
    return DONE


def send(call: Call, target: str, signal: str) -> None:
    if target.lstrip("-").startswith(PIDS_OF):
        how, _, pattern = target.lstrip("-")[len(PIDS_OF) :].partition(":")
        call.kill(how, pattern, signal)
    else:
        call.kill("pid", target.strip(), signal)


def by_name(call: Call) -> tuple[str | None, bool | None]:
    """pkill PATTERN, killall NAME."""
    signal = "TERM"
    words = []
    for word in call.argv[1:]:
        if word[:1] == "-" and (word[1:].isdigit() or (word[1:].isupper() and len(word) > 2) or word[1:4] == "SIG"):
            signal = signal_name(word[1:])
        else:
            words.append(word)
    flags, values, operands = options(
        ["pkill", *words],
        "guUGPtsyFcC" if call.name == "pkill" else "ouysncgtZ",
        ("signal", "pidfile", "group", "parent"),
    )
    if values.get("signal") or (call.name == "killall" and values.get("s")):
        signal = signal_name(values.get("signal") or values["s"])
    if flags & {"l", "list", "L"} and call.name == "killall":
        return DONE
    full = bool(flags & {"f", "full"})
    exact = bool(flags & {"x", "exact"})
    for target in operands:
        if call.name == "killall":
            call.kill("pattern-name" if flags & {"r", "regexp", "m"} else "name", target, signal)
        else:
            call.kill(
                ("full" if full else "pattern-name") if not exact else ("full-exact" if full else "name"),
                target,
                signal,
            )
    if not operands and values.get("g"):
        call.kill("pid", "-" + values["g"], signal)
    if not operands and values.get("P"):
        call.kill("children", values["P"], signal)
    if not operands and (values.get("F") or values.get("pidfile")):
        text = call.scene.read(values.get("F") or values["pidfile"], call.state)
        call.kill("pid", (text or UNKNOWN).strip(), signal)
    if not operands and values.get("u"):
        call.kill("user", values["u"], signal)
    return DONE


def pids(call: Call) -> tuple[str | None, bool | None]:
    """pgrep prints what the machine knows: a word that `kill` turns back into the pattern."""
    flags, _values, operands = options(call.argv, "gPtuUGsd")
    if not operands:
        return None, None
    how = "name" if call.name == "pidof" or "x" in flags else "full" if flags & {"f", "full"} else "pattern-name"
    return PIDS_OF + how + ":" + operands[0].replace(" ", ".") + "\n", None


def files(call: Call) -> tuple[str | None, bool | None]:
    """lsof -t FILE prints the users of a file; fuser -k kills them."""
    flags, values, operands = options(call.argv, "icupsgd")
    if call.name == "fuser":
        if "k" in flags:
            for path in operands:
                if "/tcp" not in path:
                    call.kill("files", path, "KILL")
        return (PIDS_OF + "files:" + operands[0] if operands else None), None
    if "i" in values or any(word.startswith(("-i", "-ti")) for word in call.argv):
        return None, None
    named = [word.lstrip("+D").strip() for word in call.argv[1:] if word[:1] != "-"]
    named = [word for word in named if word]
    return (PIDS_OF + "files:" + named[-1] if named else "") + "\n", None
