"""What macOS and Linux print, as recorded or as they might, and what is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_server.platform import chip, readings

BATTERY = """Now drawing from 'Battery Power'
 -InternalBattery-0 (id=22544483)\t85%; discharging; 5:21 remaining present: true
"""
MAINS = """Now drawing from 'AC Power'
 -InternalBattery-0 (id=22544483)\t100%; charged; 0:00 remaining present: true
"""
DESKTOP = "Now drawing from 'AC Power'\n"
CALM = """Note: No thermal warning level has been recorded
Note: No performance warning level has been recorded
Note: No CPU power status has been recorded
"""
HOT = """CPU Power notify
\tCPU_Scheduler_Limit \t= 100
\tCPU_Available_CPUs \t= 8
\tCPU_Speed_Limit \t= 62
"""
IOREG = """+-o AGXAcceleratorG15X  <class AGXAcceleratorG15X, id 0x100000a2b, registered, matched, active>
    {
      "gpu-core-count" = 40
      "model" = "Apple M3 Max"
    }
"""
SETTINGS = """System-wide power settings:
Currently in use:
 standby              1
 lowpowermode         1
 sleep                1 (sleep prevented by powerd)
"""
PRESSURE = "some avg10={0} avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
ODD = ["", "\n", "garbage", "\x00\xff", "= = =", "CPU_Speed_Limit =", "'", "Now drawing from", "1e99"]


def test_power():
    assert readings.parse_power(BATTERY) == {"power": "Battery Power", "battery_percent": 85}
    assert readings.parse_power(MAINS) == {"power": "AC Power", "battery_percent": 100}
    assert readings.parse_power(DESKTOP) == {"power": "AC Power", "battery_percent": None}


def test_low_power_mode():
    assert readings.parse_low_power(SETTINGS) is True
    assert readings.parse_low_power(SETTINGS.replace("mode         1", "mode         0")) is False
    assert readings.parse_low_power(" sleep 1\n") is None


def test_heat():
    assert readings.parse_thermal(CALM) == {"speed_limit_percent": None, "thermal_warning": False}
    assert readings.parse_thermal(HOT) == {"speed_limit_percent": 62, "thermal_warning": None}
    assert readings.parse_thermal("thermal warning level set to 2")["thermal_warning"] is True


def test_gpu_cores():
    assert readings.parse_gpu_cores(IOREG) == 40


@pytest.mark.parametrize(("text", "size"), [("0", None), ("24576\n", 24576 * 2**20), (None, None), ("-5", None)])
def test_wired_limit(text: str | None, size: int | None):
    assert readings.parse_megabytes(text) == size


@pytest.mark.parametrize(("text", "word"), [("1", "normal"), ("2\n", "warning"), ("4", "critical"), ("7", None)])
def test_pressure_of_macos(text: str, word: str | None):
    assert readings.parse_pressure_level(text) == word


@pytest.mark.parametrize(("share", "word"), [("0.00", "normal"), ("3.10", "warning"), ("45.00", "critical")])
def test_stalls_of_linux(share: str, word: str):
    assert readings.parse_stall(PRESSURE.format(share)) == word


def test_memory_of_an_nvidia_gpu():
    assert readings.parse_nvidia("143771, 142000\n10, 5\n") == {
        "gpu_memory_bytes": 143771 * 2**20,
        "gpu_free_bytes": 142000 * 2**20,
    }


@pytest.mark.parametrize(
    ("shown", "asked"), [(None, ""), ("", ""), ("2,3", "--id=2"), ("GPU-52a9, GPU-3b46", "--id=GPU-52a9")]
)
def test_the_gpu_that_is_asked_is_the_first_that_cuda_is_shown(
    shown: str | None, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stand_in = tmp_path / "nvidia-smi"
    stand_in.write_text(
        f'#!/bin/sh\ncase "$*" in *"nounits {asked}"|*"nounits{asked}") echo "100, 60";; *) exit 6;; esac\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if shown is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    found = readings.collect({"system": "Linux", "cuda": True})
    assert (found["gpu_memory_bytes"], found["gpu_free_bytes"]) == (100 * 2**20, 60 * 2**20)


@pytest.mark.parametrize("text", ODD)
def test_odd_output_is_as_none(text: str):
    found: list[Any] = [
        *readings.parse_power(text).values(),
        readings.parse_low_power(text),
        *readings.parse_thermal(text).values(),
        readings.parse_gpu_cores(text),
        readings.parse_megabytes(text),
        readings.parse_pressure_level(text),
        readings.parse_stall(text),
    ]
    assert [value for value in found if value is not None] == []
    assert readings.parse_nvidia(text) == {}


def test_mac_without_any_of_the_programs_is_still_answered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    found = readings.collect({"system": "Darwin"})
    assert found["available_bytes"] > 0
    assert found["gpu_cores"] is None
    assert found["power"] is None


def test_a_fact_file_replaces_every_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told = {"system": "Darwin", "gpu_cores": 40, "available_bytes": 5, "pressure": "critical", "power": "AC Power"}
    (tmp_path / "facts.json").write_text(json.dumps(told))
    found = readings.collect(told)
    assert {name: found[name] for name in told if name != "system"} == {k: v for k, v in told.items() if k != "system"}


@pytest.mark.parametrize(
    ("name", "generation", "variant"),
    [("Apple M1", 1, ""), ("Apple M3 Max", 3, "Max"), ("Apple M2 Ultra", 2, "Ultra"), ("Apple M12 Pro", 12, "Pro")],
)
def test_chip_names(name: str, generation: int, variant: str):
    known = chip.parse(name)
    assert known is not None
    assert (known.generation, known.variant) == (generation, variant)


@pytest.mark.parametrize("name", ["", None, "Intel(R) Core(TM) i9", "Apple A18", "Apple M", "Apple processor"])
def test_other_chips_are_not_guessed(name: str | None):
    assert chip.parse(name) is None


def test_newer_chip_than_the_table_counts_as_the_newest_known():
    newest, later = chip.parse("Apple M4"), chip.parse("Apple M9")
    assert newest is not None
    assert later is not None
    assert later.tflops(10) == newest.tflops(10) > 0


@pytest.mark.parametrize(("gib", "share"), [(8, 2 / 3), (32, 2 / 3), (36, 3 / 4), (512, 3 / 4)])
def test_working_set_by_rule(gib: int, share: float):
    assert chip.working_set_bytes(gib * 2**30) == pytest.approx(share * gib * 2**30, abs=1)
