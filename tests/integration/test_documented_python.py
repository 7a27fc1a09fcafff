"""The Python in the skills runs as it stands, on the demo's model, with fewer steps."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mcp.client import Client

from mcp_server.demo import BASE
from tests.helpers import call, end_of, training

pytestmark = [pytest.mark.integration, pytest.mark.anyio]
ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted((ROOT / "skills" / "python-scripting").glob("**/*.md"))


def python_blocks(document: Path) -> list[str]:
    blocks = re.findall(r"^```python\n(.*?)^```", document.read_text(encoding="utf-8"), re.M | re.S)
    shorter = [block.replace("iters=500,", "iters=4, num_layers=1, batch_size=2,") for block in blocks]
    return [block.replace('"400:2e-5,400:1e-5,200:2e-6",', '"2:2e-5,2:1e-5", num_layers=1,') for block in shorter]


async def test_every_block_of_the_python_skill_runs(project: Path, client: Client) -> None:
    (project / "models").mkdir()
    (project / "models" / "base-4bit").symlink_to(BASE, target_is_directory=True)
    (project / "tickets.json").write_text(
        json.dumps([{"question": "Where?", "answer": "There."}, {"question": "Why?"}])
    )
    started = await call(client, "start_lora_training", **training(val_batches=0))
    await end_of(client, started["job_id"])
    (project / "adapters" / "support").symlink_to(project / "adapters" / "test", target_is_directory=True)
    printed: dict[str, list[str]] = {}
    for document in DOCUMENTS:
        for block in python_blocks(document):
            if 'adapter_path="adapters/support",\n    iters' in block:
                block = block.replace("adapters/support", "adapters/new")  # a training never writes into an old one
            done = subprocess.run(
                [sys.executable, "-c", block],
                cwd=project,
                env=dict(os.environ) | {"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert done.returncode == 0, f"{document.name}:\n{block}\n{done.stderr[-2000:]}"
            printed.setdefault(document.name, []).append(done.stdout)
    assert printed.keys() == {"mlx-lm-api.md", "pipeline.md", "data-scripts.md"}
    assert "left out: {'empty': 1}" in printed["data-scripts.md"][0]
    assert (project / "adapters" / "new" / "adapters.safetensors").exists()
