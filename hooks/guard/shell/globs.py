"""Globs against the real disk, and the matching of one name."""

from __future__ import annotations

from guard import paths

from .marks import BAR, LEFT, LPAREN, ONE, RIGHT, RPAREN, STAR, UNKNOWN, has_glob, plain
from .nodes import Limit

MAX_MATCHES = 10_000
MAX_NAMES = 24_000  # names that the globs of one call may look at; a folder counts for forty


class Looked:
    """How many names have been looked at; the gate sets it to 0 for each call."""

    names = 0


def names_in(folder: str) -> list[str]:
    found = paths.listing(folder)
    Looked.names += 40 + len(found)
    if Looked.names > MAX_NAMES:
        raise Limit("globs match too much")
    return found


def matches(name: str, pattern: str) -> bool:
    """Whether a name fits a pattern of marks; UNKNOWN fits any text. Linear in both (no backtracking blow-up)."""
    i = j = 0
    star = back = -1
    while i < len(name):
        c = pattern[j] if j < len(pattern) else ""
        if c in (STAR, UNKNOWN) and c:
            star, back = j, i
            j += 1
        elif c == LEFT and (end := pattern.find(RIGHT, j + 2)) > 0:
            if in_class(name[i], pattern[j + 1 : end]):
                i += 1
                j = end + 1
            elif star >= 0:
                back += 1
                i, j = back, star + 1
            else:
                return False
        elif c and (c == ONE or plain(c) == name[i]):
            i += 1
            j += 1
        elif star >= 0:
            back += 1
            i, j = back, star + 1
        else:
            return False
    return all(c in (STAR, UNKNOWN) for c in pattern[j:])


def in_class(char: str, body: str) -> bool:
    """`[a-z]`, `[!x]`, `[[:digit:]]` without the brackets."""
    body = plain(body)
    negated = body[:1] in ("!", "^")
    body = body[1:] if negated else body
    if body.startswith("[:"):
        name = body[2:].rstrip(":]")
        tests = {"digit": char.isdigit(), "alpha": char.isalpha(), "alnum": char.isalnum(), "lower": char.islower()}
        return tests.get(name, True) != negated
    k = 0
    while k < len(body):
        if k + 2 < len(body) and body[k + 1] == "-":
            if body[k] <= char <= body[k + 2]:
                return not negated
            k += 3
        else:
            if body[k] == char:
                return not negated
            k += 1
    return negated


def without_groups(pattern: str) -> str:
    """zsh qualifiers `*(N)` vanish; alternations `@(a|b)` become any text."""
    while LPAREN in pattern:
        start = pattern.index(LPAREN)
        end = pattern.find(RPAREN, start)
        if end < 0:
            break
        inner = pattern[start + 1 : end]
        if BAR in inner or pattern[start - 1 : start] in ("@", "+", "!", ONE, STAR):
            head = pattern[: start - 1] if start and pattern[start - 1] in "@+!" + ONE + STAR else pattern[:start]
            pattern = head + UNKNOWN + pattern[end + 1 :]
        else:
            pattern = pattern[:start] + pattern[end + 1 :]
    return pattern


def unknown(pattern: str) -> str:
    """A pattern that can't be looked up yet: what it leaves open becomes any text at all."""
    out = ""
    k = 0
    pattern = without_groups(pattern)
    while k < len(pattern):
        c = pattern[k]
        if c == LEFT:
            end = pattern.find(RIGHT, k + 2)
            k = end if end > 0 else k
        out += UNKNOWN if c in (STAR, ONE, LEFT) else c
        k += 1
    return out


def expand(pattern: str, cwd: str) -> list[str]:
    """The paths that match, written as the pattern is (relative stays relative); empty when nothing does."""
    pattern = without_groups(pattern)
    if not has_glob(pattern) and UNKNOWN not in pattern:
        return [plain(pattern)]
    parts = pattern.split("/")
    found = ["/"] if pattern.startswith("/") else [""]
    trailing = parts[-1] == "" and len(parts) > 1
    parts = [part for part in parts if part]
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        following: list[str] = []
        for prefix in found:
            if not has_glob(part) and UNKNOWN not in part:
                following.append(_add(prefix, plain(part)))
                continue
            if part == STAR + STAR or (UNKNOWN in part and last):
                following += _below(prefix, part, cwd, last)
                continue
            for name in names_in(paths.normal(prefix or ".", cwd)):
                if (name[0] != "." or part[0] in ".") and matches(name, part):
                    following.append(_add(prefix, name))
            if len(following) > MAX_MATCHES:
                break
        found = following[:MAX_MATCHES]
        if last:
            found = [path for path in found if paths.exists(paths.normal(path, cwd))]
        elif number:
            found = [path for path in found if paths.is_dir(paths.normal(path, cwd))]
    return [path + "/" for path in found] if trailing else found


def _add(prefix: str, name: str) -> str:
    return prefix + name if prefix in ("", "/") else prefix + "/" + name


def _below(prefix: str, part: str, cwd: str, last: bool) -> list[str]:
    """`**`: the folder itself and everything below, to a depth and a number."""
    out = [] if last else [prefix]
    todo = [(prefix, 0)]
    while todo and len(out) < MAX_MATCHES:
        folder, depth = todo.pop(0)
        for name in names_in(paths.normal(folder or ".", cwd)):
            path = _add(folder, name)
            if name[0] == "." or (part != STAR + STAR and depth == 0 and not matches(name, part)):
                continue
            is_folder = paths.is_dir(paths.normal(path, cwd))
            if is_folder and depth < 6 and part == STAR + STAR:
                todo.append((path, depth + 1))
            if last or is_folder:
                out.append(path)
    return out
