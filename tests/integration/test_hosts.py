"""More than one machine: the commands we send and the words for what is wrong there.

There is one machine here. A program named ssh, first on the PATH, stands for the way to the others: it runs the command it is
given on this machine, in a shell with an environment made from nothing, as a login there would have. What it can't show is
another file system and another network.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from mcp_server.errors import ArgumentError, HostError, UserError
from mcp_server.jobs import store
from mcp_server.jobs.events import read_since
from mcp_server.jobs.store import JobFolder
from tests.exactness import finish, losses, options, run, steps, weights
from tests.helpers import wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(200),
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers on all of 127.0.0.0/8"),
]

# 127.0.0.1 is this machine; 127.0.0.2 leads here too on Linux, but is no address of an interface: it counts as another's.
HOSTS = ["127.0.0.1", "127.0.0.2"]


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in; returns the file in which it notes its arguments. ``refuse`` beside it: the host can't be reached."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log = folder / "calls"
    (folder / "ssh").write_text(
        "#!/bin/bash\n"
        f'printf "%s\\n" "$*" >> {log}\n'
        f'[ -e {folder}/refuse ] && {{ echo "ssh: connect to host: No route to host" >&2; exit 255; }}\n'
        'while [ "$1" = -o ]; do shift 2; done\n'
        f'shift; env -i HOME={tmp_path} PATH=/usr/bin:/bin /bin/bash -c "$*"; exit $?\n'
    )
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return log


def refused(project: Path, **changes: object) -> str:
    """The error of a start that must fail and leave nothing."""
    with pytest.raises((UserError, ValidationError)) as caught:
        run(**options("lora", "adam") | {"adapter_path": "adapters/refused"} | changes)
    assert not (project / "adapters").exists()
    assert not list(store.all_folders())
    return str(caught.value)


def test_a_second_host_trains_as_a_second_process_does(ssh: Path, project: Path):
    chosen = options("lora", "adam", iters=8, backend="ring")
    pair = run(**chosen, num_processes=2, adapter_path="adapters/pair")
    assert finish(pair) == "completed", pair.state().why
    job = run(**chosen, hosts=HOSTS, adapter_path="adapters/hosts")
    assert finish(job) == "completed", job.state().why
    assert losses(job) == losses(pair)
    assert weights(job) == weights(pair)
    calls = ssh.read_text(encoding="utf-8")
    assert "BatchMode=yes" in calls
    assert "MLX_RANK=1" in calls
    assert "MLX_DISABLE_COMPILE=1" in calls, "what decides how mlx computes goes along"


def test_a_host_that_dies_ends_the_job_with_its_name(ssh: Path, project: Path):
    job = run(**options("lora", "adam", iters=4000, val_batches=0, hosts=HOSTS), adapter_path="adapters/test")
    wait_until(lambda: steps(job) >= 4, "four steps")
    worker = job.state().worker
    assert worker is not None
    all_ranks = psutil.Process(worker.pid).children(recursive=True)
    there = [one for one in all_ranks if one.cmdline()[-1:] == ["-"] and "python" in one.cmdline()[0]]
    assert len(there) == 1
    there[0].kill()
    assert finish(job, 20) == "failed"
    assert "rank 1 on 127.0.0.2 was killed by SIGKILL" in (job.state().why or "")
    wait_until(lambda: not any(one.is_running() for one in all_ranks), "all ranks to be gone", seconds=10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ("s#workers.train#workers.nothing#", "rank 1 on 127.0.0.2 ended with exit code 1: "),
        ("s#ENGINE=ring#ENGINE=carrier-pigeon#", "rank 1 on 127.0.0.2 failed: ValueError: "),
    ],
)
def test_what_a_host_says_of_its_own_failure_is_the_reason_and_rank_0_does_not_wait_for_it(
    found: str, reason: str, ssh: Path, project: Path
):
    _change_on_the_way(ssh, found)
    job = run(**options("lora", "adam", hosts=HOSTS, backend="ring"), adapter_path="adapters/test")
    worker = wait_until(lambda: job.state().worker, "the ranks to start")
    assert finish(job, 60) == "failed"
    assert (job.state().why or "").startswith(reason), job.state().why
    assert not psutil.pid_exists(worker.pid)
    assert not (project / "adapters/test").exists(), "nothing half made is left"


@pytest.mark.slow
def test_out_of_memory_on_one_host_takes_all_ranks_one_rung_lower(ssh: Path, project: Path):
    """The stand-in says at the first start what a rank says that could not get its memory; the second is real."""
    word = '{"status": "failed", "why": "RuntimeError: [malloc] Unable to allocate 9 bytes.", "cause": "out-of-memory"}'
    script = ssh.parent / "no-memory"
    script.write_text(f"#!/bin/bash\ntouch {ssh.parent}/once\necho 'outcome: {word}'\nexit 1\n", encoding="utf-8")
    script.chmod(0o755)
    _change_on_the_way(ssh, f"s#^env .*train -$#if [ -e {ssh.parent}/once ]; then &; else exec {script}; fi#")
    chosen = options("lora", "adam", hosts=HOSTS, backend="ring", batch_size=4, iters=4)
    job = run(**chosen, adapter_path="adapters/test")
    assert finish(job) == "completed", job.state().why
    outcome = job.outcome()
    assert outcome is not None and outcome.result is not None
    assert outcome.result["recovered"] == [
        "batch_size 4 in 2 parts of 2, gradients accumulated: the effective batch stays"
    ]
    alerts = [event for event in read_since(job.metrics, 0).events if event["type"] == "alert"]
    assert any("rank 1 on 127.0.0.2 failed" in alert["message"] for alert in alerts)


def _change_on_the_way(ssh: Path, found: str) -> None:
    """Let the stand-in change the command with this sed expression."""
    text = (ssh.parent / "ssh").read_text(encoding="utf-8")
    start = text.index('"$*"; exit') if '"$*"; exit' in text else text.index('"$(echo')
    (ssh.parent / "ssh").write_text(f'{text[:start]}"$(echo "$*" | sed \'{found}\')"; exit $?\n', encoding="utf-8")


def test_hosts_that_can_not_be_reached_are_named_before_anything_starts(ssh: Path, project: Path):
    (ssh.parent / "refuse").touch()
    text = refused(project, hosts=[*HOSTS, "127.0.0.3"], batch_size=3)
    assert "127.0.0.2: ssh can't get in (ssh: connect to host: No route to host); `ssh 127.0.0.2 true`" in text
    assert "127.0.0.3: ssh can't get in" in text
    assert not text.startswith("127.0.0.1")


def test_missing_and_different_things_on_a_host_are_named(ssh: Path, project: Path):
    for found, expected in (
        (f"s#{sys.executable} -#/nowhere/python -#", f"there is no Python at {sys.executable} there"),
        (f"s#{project}/data#{project}/other#", "data"),
        (f"s#{project}/data#/nowhere#", "can't be read there; copy it to the same path"),
        ("s#mlx-lm#mlx-lmm#", "mlx-lm"),
    ):
        (project / "other").mkdir(exist_ok=True)
        (project / "other/train.jsonl").write_text("{}\n", encoding="utf-8")
        _change_on_the_way(ssh, found)
        text = refused(project, hosts=HOSTS)
        assert text.startswith("127.0.0.2: "), text
        assert expected in text, text


def test_the_first_host_must_be_this_machine_and_addresses_must_be_its_own(ssh: Path, project: Path):
    assert "the first host, 127.0.0.2, is not this machine" in refused(project, hosts=["127.0.0.2", "127.0.0.1"])
    assert "can't reach; give this machine's own address" in refused(project, hosts=["127.0.0.1", "192.0.2.7"])
    assert "has no IPv4 address here" in refused(project, hosts=["127.0.0.1", "no-such-host.invalid"])
    file = project / "hosts.json"
    file.write_text(
        json.dumps([{"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}, {"ssh": "127.0.0.2", "ips": ["192.0.2.9"]}])
    )
    assert "can't reach" in refused(project, hostfile="hosts.json")
    assert "is no host name" in refused(project, hosts=["127.0.0.1", "-oProxyCommand=touch x"])


def test_hostfiles_are_mlxs_own(ssh: Path, project: Path):
    hosts = [{"ssh": name, "ips": [name]} for name in HOSTS]
    (project / "hosts.json").write_text(
        json.dumps({"backend": "ring", "envs": ["MLX_RING_VERBOSE=1"], "hosts": hosts}), encoding="utf-8"
    )
    job: JobFolder = run(**options("lora", "adam", iters=4), hostfile="hosts.json", adapter_path="adapters/test")
    assert finish(job) == "completed", job.state().why
    assert "[ring]" in job.log.read_text(encoding="utf-8"), "the hostfile's envs are set"
    shutil.rmtree(job.path)
    shutil.rmtree(project / "adapters")
    (project / "hosts.json").write_text("{}", encoding="utf-8")
    assert "is not MLX's" in refused(project, hostfile="hosts.json")
    assert "can't be read as JSON" in refused(project, hostfile="none.json")
    (project / "hosts.json").write_text(json.dumps({"backend": "mpi", "hosts": hosts}), encoding="utf-8")
    assert "'mpi' is not supported" in refused(project, hostfile="hosts.json")
    assert "needs a hostfile whose rdma" in refused(project, hosts=HOSTS, backend="jaccl")


def test_a_batch_that_can_not_be_split_is_refused_with_the_nearest_sizes(project: Path):
    with pytest.raises(ArgumentError, match=r"batch_size=3 can't be split evenly over 2 ranks .*; use 2 or 4"):
        run(**options("lora", "adam", batch_size=3, num_processes=2))
    with pytest.raises(ArgumentError, match=r"use 4$"):
        run(**options("lora", "adam", batch_size=2, num_processes=4))
    with pytest.raises(HostError, match="is for CUDA"):
        run(**options("lora", "adam", num_processes=2, backend="nccl"))
