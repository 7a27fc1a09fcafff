"""The local page: only this machine, only with the token, only reading, and no secret."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import uvicorn

from mcp_server.cli import main
from mcp_server.ui.serve import application
from tests.helpers import wait_until
from tests.recorded import course, make_job

TOKEN = "t0ken-of-the-test"
SECRET = "hf_" + "a1B2" * 9


@dataclass
class Site:
    """The page's server, which shows each test its own jobs; ``get`` sends exactly the path it is given."""

    port: int

    def get(
        self, path: str, *, method: str = "GET", host: str | None = None, token: str = TOKEN, **headers: str
    ) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.putrequest(method, f"/{token}{path}", skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{self.port}")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, {name.lower(): value for name, value in answer.getheaders()}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = uvicorn.Config(application(TOKEN, port), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        wait_until(lambda: server.started, "the server")
        yield Site(port)
        server.should_exit = True
        thread.join()


def test_the_list_and_a_job_are_shown(site: Site):
    make_job(events=course(), adapter_path="/project/adapters/tone")
    status, text, _ = site.get("/")
    assert status == 200
    assert "tone" in text and "1 of 1 jobs" in text and 'href="jobs/train-20260101-000000-aaaa"' in text
    status, text, _ = site.get("/jobs/train-20260101-000000-aaaa")
    assert status == 200
    assert "<figure>" in text and 'href="train-20260101-000000-aaaa/report"' in text
    status, part, _ = site.get("/jobs/train-20260101-000000-aaaa?part=1")
    assert status == 200
    assert part in text, "what is asked for again is the page's content"
    status, text, _ = site.get("/jobs/train-20260101-000000-aaaa/report")
    assert status == 200 and text.startswith("<!doctype html>")


def test_an_empty_machine_has_a_page_too(site: Site):
    status, text, _ = site.get("/")
    assert status == 200 and "No jobs yet" in text


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "%00", "%C3%A9"])
def test_nothing_is_said_without_the_token(site: Site, token: str):
    make_job()
    status, text, _ = site.get("/jobs/train-20260101-000000-aaaa", token=token)
    assert status == 403
    assert "train-" not in text and TOKEN not in text


def test_foreign_host_names_are_refused(site: Site):
    for host in ("evil.example", f"evil.example:{site.port}", "127.0.0.1", f"127.0.0.1:{site.port}.evil", "[::1]:80"):
        assert site.get("/", host=host)[0] == 421, host
        assert site.get("/", HOST=host)[0] in (400, 421), f"{host} beside our own"
    assert site.get("/", host=f"localhost:{site.port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_reading_is_known(site: Site, method: str):
    status, _, headers = site.get("/", method=method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert "content-security-policy" in headers, "it is refused before any page is asked"


def test_no_path_leads_out_of_the_jobs(site: Site, home: Path):
    make_job()
    (home / "secret.json").write_text("the secret", encoding="utf-8")
    (home / "jobs/.hidden").mkdir()
    for path in (
        "/jobs/..", "/jobs/../secret.json", "/jobs/%2e%2e", "/jobs/..%2fsecret.json", "/jobs/..%5csecret.json",
        "/jobs/%2fetc%2fpasswd", "/jobs/.hidden", "/jobs/train-20260101-000000-aaaa/../../secret.json", "/jobs/%00",
        "/jobs//etc", "/../../etc/passwd", "/jobs/train-20260101-000000-aaaa/spec.json",
    ):  # fmt: skip
        status, text, _ = site.get(path)
        assert status == 404, path
        assert "the secret" not in text and "root:" not in text


def test_every_answer_forbids_what_is_not_needed(site: Site):
    make_job(events=course())
    for path, host in (
        ("/", None),
        ("/jobs/nope", None),
        ("/jobs/train-20260101-000000-aaaa/report", None),
        ("/", "evil.example"),
    ):
        headers = site.get(path, host=host)[2]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert headers["referrer-policy"] == "no-referrer", "the token is in the address"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
        assert "set-cookie" not in headers


def test_secrets_are_never_shown(site: Site):
    events = [*course(), {"type": "alert", "kind": "x", "message": f"denied for {SECRET}", "step": 1}]
    make_job(events=events, status="failed", why=f"401 with {SECRET}", model=f"https://user/{SECRET}")
    for path in ("/", "/jobs/train-20260101-000000-aaaa", "/jobs/train-20260101-000000-aaaa/report"):
        assert SECRET not in site.get(path)[1], path


def test_an_address_without_its_last_stroke_is_led_to_the_page(site: Site):
    status, _, headers = site.get("")
    assert (status, headers["location"]) == (307, f"/{TOKEN}/")


def test_command_serves_loopback_alone_and_ends_with_a_word():
    command = [sys.executable, "-m", "mcp_server.cli", "ui"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        port, token = int(address.split(":")[2].split("/")[0]), address.split("/")[3]
        assert len(token) >= 32
        wait_until(lambda: _answers(port, token), "an answer")
        listening = psutil.Process(process.pid).net_connections("tcp")
        assert {one.laddr.ip for one in listening} == {"127.0.0.1"}
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0
        assert said == "ended; the jobs go on\n"
    finally:
        process.kill()
        process.wait()


def _answers(port: int, token: str) -> bool:
    try:
        return Site(port).get("/", token=token)[0] == 200
    except OSError:
        return False


def test_port_that_is_taken_is_an_error_in_words(capsys: pytest.CaptureFixture[str]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["ui", "--port", str(taken.getsockname()[1])]) == 1
    assert "leave it out to take a free one" in capsys.readouterr().err
    assert main(["ui", "--port", "99999"]) == 1
