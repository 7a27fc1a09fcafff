"""What SECURITY.md promises: access tokens stay out of everything that is written or answered, and strangers' code is not run."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp.client import Client

from mcp_server.errors import ModelError
from mcp_server.jobs import hosts
from tests.helpers import call, end_of, folder, refusal, training, wait_until
from tests.tiny import make_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.anyio]
# Shaped like the real ones and made up, in parts, so that no scanner takes this file for a leak.
TOKENS = {
    "HF_TOKEN": "hf_" + "q7Tz" * 9,
    "WANDB_API_KEY": "wandb_v1_" + "k3Rb" * 11,
    "OPENAI_API_KEY": "sk-" + "proj4" * 8,
    "AWS_SECRET_ACCESS_KEY": "aB3/" * 10,
}


def files_with_tokens(*roots: Path) -> list[str]:
    found: list[str] = []
    for root in roots:
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                found += [f"{path}: {name}" for name, token in TOKENS.items() if token.encode() in data]
    return found


async def test_tokens_of_the_environment_are_in_no_file_and_no_answer(
    client: Client, project: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, token in TOKENS.items():
        monkeypatch.setenv(name, token)
    answers = [await call(client, "check_platform")]
    started = await call(client, "start_lora_training", **training())
    answers += [started, await end_of(client, started["job_id"])]
    measured = await call(
        client, "run_benchmark", model="model", adapter_path="adapters/test", data="data", wait_seconds=120
    )
    answers += [measured, await call(client, "list_jobs"), await call(client, "get_metal_memory")]
    text = json.dumps(answers)
    assert [name for name, token in TOKENS.items() if token in text] == []
    for name in ("metrics.jsonl", "job.log", "spec.json", "outcome.json", "report.html"):
        assert (home / "jobs" / started["job_id"] / name).stat().st_size > 0
    assert files_with_tokens(home, project / "adapters") == []


async def test_tokens_in_the_data_are_named_and_not_repeated(client: Client, project: Path, home: Path):
    """Rows are quoted in findings, examples, samples and reports: never the token in them."""
    for name in ("train", "test"):
        with (project / "data" / f"{name}.jsonl").open("a") as file:
            for key in ("HF_TOKEN", "OPENAI_API_KEY"):
                turns = [{"role": "user", "content": f"My key is {TOKENS[key]}"}]
                turns += [{"role": "assistant", "content": f"It is {TOKENS[key]}"}]
                file.write(json.dumps({"messages": turns}) + "\n")
            across = "Note. " * 16 + TOKENS["HF_TOKEN"]  # the cut of a sample goes through it
            turns = [{"role": "user", "content": across}, {"role": "assistant", "content": across}]
            file.write(json.dumps({"messages": turns}) + "\n")
    rows = len((project / "data" / "test.jsonl").read_text().splitlines())
    inspected = await call(client, "inspect_dataset", data="data", model="model")
    kinds = [finding["code"] for finding in inspected["findings"] if finding["code"].startswith("secret")]
    assert len(kinds) >= 2
    started = await call(client, "start_lora_training", **training(max_seq_length=256))
    answers = [inspected, started, await end_of(client, started["job_id"])]
    report = await call(
        client, "run_benchmark", model="model", adapter_path="adapters/test", num_prompts=rows, num_samples=rows,
        max_tokens=4, speed_trials=0, wait_seconds=120,
    )  # fmt: skip
    assert report["status"] == "completed", report
    answers += [report, await call(client, "prepare_dataset", source="data", output="prepared")]
    text = json.dumps(answers)
    assert [name for name, token in TOKENS.items() if token in text] == []
    assert TOKENS["HF_TOKEN"][:10] not in text
    assert (home / "jobs" / started["job_id"] / "report.html").exists()
    assert files_with_tokens(home, project / "adapters") == []


async def test_a_token_in_an_argument_is_not_repeated(client: Client, project: Path, home: Path):
    token = TOKENS["HF_TOKEN"]
    text = await refusal(client, "start_lora_training", **training(model=f"./models/{token}"))
    assert token not in text
    assert "[Hugging Face token removed]" in text
    assert token not in await refusal(client, "start_lora_training", **training(), **{token: 1})
    assert files_with_tokens(home) == []


async def test_a_token_in_another_librarys_words_is_taken_out_of_log_and_verdict(
    client: Client, project: Path, home: Path
):
    """A chat template may raise whatever it likes, and the worker quotes it."""
    model = make_tiny_model(project / "hostile")
    template = "{{ raise_exception('no: " + TOKENS["HF_TOKEN"] + "') }}"
    (model / "chat_template.jinja").write_text(template)
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    started = await call(client, "start_lora_training", **training(model="hostile"))
    end = await end_of(client, started["job_id"])
    assert end["status"] == "failed"
    assert "[Hugging Face token removed]" in json.dumps(end)
    assert TOKENS["HF_TOKEN"] not in json.dumps(end)
    assert files_with_tokens(home) == []


@pytest.fixture
def trap(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trap:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))  # transformers copies a model's code there before it runs it
    return Trap(project, tmp_path / "was-here")


class Trap:
    """Models whose own code leaves a file when it is imported."""

    def __init__(self, project: Path, mark: Path) -> None:
        self.project, self.mark = project, mark

    def model(self, name: str, **config: Any) -> Path:
        # With qwen2 transformers would have a tokenizer of its own, and not ask for the model's.
        model = make_tiny_model(self.project / name, model_type="llama")
        (model / "evil.py").write_text(
            f"open({str(self.mark)!r}, 'w')\n"
            "from transformers import PretrainedConfig, PreTrainedTokenizerFast\n"
            "class Config(PretrainedConfig):\n    model_type = 'llama'\n"
            "class Tokenizer(PreTrainedTokenizerFast):\n    pass\n"
        )
        _change(model / "config.json", config)
        return model

    def tokenizer(self, name: str) -> Path:
        """``auto_map``, which transformers follows when remote code is trusted, in both configurations."""
        code = {"AutoConfig": "evil.Config", "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}
        model = self.model(name, auto_map=code)
        _change(model / "tokenizer_config.json", {"auto_map": code, "tokenizer_class": "Tokenizer"})
        return model

    def sprung(self) -> bool:
        return self.mark.exists()


def _change(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def python(code: str, typed: str = "") -> str:
    """What ``code`` says of its failure in the jobs' interpreter, ``typed`` on its standard input."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code]
    return subprocess.run(command, input=typed, cwd=root, capture_output=True, text=True, check=False).stderr


def test_the_trap_is_one(trap: Trap):
    model = str(trap.tokenizer("stranger"))
    python(f"import transformers; transformers.AutoTokenizer.from_pretrained({model!r}, trust_remote_code=True)")
    assert trap.sprung()


@pytest.mark.parametrize("load", ["load_model", "load_tokenizer_of"])
def test_nobody_is_asked_whether_to_run_a_models_code(load: str, trap: Trap):
    """transformers would ask on standard input, and take a y for a yes."""
    model = str(trap.tokenizer("stranger"))
    said = python(f"from mcp_server.workers.loading import {load}; {load}({model!r})", typed="y\n" * 9)
    assert "Python code of its own, which is never run here" in said
    assert not trap.sprung()


DOORS: dict[str, dict[str, Any]] = {
    "start_lora_training": training(),
    "run_benchmark": {"data": "data"},
    "convert_model": {"mlx_path": "out", "quantize": False},
    "generate_text": {"prompt": "Hello"},
    "fuse_adapter": {"adapter_path": "adapters/own", "save_path": "out"},
    "inspect_dataset": {"data": "data"},
    "prepare_dataset": {"source": "data", "output": "out"},
    "plan_training": {"data": "data", "probe": True},
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["model_file", "auto_map"])
async def test_code_that_comes_with_a_model_is_run_through_no_tool(
    kind: str, client: Client, project: Path, home: Path, trap: Trap
):
    tools = (await client.list_tools()).tools
    assert DOORS.keys() == {tool.name for tool in tools if "model" in tool.input_schema["properties"]}
    make_tiny_model(project / "plain")
    own = await call(client, "start_lora_training", **training(model="plain", adapter_path="adapters/own", iters=2))
    assert (await end_of(client, own["job_id"]))["status"] == "completed"
    trap.tokenizer("stranger") if kind == "auto_map" else trap.model("stranger", model_file="evil.py")
    for tool, arguments in DOORS.items():
        result = await client.call_tool(tool, arguments | {"model": "stranger"})
        said = json.dumps(result.structured_content) + " ".join(getattr(part, "text", "") for part in result.content)
        job_id = (result.structured_content or {}).get("job_id")
        if job_id is not None:
            said += json.dumps(await end_of(client, job_id))
        assert not trap.sprung(), tool
        # The tokenizer alone asks for no architecture; everything else must have tried the model, and have said why not.
        if kind == "auto_map" or tool not in ("inspect_dataset", "prepare_dataset"):
            assert "never run" in said or "trust_remote_code" in said, (tool, said)
    assert not (project / "out" / "model.safetensors").exists()


async def test_a_chat_template_can_not_leave_its_sandbox(client: Client, project: Path, tmp_path: Path):
    model = make_tiny_model(project / "hostile")
    reach = "cycler.__init__.__globals__.os.system('touch " + str(tmp_path / "was-here") + "')"
    template = "{{ " + reach + " }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    (model / "chat_template.jinja").write_text(template)
    _change(model / "tokenizer_config.json", {"chat_template": template})
    started = await call(client, "start_lora_training", **training(model="hostile"))
    end = await end_of(client, started["job_id"])
    assert end["status"] == "failed"
    assert "unsafe" in end["why"] or "Security" in end["why"], end["why"]
    assert not (tmp_path / "was-here").exists()


async def test_other_users_of_the_machine_can_not_read_the_jobs(client: Client, project: Path, home: Path):
    before = os.umask(0o022)
    try:
        started = await call(client, "start_lora_training", **training(iters=2))
    finally:
        os.umask(before)
    assert (await end_of(client, started["job_id"]))["status"] == "completed"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (home, home / "jobs")] == [0o700, 0o700]


def test_stdio_listens_on_nothing(project: Path):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "mcp_server"]
    server = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
        server.stdin.flush()
        assert json.loads(server.stdout.readline())["id"] == 1, "it serves by now"
        assert psutil.Process(server.pid).net_connections("inet") == []
    finally:
        server.kill()
        server.communicate()


def test_what_ssh_is_given_is_one_command_whatever_the_names_hold(tmp_path: Path):
    """``ssh`` joins its words and hands them to a shell there."""
    odd = [f"a b'c\"; touch {tmp_path}/ran", f"$(touch {tmp_path}/ran)", f"`touch {tmp_path}/ran`"]
    code = "import json, os, sys; print(json.dumps([*sys.argv[1:], os.environ['ODD']]))"
    *_, host, remote = hosts.ssh("mac.local", [sys.executable, "-c", code, *odd], {"ODD": odd[0]})
    assert host == "mac.local"
    said = subprocess.run(["sh", "-c", remote], capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == [*odd, odd[0]]
    assert not (tmp_path / "ran").exists()


def test_http_is_served_on_loopback_alone_and_to_its_own_name(project: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mcp_server", "--http", "--port", str(port)]
    root = Path(__file__).resolve().parents[2]
    server = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _status(port, f"127.0.0.1:{port}") or None, "the server")
        listening = psutil.Process(server.pid).net_connections("tcp")
        assert {one.laddr.ip for one in listening} == {"127.0.0.1"}
        assert _status(port, f"127.0.0.1:{port}") not in (403, 421)
        assert _status(port, "evil.example") in (403, 421), "a foreign name that resolves to 127.0.0.1"
        assert _status(port, f"127.0.0.1:{port}", origin="https://evil.example") in (403, 421)
    finally:
        server.kill()
        server.wait()


def _status(port: int, host: str, origin: str | None = None) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        headers = {"Host": host, "Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        headers |= {"Origin": origin} if origin else {}
        connection.request("POST", "/mcp", json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}), headers)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


async def test_jobs_are_not_given_claude_codes_own_variables(
    client: Client, project: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDECODE"):
        monkeypatch.setenv(name, "private")
    monkeypatch.setenv("HF_TOKEN", TOKENS["HF_TOKEN"])
    started = await call(client, "start_lora_training", **training(iters=500))
    state = wait_until(lambda: (found := folder(started["job_id"]).state()).worker and found, "the worker")
    for identity in (state.runner, state.worker):
        variables = psutil.Process(identity.pid).environ()
        assert "private" not in variables.values()
        assert variables["HF_TOKEN"] == TOKENS["HF_TOKEN"], "what is the user's own is kept"
    await call(client, "stop_job", job_id=started["job_id"])


async def test_pickled_weights_are_refused(client: Client, project: Path):
    model = make_tiny_model(project / "pickled")
    for file in model.glob("*.safetensors"):
        file.rename(model / "pytorch_model.bin")
    assert "safetensors" in await refusal(client, "start_lora_training", **training(model="pickled"))
    adapter = project / "adapters" / "pickled"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"num_layers": 1}')
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04N.")
    text = await refusal(client, "run_benchmark", model="model", adapter_path="adapters/pickled", data="data")
    assert "adapters.safetensors" in text


def test_an_error_never_shows_a_token():
    assert TOKENS["HF_TOKEN"] not in str(ModelError(f"https://user:{TOKENS['HF_TOKEN']}@huggingface.co is gone"))
