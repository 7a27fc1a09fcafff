"""What Apple says of its chips, as far as planning needs it."""

from __future__ import annotations

import re

from pydantic import BaseModel

# Peak 32-bit TFLOPS of one GPU core by generation: Apple's and third parties' published totals divided by the cores
# (M1 2.6/8, M2 3.6/10, M3 4.1/10, M4 4.6/10). Nothing of this was measured here; it serves rough times alone.
_TFLOPS_PER_CORE = {1: 0.325, 2: 0.36, 3: 0.41, 4: 0.46}
_CORES = {"": 8, "Pro": 16, "Max": 32, "Ultra": 60}


class Chip(BaseModel, frozen=True):
    """An Apple chip: M3 Max is generation 3, variant "Max"."""

    generation: int
    variant: str

    def gpu_cores(self) -> int:
        """About how many GPU cores such a chip has, where the machine does not say."""
        return _CORES[self.variant]

    def tflops(self, gpu_cores: int | None) -> float:
        """Published peak, 32-bit TFLOPS; a newer generation than the table knows counts as the newest."""
        known = _TFLOPS_PER_CORE[min(self.generation, max(_TFLOPS_PER_CORE))]
        return known * (gpu_cores or self.gpu_cores())


def parse(name: object) -> Chip | None:
    """From ``machdep.cpu.brand_string`` ("Apple M3 Max"); None for anything else."""
    found = re.search(r"\bApple M(\d+)(?:\s+(Pro|Max|Ultra))?\b", str(name))
    return Chip(generation=int(found[1]), variant=found[2] or "") if found and int(found[1]) > 0 else None


def working_set_bytes(memory_bytes: int) -> int:
    """What Metal advises one process to use (``recommendedMaxWorkingSetSize``), where it can't be asked.

    Macs report two thirds of the memory up to 32 GB and three quarters above (seen in users' logs, not measured here).
    """
    return int(memory_bytes * (2 / 3 if memory_bytes <= 34 * 2**30 else 3 / 4))
