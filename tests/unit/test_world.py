"""From hosts, a hostfile or a number to ranks, and from ranks to what MLX's engines are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_server.cli.options import read_options
from mcp_server.errors import ArgumentError, HostError
from mcp_server.jobs.recovery import next_rung
from mcp_server.jobs.store import JobFolder, JobSpec
from mcp_server.jobs.world import Host, World, without_engine
from mcp_server.models.shape import from_config
from mcp_server.planning import budget as budgets
from mcp_server.planning import memory
from mcp_server.planning.before_start import StartCheck
from mcp_server.planning.budget import Budget
from mcp_server.planning.check import Expectation
from mcp_server.planning.coefficients import coefficients
from mcp_server.planning.ladder import shrink
from mcp_server.planning.rows import RowLengths
from mcp_server.training.options import TrainingOptions
from mcp_server.training.ranks import world_of
from mcp_server.training.request import TrainingRequest
from tests import shapes

MACS = [
    {"ssh": "127.0.0.1", "ips": ["192.0.2.1"], "rdma": [None, "rdma_en2", "rdma_en3"]},
    {"ssh": "mac-2", "ips": ["192.0.2.2"], "rdma": ["rdma_en2", None, "rdma_en3"]},
    {"ssh": "mac-3", "ips": ["192.0.2.3"], "rdma": ["rdma_en2", "rdma_en3", None]},
]


def options(**changes: Any) -> TrainingOptions:
    return TrainingOptions.model_validate({"model": "m", "data": "d"} | changes)


def from_file(project: Path, hosts: list[dict[str, Any]], platform: str = "apple-silicon", **changes: Any) -> World:
    file = project / "hosts.json"
    file.write_text(json.dumps(changes.pop("whole", {}) | {"hosts": hosts}), encoding="utf-8")
    world = world_of(options(hostfile=str(file), **changes), platform)
    assert world is not None
    return world


def test_ring_is_told_as_mlx_launch_tells_it(tmp_path: Path):
    world = from_file(tmp_path, [mac | {"rdma": []} for mac in MACS])
    assert (world.engine, world.size, world.local) == ("ring", 3, 1)
    assert [host.ssh for host in world.hosts] == [None, "mac-2", "mac-3"]
    variables, files = world.protocol(1, [[5000], [5001], [5002]])
    assert variables["MLX_RANK"] == "1"
    nodes = json.loads(files["MLX_HOSTFILE"])
    assert nodes == [["192.0.2.1:5000"], ["192.0.2.2:5001"], ["192.0.2.3:5002"]]


def test_devices_in_the_hostfile_mean_jaccl(tmp_path: Path):
    world = from_file(tmp_path, MACS, whole={"envs": ["MLX_METAL_FAST_SYNCH=1"]})
    variables, files = world.protocol(2, [[5000], [5001], [5002]])
    assert world.engine == "jaccl"
    assert variables["MLX_JACCL_COORDINATOR"] == "192.0.2.1:5000"
    assert variables["MLX_METAL_FAST_SYNCH"] == "1"
    assert json.loads(files["MLX_IBV_DEVICES"]) == [mac["rdma"] for mac in MACS]
    assert from_file(tmp_path, MACS, backend="ring").engine == "ring", "what the call says wins"
    with pytest.raises(HostError, match="rdma lists"):
        from_file(tmp_path, MACS[:2], backend="jaccl")


@pytest.mark.parametrize(("visible", "own"), [(None, "1"), ("4,6", "6"), ("4", "1")])
def test_on_cuda_each_rank_has_a_gpu(visible: str | None, own: str, monkeypatch: pytest.MonkeyPatch):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    world = world_of(options(num_processes=2), "linux-cuda")
    assert world is not None
    variables, files = world.protocol(1, [[5000], [5001]])
    assert not files
    assert (variables["NCCL_PORT"], variables["MLX_WORLD_SIZE"]) == ("5000", "2")
    assert variables["CUDA_VISIBLE_DEVICES"] == own
    other = Host(name="b", ssh="b", ips=["192.0.2.2"])
    apart = World(engine="nccl", hosts=[Host(name="a", ips=["192.0.2.1"]), other, other])
    assert [apart.protocol(rank, [[5000]] * 3)[0]["CUDA_VISIBLE_DEVICES"] for rank in (1, 2)] == ["0", "1"]
    assert budgets.processes_sharing(world) == 1


@pytest.mark.parametrize(("gpus", "enough"), [(1, False), (2, True), (None, True)])
def test_more_ranks_than_gpus_are_refused_where_the_gpus_are_known(
    gpus: int | None, enough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = tmp_path / "facts.json"
    seen.write_text(json.dumps({"system": "Linux", "cuda": True, "gpus": gpus}))
    monkeypatch.setenv("MLX_TRAINING_FACTS", str(seen))
    if enough:
        assert world_of(options(num_processes=2), "linux-cuda") is not None
        return
    with pytest.raises(HostError, match=r"each of the 2 ranks on this machine, and it has 1; use num_processes=1"):
        world_of(options(num_processes=2), "linux-cuda")
    ring = world_of(options(num_processes=2, backend="ring"), "linux-cuda")
    assert ring is not None and ring.engine == "ring"


def test_one_rank_is_none_and_two_ways_to_say_it_are_one_too_many():
    assert world_of(options(), "linux-cpu") is None
    assert world_of(options(hosts=["127.0.0.1"]), "linux-cpu") is None
    with pytest.raises(ValueError, match="give one of them"):
        options(hosts=["127.0.0.1", "127.0.0.2"], num_processes=2)
    assert without_engine({"MLX_RANK": "1", "MLX_TRAINING_RANK": "1", "MLX_DISABLE_COMPILE": "1"}) == {
        "MLX_DISABLE_COMPILE": "1"
    }


def test_out_of_memory_ladder_keeps_parts_that_the_ranks_can_share(tmp_path: Path):
    world = World(engine="ring", hosts=[Host(name="h", ips=["127.0.0.1"])] * 2)
    plain = options(batch_size=8).model_dump()
    spec = JobSpec(job_id="train-x", kind="train", created=0, project="/", python="p", options=plain, world=world)
    folder, splits = JobFolder(tmp_path), []
    while lower := next_rung(folder, spec):
        splits.append(lower.splits)
    assert splits == [2, 4, 4], "down to one row on each rank, then gradient checkpointing"


def test_each_rank_holds_the_model_and_the_activations_of_its_own_rows():
    shape = from_config(shapes.CONFIGS["llama-3.2-1b"])
    machine = Budget(
        backend="apple-silicon", chip="Apple M3 Max", total=2 * 10**10, limit=2 * 10**10, limit_from="test", free=10**10
    )
    two_here = World(engine="ring", hosts=[Host(name="h", ips=["127.0.0.1"])] * 2)
    apart = World(engine="ring", hosts=[two_here.hosts[0], Host(name="g", ssh="g", ips=["192.0.2.2"])])
    alone = memory.estimate(shape, options(batch_size=4), 512, coefficients("apple-silicon"))
    here = Expectation(shape, options(batch_size=8), 512, machine.of_rank(two_here))
    there = Expectation(shape, options(batch_size=8), 512, machine.of_rank(apart))
    assert here.parts == there.parts == alone
    assert (here.budget.limit, there.budget.limit) == (10**10, 2 * 10**10), "ranks of one machine share it"
    assert (here.budget.free, there.budget.free) == (5 * 10**9, 10**10)
    assert StartCheck(here, [], processes=2).needs_bytes == 2 * here.peak, "all ranks of this machine begin at once"
    lengths = RowLengths.model_validate(
        {"rows": 500, "valid_rows": 10, "test_rows": 0, "format": "chat", "counted_by": "the model's tokenizer"}
        | {"longest": 512, "p50": 512, "p90": 512, "p99": 512, "mean": 512.0}
    )
    tight = Expectation(
        shape, options(batch_size=8), 512, machine.of_rank(two_here).model_copy(update={"limit": 4 * 10**9})
    )
    smaller = shrink(tight, lengths)
    assert smaller is not None
    assert smaller.expected.options.batch_size % 2 == 0


def test_hosts_are_given_on_the_command_line_with_commas():
    import argparse

    from mcp_server.cli.options import add_options

    parser = argparse.ArgumentParser()
    add_options(parser, TrainingRequest)
    plain = read_options(parser.parse_args(["--hosts", "mac-1,mac-2", "--backend", "ring"]), TrainingRequest)
    assert plain.hosts == ["mac-1", "mac-2"]
    assert read_options(parser.parse_args(["--hosts", '["mac-1"]']), TrainingRequest).hosts == ["mac-1"]
    with pytest.raises(ArgumentError, match="not JSON"):
        read_options(parser.parse_args(["--hf-dataset", "a,b"]), TrainingRequest)
