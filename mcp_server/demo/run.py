"""The demo: the whole main job through a real MCP client over stdio, offline, on the embedded model."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import anyio
from mcp import StdioServerParameters
from mcp.client import Client
from rich.console import Console
from rich.table import Table

from mcp_server.demo import BASE, task
from mcp_server.demo.files import new_folder
from mcp_server.errors import UserError
from mcp_server.platform import interpreter
from mcp_server.training import curve
from mcp_server.training.history import read_history


class DemoError(UserError):
    """A step of the demo did not do what it should."""


class Demo:
    """One run in a folder of its own."""

    def __init__(self, output: Path, console: Console) -> None:
        self._output = output
        self._console = console

    async def run(self) -> dict[str, Any]:
        """Platform, conversion, training, log, benchmark; ends with a table and the curve. The benchmark's report."""
        self._output.mkdir(parents=True)
        task.write_dataset(self._output / "data", seed=0)
        self._say(f"a small shop's help desk: base model {BASE}, data {self._output / 'data'}")
        for name, path in (("train", "train.jsonl"), ("valid", "valid.jsonl"), ("test", "test.jsonl")):
            rows = len((self._output / "data" / path).read_text(encoding="utf-8").splitlines())
            self._say(
                f"  {name}: {rows} rows" + (" about products that training never names" if name != "train" else "")
            )
        server = StdioServerParameters(
            command=sys.executable, args=["-m", "mcp_server"], env=self._environment(), cwd=self._output
        )
        async with Client(server) as client:
            return await self._main_job(client)

    async def _main_job(self, client: Client) -> dict[str, Any]:
        report = await self._call(client, "check_platform")
        self._say(f"  {report['summary']}")
        if report["verdict"] == "not ready":
            raise DemoError(f"the demo needs a machine that can run MLX: {report['summary']}")
        model = "models/demo-4bit"
        answer = await self._call(client, "convert_model", model=str(BASE), mlx_path=model, dtype="float32")
        result = self._completed(answer)["result"]
        self._say(
            f"  {result['source_bytes'] / 1e6:.2f} → {result['bytes'] / 1e6:.2f} MB, "
            f"{result['bits_per_weight']} bits per weight"
        )
        started = await self._call(
            client, "start_lora_training", model=model, data="data", adapter_path="adapters/help-desk", **task.TRAINING
        )
        job_id = started["job_id"]
        self._say(f"  job {job_id} is {started['status']}, {started['epochs']} epochs of {started['train_rows']} rows")
        await self._follow(client, job_id)
        answer = await self._call(
            client, "run_benchmark", model=model, adapter_path=started["adapter_path"], data="data", num_prompts=40
        )
        report = self._completed(answer)["report"]
        self._show(report, job_id, Path(started["adapter_path"]))
        return report

    async def _follow(self, client: Client, job_id: str) -> None:
        cursor = 0
        while True:
            news = await self._call(
                client, "read_training_log", job_id=job_id, since=cursor, wait_seconds=30, until="val"
            )
            cursor = news["cursor"]
            self._say(f"  {news['summary']}")
            if news["finished"]:
                break
        if news["status"] != "completed":
            raise DemoError(f"the training {news['status']}: {news.get('why')}")

    def _show(self, report: dict[str, Any], job_id: str, adapter: Path) -> None:
        table = Table("", "base", "adapter", title=f"{report['rows']} held-out questions")
        base, tuned = report["base"], report["adapter"]
        table.add_row("exact match", f"{base['exact_match']:.0%}", f"{tuned['exact_match']:.0%}")
        table.add_row("loss, nats per token", f"{base['loss']:.4f}", f"{tuned['loss']:.4f}")
        table.add_row("perplexity", f"{base['perplexity']:.3f}", f"{tuned['perplexity']:.3f}")
        self._console.print()
        self._console.print(table)
        sample = report["samples"][0]
        self._say(f"asked:   {sample['prompt']!r}\nbase:    {sample['base']}\nadapter: {sample['adapter']}")
        self._say(f"\n{report['summary']}\n")
        metrics = self._output / "state" / "jobs" / job_id / "metrics.jsonl"
        self._console.print("training loss by step (logarithmic)")
        self._console.print(curve.as_text(read_history(metrics).train), highlight=False)
        png = adapter / "loss.png"
        self._say(f"\nadapter:    {adapter}")
        missing = interpreter.install(curve.MATPLOTLIB, interpreter.require())
        self._say(f"loss curve: {png}" if png.exists() else f"loss curve as PNG needs matplotlib: {missing}")
        if base["exact_match"] > 0.10 or tuned["exact_match"] < 0.80:
            raise DemoError(
                f"exact match went from {base['exact_match']:.0%} to {tuned['exact_match']:.0%}, not from at most 10 % "
                f"to at least 80 %; please report this with {self._output}"
            )

    async def _call(self, client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
        shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items() if name not in task.TRAINING)
        self._console.print(f"[bold]{tool}[/bold]({shown})", highlight=False)
        result = await client.call_tool(tool, arguments)
        if result.is_error or result.structured_content is None:
            text = " ".join(getattr(block, "text", "") for block in result.content)
            raise DemoError(f"{tool} failed: {text}")
        return result.structured_content

    def _completed(self, answer: dict[str, Any]) -> dict[str, Any]:
        if answer["status"] != "completed":
            raise DemoError(f"job {answer['job_id']} {answer['status']}: {answer.get('why')}")
        return answer

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ) | {
            "MLX_TRAINING_HOME": str(self._output / "state"),
            "CLAUDE_PROJECT_DIR": str(self._output),
            "HF_HUB_OFFLINE": "1",
            # On the CPU back end compiled kernels are built with g++ one by one, which takes longer than this demo.
            "MLX_DISABLE_COMPILE": "1",
        }
        if platform.system() == "Linux":
            environment.setdefault("MLX_TRAINING_PLATFORMS", "linux-cpu")
        return environment


def run_demo(output: Path | None, console: Console) -> dict[str, Any]:
    """Run the demo in ``output``, by default a new folder below ``demo-run``; the benchmark's report. Raises UserError."""
    folder = new_folder(output)
    started = time.monotonic()
    report = anyio.run(Demo(folder, console).run)
    console.print(f"\n{time.monotonic() - started:.0f} s in all", highlight=False)
    return report
