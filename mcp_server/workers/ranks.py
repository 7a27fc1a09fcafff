"""The ranks of a training as one of them sees the others. Alone, every question is answered at once and costs nothing.

What is asked here must be asked by every rank, in the same order: an answer comes when all have asked. Everything is a sum of
32-bit integers on the engine's own stream, which every engine has: NCCL sums on a GPU alone, and not all add bytes.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mcp_server.jobs.world import ENGINE, World
from mcp_server.workers.tokens import to_device

_CONNECT_SECONDS = 180  # the others may have to be woken up; then something is wrong
_PIECE = 16 * 2**20  # bytes sent at once


class Ranks:
    """This process among ``size``; ``number`` 0 leads."""

    def __init__(self, number: int = 0, size: int = 1) -> None:
        self.number, self.size = number, size

    @classmethod
    def join(cls, world: World | None) -> Ranks:
        """Meet the others of ``world``, if there are any. Raises RuntimeError when they can't be met."""
        if world is None:
            return cls()
        # Waiting for a connection, mlx listens to nothing and holds Python's lock: only the system can end it.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_CONNECT_SECONDS)
        while True:
            try:
                group = mx.distributed.init(strict=True, backend=os.environ[ENGINE])
                break
            except RuntimeError as error:
                # A ring's last rank calls rank 0 before all else. It gives up after 15 s; rank 0 may still be starting.
                last = int(os.environ["MLX_RANK"]) == world.size - 1
                if not (last and world.engine == "ring" and "Couldn't connect" in str(error)):
                    raise
        signal.alarm(0)
        _sum_where_the_engine_can()
        return cls(group.rank(), group.size())

    @property
    def leads(self) -> bool:
        return self.number == 0

    def any(self, holds: bool) -> bool:
        """Whether it holds on some rank."""
        return self.largest(int(holds)) > 0

    def largest(self, value: int) -> int:
        """The largest of all ranks' values."""
        if self.size == 1:
            return value
        own = np.zeros((self.size, 8), np.int32)
        own[self.number] = np.frombuffer(np.int64(value).tobytes(), np.uint8)
        return int(_sum(own).view(np.int64).max())

    def first(self, value: float) -> float:
        """Rank 0's value, so that all decide alike to the last bit."""
        if self.size == 1:
            return value
        # As bytes: adding is exact for a float only in 32 bits, and what is a double here must stay one.
        sent = np.frombuffer(np.float64(value).tobytes(), dtype=np.uint8)
        return float(np.frombuffer(self._from_first(sent, sent.size).tobytes(), dtype=np.float64)[0])

    def folder(self, source: Path | None, into: Path) -> Path | None:
        """Rank 0's folder ``source``, on the others as a copy in ``into`` under its name; None when rank 0 has none.

        The others may have no common disk with rank 0.
        """
        if self.size == 1:
            return source
        files = sorted(file for file in source.iterdir() if file.is_file()) if self.leads and source else []
        count = self.largest(len(files) if self.leads else 0)
        if not count:
            return None
        name = self._bytes(source.name.encode() if source is not None else b"").decode()
        target = into / name
        if not self.leads:
            target.mkdir(parents=True, exist_ok=True)
        for at in range(count):
            own = self._bytes(files[at].name.encode() if self.leads else b"").decode()
            content = self._bytes(files[at].read_bytes() if self.leads else b"")
            if not self.leads:
                (target / own).write_bytes(content)
        return source if self.leads else target

    def _bytes(self, content: bytes) -> bytes:
        size = self.largest(len(content) if self.leads else 0)
        pieces: list[bytes] = []
        for at in range(0, size, _PIECE):
            width = min(_PIECE, size - at)
            piece = np.frombuffer(content[at : at + width], dtype=np.uint8)
            pieces.append(self._from_first(piece, width).tobytes())
        return b"".join(pieces)

    def _from_first(self, content: np.ndarray[Any, np.dtype[np.uint8]], size: int) -> np.ndarray[Any, Any]:
        """Rank 0's bytes; what is added to them by the others is zeros."""
        return _sum(content.astype(np.int32) if self.leads else np.zeros(size, np.int32))


def _sum(own: np.ndarray[Any, np.dtype[np.int32]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Bytes, of each of which one rank has the value and the others zero."""
    return np.array(mx.distributed.all_sum(to_device(own))).astype(np.uint8)


def _sum_where_the_engine_can() -> None:
    """mlx-lm's trainer asks for sums on the CPU's stream, where NCCL has none: let the engine choose, as for gradients."""
    all_sum = mx.distributed.all_sum

    def chosen(x: mx.array, *, group: Any = None, **_: Any) -> mx.array:
        return all_sum(x, group=group)

    mx.distributed.all_sum = chosen
