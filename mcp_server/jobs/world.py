"""The processes (ranks) of one training that runs in several, and how MLX's distributed engine is told of them.

What ``mlx.launch`` of mlx 0.32 sets is set here (read in ``mlx/_distributed_utils/launch.py``); the launcher itself is not
used: it ends with code 0 whatever its ranks did, leaves them behind when it is killed, and fails with one rank.

    ring    MLX_RANK, MLX_HOSTFILE: a JSON file, one list of "ip:port" a rank
    jaccl   MLX_RANK, MLX_IBV_DEVICES: a JSON file, one row of RDMA devices a rank; MLX_JACCL_COORDINATOR: rank 0's "ip:port"
    nccl    MLX_RANK, MLX_WORLD_SIZE, NCCL_HOST_IP and NCCL_PORT of rank 0; one GPU a rank
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

Engine = Literal["ring", "jaccl", "nccl"]
# Of the environment of the user or of another rank: one process alone must never wait for others because of these.
ENGINE_VARIABLES = frozenset(
    {
        "MLX_RANK",
        "MLX_HOSTFILE",
        "MLX_IBV_DEVICES",
        "MLX_JACCL_COORDINATOR",
        "MLX_JACCL_RING",
        "MLX_WORLD_SIZE",
        "NCCL_HOST_IP",
        "NCCL_PORT",
    }
)
_GPUS = "CUDA_VISIBLE_DEVICES"
RANK, ENGINE = "MLX_TRAINING_RANK", "MLX_TRAINING_ENGINE"  # what our own worker is told beside
FROM_STDIN = "-"  # in place of a job folder: a rank other than 0 has none
OUTCOME = "outcome: "  # what the last line of such a rank begins with


class Host(BaseModel, frozen=True):
    """Where one rank runs. ``ssh`` is None for this machine; ``rdma`` names its device towards each rank (jaccl)."""

    name: str
    ssh: str | None = None
    ips: list[str]
    rdma: list[str | list[str] | None] = Field(default_factory=list)


class World(BaseModel, frozen=True):
    """All ranks, rank 0 first, which is on this machine. ``envs``: "NAME=value" for each rank, from a hostfile."""

    engine: Engine
    hosts: list[Host]
    envs: list[str] = Field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.hosts)

    @property
    def local(self) -> int:
        """How many ranks run on this machine."""
        return sum(host.ssh is None for host in self.hosts)

    def named(self, rank: int) -> str:
        """A rank in words."""
        host = self.hosts[rank]
        return f"rank {rank}" if host.ssh is None else f"rank {rank} on {host.name}"

    def protocol(self, rank: int, ports: list[list[int]]) -> tuple[dict[str, str], dict[str, str]]:
        """Variables, and variables that name a file with the given text. ``ports``: free ones, for each rank one an address."""
        variables = dict(entry.split("=", 1) for entry in self.envs)
        variables |= {"MLX_RANK": str(rank), RANK: str(rank), ENGINE: self.engine}
        first = self.hosts[0].ips[0]
        if self.engine == "ring":
            nodes = [
                [f"{ip}:{port}" for ip, port in zip(host.ips, own, strict=True)]
                for host, own in zip(self.hosts, ports, strict=True)
            ]
            return variables, {"MLX_HOSTFILE": json.dumps(nodes)}
        if self.engine == "jaccl":
            devices = json.dumps([host.rdma for host in self.hosts])
            return variables | {"MLX_JACCL_COORDINATOR": f"{first}:{ports[0][0]}"}, {"MLX_IBV_DEVICES": devices}
        variables |= {"MLX_WORLD_SIZE": str(self.size), "NCCL_HOST_IP": first, "NCCL_PORT": str(ports[0][0])}
        return variables | {_GPUS: self._gpu(rank)}, {}

    def _gpu(self, rank: int) -> str:
        """Of its machine's GPUs, or here of those that the user left visible, the next one."""
        machine = self.hosts[rank].ssh
        number = sum(host.ssh == machine for host in self.hosts[:rank])
        visible = [gpu for gpu in os.environ.get(_GPUS, "").split(",") if gpu] if machine is None else []
        return visible[number] if number < len(visible) else str(number)


def without_engine(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which mlx knows of no other rank."""
    return {name: value for name, value in environment.items() if name not in ENGINE_VARIABLES | {RANK, ENGINE}}


class Task(BaseModel):
    """What only the process that starts a rank knows: one line on the rank's standard input.

    ``scratch``: rank 0's job folder, or an empty one that the starter removes; None: the rank makes one of its own.
    """

    spec: dict[str, Any]
    recovery: dict[str, Any]
    files: dict[str, str]
    scratch: str | None = None


def listen() -> Task:
    """The task of this rank. From now on this process ends when its standard input does: nobody watches it any more."""
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(0, 65536)
        if not more:
            os._exit(1)
        line += more

    task = Task.model_validate_json(line)
    own = "" if task.scratch else tempfile.mkdtemp(prefix="mlx-training-rank-")

    def wait_for_end() -> None:
        while os.read(0, 4096):
            pass
        shutil.rmtree(own, ignore_errors=True)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_for_end, daemon=True).start()
    return task.model_copy(update={"scratch": task.scratch or own})
