"""Which rows go where: whole groups, by seed, so that nothing like a training row is ever measured on."""

from __future__ import annotations

import random
from collections.abc import Mapping


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
    """Give each wanted split that is empty the smallest group of train, and train one if it has none."""
    for name in ["train", *reversed(wanted)]:
        if name in assigned.values():
            continue
        donor = "train" if name != "train" else ("test" if "test" in assigned.values() else "valid")
        groups = [group for group in order if assigned[group] == donor]
        enough = len(groups) > 1 or name == "train"
        if enough and groups:
            assigned[min(groups, key=lambda group: sizes[group])] = name
