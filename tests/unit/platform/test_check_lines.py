"""``check_platform`` on machines told through the seam: every line, its remedy, and never a traceback."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_server.errors import ModelError
from mcp_server.models.folder import locate
from mcp_server.platform import check, lines
from mcp_server.platform.check import PlatformReport, check_platform

MAC: dict[str, Any] = {
    "system": "Darwin",
    "machine": "arm64",
    "translated": 0,
    "container": False,
    "macos": "26.1",
    "chip": "Apple M3 Max",
    "memory_bytes": 64 * 2**30,
    "metal": True,
    "gpu_cores": 40,
    "available_bytes": 50 * 10**9,
    "power": "AC Power",
    "battery_percent": 100,
    "low_power_mode": False,
    "thermal_warning": False,
    "speed_limit_percent": None,
    "pressure": "normal",
    "wired_limit_bytes": None,
}
SOFTWARE = {"python": "3.12.1", "mlx": "0.32.4", "mlx-lm": "0.32.2", "device": "gpu", "device_info": {}}


@pytest.fixture(autouse=True)
def software(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the interpreter with mlx answers; a test may change it."""
    answer: dict[str, Any] = dict(SOFTWARE)
    monkeypatch.setattr(check, "probe", lambda: answer)
    return answer


def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> PlatformReport:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(MAC | changes))
    monkeypatch.setenv("MLX_TRAINING_FACTS", str(path))
    return check_platform()


def line(found: PlatformReport, name: str) -> lines.Check:
    return next(each for each in found.checks if each.name == name)


def test_a_good_mac_is_ready_and_everything_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = report(tmp_path, monkeypatch)
    assert found.verdict == "ready", found.summary
    assert (found.backend, found.memory_gb, found.recommended_working_set_gb) == ("apple-silicon", 68.7, 51.5)
    names = [each.name for each in found.checks]
    assert names == [
        "machine",
        "macos",
        "chip",
        "power",
        "heat",
        "memory",
        "gpu memory",
        "disk",
        "mlx",
        "device",
        "hub",
    ]
    assert "generation 3" in line(found, "chip").value
    assert "40 GPU cores" in line(found, "chip").value
    assert "14.0 or later" in line(found, "macos").value


@pytest.mark.parametrize(
    ("changes", "name", "word"),
    [
        ({"power": "Battery Power", "battery_percent": 30}, "power", "plug the Mac in"),
        ({"low_power_mode": True}, "power", "Low Power Mode"),
        ({"speed_limit_percent": 60}, "heat", "60"),
        ({"thermal_warning": True}, "heat", "cool"),
        ({"pressure": "critical"}, "memory pressure", "close other programs"),
        ({"wired_limit_bytes": 63 * 2**30}, "gpu memory", "iogpu.wired_limit_mb="),
        ({"memory_bytes": 4 * 2**30}, "memory", "1B parameters"),
        ({"memory_bytes": None}, "memory", "could not be read"),
        ({"macos": None}, "macos", "sw_vers"),
    ],
)
def test_what_slows_or_threatens_a_run_is_a_warning_with_its_remedy(
    changes: dict[str, Any], name: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = report(tmp_path, monkeypatch, **changes)
    assert found.verdict == "ready with warnings"
    warned = line(found, name)
    assert warned.status == "warning"
    assert word in f"{warned.value} {warned.remedy}"
    assert warned.remedy
    assert warned.remedy in found.summary


def test_default_device_must_be_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, software: dict[str, Any]):
    software["device"] = "cpu"
    found = report(tmp_path, monkeypatch)
    assert found.verdict == "not ready"
    assert "expected gpu" in line(found, "device").value


def test_working_set_that_metal_names_wins_over_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, software: dict[str, Any]
):
    software["device_info"] = {"max_recommended_working_set_size": 48 * 10**9}
    assert report(tmp_path, monkeypatch).recommended_working_set_gb == 48.0


@pytest.mark.parametrize(("package", "version"), [("mlx-lm", "0.30.0"), ("mlx", "0.29.1")])
def test_version_with_a_known_fault_is_named_with_its_source(
    package: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, software: dict[str, Any]
):
    software[package] = version
    warned = line(report(tmp_path, monkeypatch), "mlx")
    assert warned.status == "warning"
    assert warned.remedy is not None
    assert f"{package} {version}" in warned.remedy
    assert "fixed in" in warned.remedy


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0.32.4", (0, 32, 4)), ("0.33.0.dev2+g1", (0, 33, 0)), ("1.0rc1", (1, 0)), ("", None), ("main", None)],
)
def test_versions_are_read_as_numbers(text: str, numbers: tuple[int, ...] | None):
    assert lines.parse_version(text) == numbers


@pytest.mark.parametrize("value", [None, "", "?", -1, [], {}, 1.5, True])
@pytest.mark.parametrize("name", sorted(MAC))
def test_no_fact_however_odd_makes_a_traceback(name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = report(tmp_path, monkeypatch, **{name: value})
    assert found.verdict in ("ready", "ready with warnings", "not ready")
    assert all(each.remedy for each in found.checks if each.status == "failed")


class _Hub(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(503)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    yield address
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("hub")
def test_a_hub_that_answers_is_reachable_and_the_token_stays_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert lines.network_check().value == "127.0.0.1 answers; not logged in, which gated models need"
    (tmp_path / "token").write_text("hf_secretsecret")
    found = lines.network_check()
    assert found.status == "ok"
    assert "logged in" in found.value
    monkeypatch.setenv("HF_TOKEN", "hf_othersecret")
    assert "from the environment" in lines.network_check().value
    assert "secret" not in lines.network_check().model_dump_json() + found.model_dump_json()


def test_a_hub_out_of_reach_is_a_warning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    found = lines.network_check()
    assert found.status == "warning"
    assert found.remedy is not None
    assert "network and proxy" in found.remedy


@pytest.mark.parametrize("theirs", [None, "1", "false"])
@pytest.mark.parametrize("ours", [None, "", "0", "1", "true", "Yes", "on", "false", "no", "2"])
def test_offline_is_what_huggingface_hub_takes_for_it(
    ours: str | None, theirs: str | None, monkeypatch: pytest.MonkeyPatch
):
    for name, value in (("HF_HUB_OFFLINE", ours), ("TRANSFORMERS_OFFLINE", theirs)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    variable = "HF_HUB_OFFLINE" if ours else "TRANSFORMERS_OFFLINE"
    said, found = f"offline by {variable}:", str(lines.network_check().value)
    # Its own function: what it takes is what a job will take.
    is_true: Any = pytest.importorskip("huggingface_hub.constants")._is_true
    if is_true(ours or theirs):
        assert found.startswith(said)
        with pytest.raises(ModelError, match=f"{variable} is set; .*unset {variable}"):
            locate("nobody/no-such-model")
    else:
        assert "offline by" not in found
        assert locate("nobody/no-such-model") is None


@pytest.mark.parametrize("endpoint", ["https://127.0.0.1:abc", "http://[::1", "no address at all"])
def test_an_endpoint_that_is_none_is_a_warning(monkeypatch: pytest.MonkeyPatch, endpoint: str):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert lines.network_check().status == "warning"


def test_a_port_that_speaks_something_else_is_a_warning(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            peer.recv(1000)
            peer.sendall(b"SSH-2.0-none\r\n")
            peer.close()

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert lines.network_check().status == "warning"


def test_the_login_is_looked_for_where_huggingface_hub_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("HF_HOME", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "not logged in" in str(lines.login_check().value)
    (tmp_path / "huggingface").mkdir()
    (tmp_path / "huggingface" / "token").write_text("x")
    assert "logged in (hf auth login)" in str(lines.login_check().value)


def test_full_and_unwritable_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lines.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**9})())
    assert lines.disk_check(tmp_path / "not" / "yet").status == "warning"
    monkeypatch.setattr(lines.os, "access", lambda *_: False)
    assert lines.disk_check(tmp_path).status == "failed"
