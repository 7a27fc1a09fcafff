"""Which rows go where: as the source has them, else whole groups by seed. Nothing like a training row is ever measured on."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

KEPT = ("test", "valid")  # splits that keep a source's rows; of a row that is in both, the first has it
DRAWN = len(KEPT)  # the rank of all other rows, from which train and what is missing is drawn
NAMES = {  # the words that the library datasets knows
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
# "test", "gsm8k_test", "test_data", "dev-v2.0", and a part of several: "test-00000-of-00002-0a1b2c".
_NAMED = re.compile(
    rf"(?:.*[-_. ])?({'|'.join(NAMES)})(?:[-_. ]?(?:data|set|split))?(?:[-_.]v?\d+(?:\.\d+)*(?:-of-\d+(?:-\w+)?)?)?",
    re.IGNORECASE,
)


def split_named(name: str) -> str | None:
    """The split that a file (without its ending), a folder or a list is named for: train, valid, test, or None."""
    found = _NAMED.fullmatch(name)
    return None if found is None else NAMES[found[1].lower()]


def rank_of(split: str | None) -> int:
    """The lower, the firmer a row's place: ``DRAWN`` for a row of train or of no split."""
    return KEPT.index(split) if split in KEPT else DRAWN


def assign(sizes: Mapping[int, int], *, valid: float, test: float, seed: int) -> dict[int, str]:
    """Group → "train", "valid" or "test". ``sizes``: rows of each group, in the order of their first rows.

    Shares are met as nearly as whole groups allow, never exceeded by more than half a row, and every split that is asked
    for gets a group as long as there are enough. A group larger than a split's remaining room goes to train.
    """
    order = list(sizes)
    random.Random(seed).shuffle(order)
    total = sum(sizes.values())
    wanted = {name: max(1, round(share * total)) for name, share in (("test", test), ("valid", valid)) if share > 0}
    room = dict(wanted)
    assigned: dict[int, str] = {}
    for group in order:
        name = next((name for name, left in room.items() if sizes[group] <= left), "train")
        assigned[group] = name
        if name in room:
            room[name] -= sizes[group]
    _fill_empty(assigned, order, sizes, list(wanted))
    return assigned


def _fill_empty(assigned: dict[int, str], order: list[int], sizes: Mapping[int, int], wanted: list[str]) -> None:
    """Give train, and then each wanted split, the smallest group of a split that has several, if it has none itself.

    A single group goes to train.
    """
    for name in ["train", *reversed(wanted)]:
        if name in assigned.values():
            continue
        fewest = 1 if name == "train" else 2
        held = [[group for group in order if assigned[group] == donor] for donor in ("train", "valid", "test")]
        groups = next((groups for groups in held if len(groups) >= max(fewest, 2)), None)
        groups = groups or next((groups for groups in held if len(groups) >= fewest), None)
        if groups:
            assigned[min(groups, key=lambda group: sizes[group])] = name
