"""What one machine has of what a rank needs. Standard library alone: this very text is also sent over ssh and run there.

``python - REQUEST`` prints ``report`` of the request as one line of JSON.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import sys
from pathlib import Path
from typing import Any

_WHOLE_BYTES = 16 * 2**20  # of larger files (weights) the size, the first and the last MiB are looked at


def report(request: dict[str, Any]) -> dict[str, Any]:
    """Versions, digests (None: missing), free ports (None: the address is not this machine's) and available memory.

    ``request``: {"packages": [name], "code": folder, "model": folder, "data": folder, "ips": [address]}.
    """
    versions: dict[str, str | None] = {}
    for name in request["packages"]:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "host": platform.node(),
        "versions": versions,
        "code": digest(request["code"], ".py"),
        "model": digest(request["model"]),
        "data": digest(request["data"], ".jsonl"),
        "ports": free_ports(request["ips"]),
        "available_bytes": available_bytes(),
    }


def digest(folder: str, ending: str = "") -> str | None:
    """A digest of the names and contents of the files of ``folder`` that end in ``ending``; None when it can't be read."""
    total = hashlib.sha256()
    try:
        if not os.path.isdir(folder):
            return None
        for parent, folders, names in os.walk(folder, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
            for name in sorted(name for name in names if name.endswith(ending) and not name.startswith(".")):
                path = Path(parent, name)
                size = path.stat().st_size
                total.update(f"{path.relative_to(folder)} {size}\n".encode())
                with path.open("rb") as file:
                    total.update(file.read(2**20 if size > _WHOLE_BYTES else -1))
                    if size > _WHOLE_BYTES:
                        file.seek(-(2**20), os.SEEK_END)
                        total.update(file.read())
    except OSError:
        return None
    return total.hexdigest()


def free_ports(ips: list[str]) -> list[int | None]:
    """A free port for each address, all different; None for an address that this machine does not have."""
    sockets: list[socket.socket] = []
    ports: list[int | None] = []
    for ip in ips:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sockets.append(listener)  # open until all are chosen
        try:
            listener.bind((ip, 0))
            ports.append(listener.getsockname()[1])
        except OSError:
            ports.append(None)
    for listener in sockets:
        listener.close()
    return ports


def available_bytes() -> int | None:
    """Memory that programs can still take, or None where psutil is missing."""
    try:
        import psutil
    except ImportError:
        return None
    return psutil.virtual_memory().available


if __name__ == "__main__":
    print(json.dumps(report(json.loads(sys.argv[1]))))
