"""Other machines, through ssh: whether each has what a rank needs, in words for each, and how a command is run there.

The same Python, this package, model and data must lie at the same paths there; ssh must get in without a question.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from mcp_server import launch
from mcp_server.errors import HostError
from mcp_server.jobs import host_report
from mcp_server.jobs.world import Host, World

PACKAGES = ("mlx", "mlx-lm", "pydantic", "psutil")
_SECONDS = 120.0


def ssh(host: str, arguments: list[str], variables: dict[str, str] | None = None) -> list[str]:
    """The command that runs ``arguments`` on ``host``. It asks nothing: a password could not be typed."""
    given = [f"{name}={value}" for name, value in (variables or {}).items()]
    remote = shlex.join(["env", *given, *arguments] if given else arguments)
    return ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15", host, remote]


class Ready(NamedTuple):
    """What a check found: free ports for the addresses of each rank, and by machine the memory that can be taken."""

    ports: list[list[int]]
    available: dict[str, int | None]


def check(world: World, python: str, model: str, data: str) -> Ready:
    """See that every machine can run its ranks. Raises HostError that names each host with what it lacks."""
    request = {"packages": PACKAGES, "code": str(Path(launch.__file__).parent), "model": model, "data": data}
    machines: dict[str | None, list[Host]] = {}
    for host in world.hosts:
        machines.setdefault(host.ssh, []).append(host)
    if len(machines) == 1:
        reports: list[dict[str, Any]] = [
            {"ports": host_report.free_ports([ip for host in world.hosts for ip in host.ips])}
        ]
        troubles = _wrong_addresses(world.hosts, reports[0]["ports"])
    else:
        asked = [(hosts, request | {"ips": [ip for host in hosts for ip in host.ips]}) for hosts in machines.values()]
        with ThreadPoolExecutor(max_workers=min(len(asked), 16)) as pool:
            reports = list(pool.map(lambda one: ask_host(one[0][0], python, one[1]), asked))
        here = reports[0]
        troubles = "; ".join(
            f"{hosts[0].name}: {trouble}"
            for hosts, found in zip(machines.values(), reports, strict=True)
            if (trouble := _trouble(found, here, python, request) or _wrong_addresses(hosts, found.get("ports", [])))
        )
    if troubles:
        raise HostError(f"{troubles}. Nothing was started; docs/distributed.md shows a set-up")
    ports = {ssh: iter(found["ports"]) for ssh, found in zip(machines, reports, strict=True)}
    return Ready(
        [[next(ports[host.ssh]) for _ in host.ips] for host in world.hosts],
        {hosts[0].name: found.get("available_bytes") for hosts, found in zip(machines.values(), reports, strict=True)},
    )


def ask_host(host: Host, python: str, request: dict[str, Any]) -> dict[str, Any]:
    """``host_report.report`` of a machine; {"trouble": text} when it can't be had."""
    script = Path(host_report.__file__).read_bytes()
    own = [python, "-", json.dumps(request)]
    try:
        done = subprocess.run(
            own if host.ssh is None else ssh(host.ssh, own),
            input=script,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        return {"trouble": f"{error.filename} was not found on this machine"}
    except subprocess.TimeoutExpired:
        return {"trouble": f"no answer in {_SECONDS:.0f} s"}
    said = " ".join(done.stderr.decode("utf-8", "replace").split())[-300:]
    if done.returncode == 255 and host.ssh is not None:
        return {"trouble": f"ssh can't get in ({said or 'exit code 255'}); `ssh {host.ssh} true` must work unasked"}
    if done.returncode in (126, 127):
        return {"trouble": f"there is no Python at {python} there ({said}); install the same environment at this path"}
    try:
        return json.loads(done.stdout.decode().strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {"trouble": f"the check ended with exit code {done.returncode}: {said or 'it printed nothing'}"}


def _trouble(found: dict[str, Any], here: dict[str, Any], python: str, request: dict[str, Any]) -> str | None:
    """What is wrong with a machine beside rank 0's, or None."""
    if "trouble" in found:
        return str(found["trouble"])
    if "trouble" in here:
        return None  # said of rank 0 already; there is nothing to compare with
    for name, version in found["versions"].items():
        if version is None:
            return f"{name} is not installed in {python}; install it there"
        if version != here["versions"][name]:
            return f"{name} is {version} there and {here['versions'][name]} on {here['host']}; make them equal"
    for what in ("code", "model", "data"):
        if found[what] is None:
            return f"{what} {request[what]} can't be read there; copy it to the same path"
        if found[what] != here[what]:
            return f"{what} {request[what]} differs from this machine's; copy it again"
    return None


def _wrong_addresses(hosts: list[Host], ports: list[int | None]) -> str | None:
    addresses = [ip for host in hosts for ip in host.ips]
    wrong = [ip for ip, port in zip(addresses, ports, strict=False) if port is None]
    return f"{', '.join(wrong)} is no address of that machine; correct its ips" if wrong else None
