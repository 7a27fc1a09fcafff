"""``hosts``, ``hostfile`` or ``num_processes`` → the ranks of a training, checked before anything starts."""

from __future__ import annotations

import ipaddress
import json
import socket
from pathlib import Path
from typing import Any, Protocol

import psutil

from mcp_server import settings
from mcp_server.errors import ArgumentError, HostError, PathError
from mcp_server.jobs.world import Engine, Host, World
from mcp_server.platform import facts
from mcp_server.training.options import is_host_name

_LOOPBACK = "127.0.0.1"


class Spread(Protocol):
    """The options that say where the ranks are."""

    hosts: list[str] | None
    hostfile: str | None
    num_processes: int
    backend: Any


def world_of(options: Spread, platform: str) -> World | None:
    """The ranks that the options ask for; None for one. ``platform``: the back end, such as "linux-cuda".

    Raises HostError, ArgumentError or PathError.
    """
    engine: str = options.backend
    envs: list[str] = []
    if options.hostfile is not None:
        hosts, named, envs = read_hostfile(settings.resolve(options.hostfile))
        engine = named if engine == "any" and named else engine
    elif options.hosts is not None:
        hosts = [Host(name=name, ssh=name, ips=[_address(name)]) for name in options.hosts]
    else:
        hosts = [Host(name="this machine", ips=[_LOOPBACK])] * options.num_processes
    if len(hosts) < 2:
        return None
    hosts = _with_own(hosts)
    world = World(engine=_engine(engine, hosts, platform), hosts=hosts, envs=envs)
    _check_addresses(world)
    if world.engine == "nccl":
        _check_gpus(world)
    return world


def check_batch(batch_size: int, ranks: int) -> None:
    """A batch is split evenly. Raises ArgumentError naming the nearest sizes that can be."""
    if batch_size % ranks:
        below, above = batch_size // ranks * ranks, (batch_size // ranks + 1) * ranks
        sizes = f"{below} or {above}" if below else f"{above}"
        raise ArgumentError(
            f"batch_size={batch_size} can't be split evenly over {ranks} ranks (it is the batch of all together); use {sizes}"
        )


def read_hostfile(path: Path) -> tuple[list[Host], str, list[str]]:
    """Hosts, back end ("" when it names none) and environment of MLX's own JSON hostfile. Raises PathError."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PathError(
            f"hostfile {path} can't be read as JSON: {error}; `mlx.distributed_config` writes one"
        ) from error
    try:
        whole = found if isinstance(found, dict) else {"hosts": found}
        hosts = [
            Host(
                name=one["ssh"], ssh=one["ssh"], ips=one.get("ips") or [_address(one["ssh"])], rdma=one.get("rdma", [])
            )
            for one in whole["hosts"]
        ]
        odd = [host.name for host in hosts if not is_host_name(host.name)]
        if odd:
            raise ValueError(f"{odd[0]!r} is no host name or address")  # ssh would take it for an option
        envs = [str(entry) for entry in whole.get("envs", []) if "=" in str(entry)]
        return hosts, str(whole.get("backend", "")), envs
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise PathError(
            f"hostfile {path} is not MLX's: {type(error).__name__} {error}; it looks like "
            '{"hosts": [{"ssh": "mac-1", "ips": ["10.0.0.1"]}, {"ssh": "mac-2", "ips": ["10.0.0.2"]}]}'
        ) from error


def _engine(asked: str, hosts: list[Host], platform: str) -> Engine:
    meshed = all(
        len(host.rdma) == len(hosts) and all((device is None) == (at == rank) for at, device in enumerate(host.rdma))
        for rank, host in enumerate(hosts)
    )
    if asked == "any":
        return "jaccl" if meshed else "nccl" if platform == "linux-cuda" else "ring"
    if asked == "jaccl" and not meshed:
        raise HostError(
            "backend='jaccl' needs a hostfile whose rdma lists, for each host, its device towards every other (null for "
            "itself); `mlx.distributed_config --backend jaccl` writes it. Or use backend='ring'"
        )
    if asked == "nccl" and platform != "linux-cuda":
        raise HostError(f"backend='nccl' is for CUDA, and this machine is {platform}; use backend='ring' or 'any'")
    if asked not in ("ring", "jaccl", "nccl"):
        raise HostError(f"the hostfile's backend {asked!r} is not supported; it may be ring, jaccl or nccl")
    return asked  # type: ignore[return-value] # pyright: ignore[reportReturnType]


def _check_gpus(world: World) -> None:
    """NCCL takes one rank a GPU."""
    gpus = facts.collect().get("gpus")
    if isinstance(gpus, int) and world.local > gpus:
        raise HostError(
            f"backend='nccl' needs a GPU for each of the {world.local} ranks on this machine, and it has {gpus}; "
            f"use num_processes={gpus}, or backend='ring'"
        )


def _with_own(hosts: list[Host]) -> list[Host]:
    """The hosts with those that are this machine known as such. Rank 0 must be here, where the job's folder is."""
    known = [
        host if host.ssh is None or not _is_here(host) else host.model_copy(update={"ssh": None}) for host in hosts
    ]
    if known[0].ssh is not None:
        raise HostError(
            f"the first host, {known[0].name}, is not this machine: rank 0 writes the log and the adapter, so name this "
            "machine first, by an address that the others reach"
        )
    return known


def _is_here(host: Host) -> bool:
    name = socket.gethostname()
    own = {"localhost", name, name.split(".")[0], f"{name.split('.')[0]}.local"}
    own |= {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
    return host.name.rpartition("@")[2] in own | {_LOOPBACK}


def _address(name: str) -> str:
    """The IPv4 address of a host (``user@`` before it is ssh's); MLX's engines take no names."""
    plain = name.rpartition("@")[2]
    try:
        return str(ipaddress.IPv4Address(plain))
    except ValueError:
        pass
    try:
        return str(socket.getaddrinfo(plain, None, socket.AF_INET)[0][4][0])
    except OSError as error:
        raise HostError(
            f"host {name!r} has no IPv4 address here ({error}); give its address, or a hostfile with ips"
        ) from error


def _check_addresses(world: World) -> None:
    """Raises HostError when the others could not reach rank 0."""
    if world.local == world.size:
        return
    for host in world.hosts:
        inside = [ip for ip in host.ips if ip.startswith("127.")]
        remote = [ip for other in world.hosts if other.ssh is not None for ip in other.ips if not ip.startswith("127.")]
        if host.ssh is None and inside and remote:
            raise HostError(
                f"{host.name} is known to itself as {inside[0]}, which {remote[0]} can't reach; give this machine's own "
                "address in the network of the others"
            )
