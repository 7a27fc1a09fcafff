"""What a benchmark measures with, against stock mlx-lm: losses, perplexity, and a base that adapters leave as it was."""

# pyright: basic
# (MLX and mlx-lm annotate their own calls only in part.)
from __future__ import annotations

import math
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlx_lm")

import mlx.core as mx
from mlx_lm import convert, load
from mlx_lm.perplexity import eval_ppl
from mlx_lm.tuner import trainer

from mcp_server.demo import BASE, task
from mcp_server.errors import DataError, ModelError
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.evaluation.report import Speed
from mcp_server.jobs import store
from mcp_server.workers import general_text
from mcp_server.workers.batches import batch_of
from mcp_server.workers.heldout import HeldOut, row_losses
from mcp_server.workers.job import WorkerJob
from mcp_server.workers.losses import target_mask
from mcp_server.workers.speed import Timer, endless
from mcp_server.workers.swapping import Swapper
from tests.adapters import copy_adapter, train_adapter
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.integration

PROMPT = mx.array([list(range(40, 80))])
# Layers of other kinds, ranks and keys, so that each leaves another trace in the model.
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 8},
    "lora of one key": {"rank": 4, "num_layers": 1, "keys": ["self_attn.q_proj"], "dropout": 0.3},
    "dora": {"kind": "dora", "rank": 4},
    "full": {"kind": "full", "num_layers": 1},
}


@pytest.fixture(scope="module")
def base_4bit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "4bit"
    convert(str(BASE), str(folder), quantize=True, q_bits=4, q_group_size=64, dtype="float32")
    return folder


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: train_adapter(folder / f"a{number}", iters=4, **options)
        for number, (name, options) in enumerate(KINDS.items())
    }


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_adapter(tmp_path_factory.mktemp("good") / "good", iters=20)


def worker(options: BenchmarkOptions) -> WorkerJob:
    spec = store.JobSpec(
        job_id=store.new_id("benchmark"),
        kind="benchmark",
        created=time.time(),
        project="",
        python=sys.executable,
        options=options.model_dump(),
    )
    return WorkerJob(store.create(spec))


def heldout(data: Path, tokenizer: Any, window: int | None = None, **options: Any) -> HeldOut:
    chosen = BenchmarkOptions.model_validate({"data": str(data), "mask_prompt": True, **options})
    return HeldOut(worker(chosen), chosen, tokenizer, window)


@pytest.mark.parametrize("quantized", [False, True])
def test_adapters_of_every_kind_are_put_on_and_taken_off_without_a_trace(
    quantized: bool, adapters: dict[str, Path], base_4bit: Path
):
    source = str(base_4bit if quantized else BASE)
    swapper = Swapper(load(source)[0])
    before = swapper.use(None)(PROMPT)
    mx.eval(before)
    for name, folder in [*adapters.items(), *reversed(adapters.items())]:
        if quantized and name == "full":
            continue  # its weights have another shape than the base's
        on = swapper.use(str(folder))(PROMPT)
        fresh = load(source, adapter_path=str(folder))[0]
        fresh.eval()
        assert mx.array_equal(on, fresh(PROMPT)).item(), name
        assert not mx.array_equal(on, before).item(), name
        assert mx.array_equal(swapper.use(None)(PROMPT), before).item(), name
    assert not [name for name, _ in swapper.model.named_modules() if "lora" in name]


def test_each_row_has_its_own_loss_in_the_order_of_the_file(tmp_path: Path):
    task.write_dataset(tmp_path)
    model, tokenizer, *_ = load(str(BASE))
    rows = heldout(tmp_path, tokenizer, max_seq_length=128)
    sums, counts = rows.losses(model, "it")
    assert len(set(counts)) > 1, "rows of one length would be in order however they are given back"
    for row in range(len(rows)):
        tokens, where = batch_of(rows.rows, [row], 128)
        (alone,), (count,) = row_losses(model, tokens, target_mask(tokens, where))
        assert (sums[row], counts[row]) == (pytest.approx(alone, rel=1e-4), count), row


def test_adapter_that_does_not_fit_leaves_the_base(adapters: dict[str, Path], tmp_path: Path):
    other = make_tiny_model(tmp_path / "other", hidden=192)
    network: Any = load(str(other))[0]
    swapper = Swapper(network)
    before = swapper.use(None)(PROMPT)
    mx.eval(before)
    for name in ("lora", "full"):
        with pytest.raises(ModelError, match="use the model it was trained on"):
            swapper.use(str(adapters[name]))
        assert mx.array_equal(swapper.use(None)(PROMPT), before).item()
        assert type(network.layers[0].self_attn.q_proj).__name__ == "Linear"


def test_nan_weights_are_named_before_anything_is_measured(adapters: dict[str, Path], tmp_path: Path):
    broken = copy_adapter(adapters["lora"], tmp_path / "nan", poison=True)
    swapper = Swapper(load(str(BASE))[0])
    with pytest.raises(ModelError, match=r"1 of \d+ weights hold NaN or infinity"):
        swapper.use(str(broken))


@pytest.mark.parametrize("mask_prompt", [True, False])
def test_loss_equals_stock_mlx_lm_lora_test(mask_prompt: bool, good: Path, tmp_path: Path):
    task.write_dataset(tmp_path / "data")
    model, tokenizer, *_ = load(str(BASE))
    rows = heldout(tmp_path / "data", tokenizer, mask_prompt=mask_prompt, max_seq_length=128)
    swapper = Swapper(model)
    for adapter in (None, str(good)):
        sums, counts = rows.losses(swapper.use(adapter), "it")
        loss = sums.sum() / counts.sum()
        stock: Any = trainer.evaluate(
            model=swapper.model, dataset=rows.rows, batch_size=4, num_batches=-1, max_seq_length=128
        )
        assert loss == pytest.approx(stock, abs=1e-5)
        command = ["lora", "--test", "--test-batches", "-1", "--max-seq-length", "128", "--model", str(BASE)]
        command += ["--data", str(tmp_path / "data"), "--adapter-path", adapter or ""]
        command += ["--mask-prompt"] if mask_prompt else []
        done = subprocess.run(
            [sys.executable, "-m", "mlx_lm", *command], capture_output=True, text=True, timeout=100, check=True
        )
        said = re.search(r"Test loss ([\d.]+)", done.stdout)
        assert said is not None, done.stdout
        assert abs(loss - float(said[1])) < 1e-3  # it is printed with three digits


def test_perplexity_of_plain_text_equals_mlx_lm_perplexity(tmp_path: Path):
    text = "\n".join(task.sentence(item, field) for item in task.PRODUCTS for field in task.QUESTIONS)
    (tmp_path / "shop.txt").write_text(text)
    model, tokenizer, *_ = load(str(BASE))
    data = general_text.windows(tmp_path / "shop.txt", tokenizer, 512)
    assert data.shape[0] >= general_text.WANTED_WINDOWS
    sums, counts = general_text.losses(model, data, batch_size=8)
    stock, _ = eval_ppl(model, data, batch_size=8)
    assert math.exp(sums.sum() / counts.sum()) == pytest.approx(stock, rel=0.01)
    assert math.exp(sums.sum() / counts.sum()) == pytest.approx(stock, rel=1e-5)


def test_general_text_may_be_files_of_several_kinds_in_a_folder(tmp_path: Path):
    _, tokenizer, *_ = load(str(BASE))
    (tmp_path / "a.txt").write_text("The lamp is red. " * 40)
    # JSON's strings may hold U+2028 as it is: it is no end of a line.
    (tmp_path / "b.jsonl").write_text('{"text": "The sofa\u2028is blue."}\n' * 40, encoding="utf-8")
    (tmp_path / "c.jsonl").write_text((task.write_dataset(tmp_path / "d")["test"]).read_text())
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    whole = general_text.windows(tmp_path, tokenizer, 512).size
    assert whole > general_text.windows(tmp_path / "a.txt", tokenizer, 512).size
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="can't be read as text"):
        general_text.windows(tmp_path / "a.txt", tokenizer, 512)
    (tmp_path / "a.txt").write_text("Hi.")
    with pytest.raises(DataError, match="give some pages"):
        general_text.windows(tmp_path / "a.txt", tokenizer, 512)


def test_questions_are_spread_over_the_file_and_cover_all_formats(tmp_path: Path):
    _, tokenizer, *_ = load(str(BASE))
    (tmp_path / "test.jsonl").write_text('{"prompt": "Where is the lamp?", "completion": "There."}\n' * 10)
    rows = heldout(tmp_path, tokenizer)
    assert [question.row for question in rows.questions(5)] == [0, 2, 4, 6, 8]
    assert len(rows.questions(50)) == 10
    assert rows.questions(1)[0].text == "Where is the lamp?"
    (tmp_path / "test.jsonl").write_text('{"text": "The lamp is red."}\n' * 10)
    assert heldout(tmp_path, tokenizer, mask_prompt=False).questions(50) == []


def test_prompt_beyond_the_context_is_named_by_its_row(tmp_path: Path):
    _, tokenizer, *_ = load(str(BASE))
    short = '{"prompt": "Where is the lamp?", "completion": "There."}\n'
    (tmp_path / "test.jsonl").write_text(short + '{"prompt": "' + "lamp " * 600 + '", "completion": "There."}\n')
    with pytest.raises(DataError, match=r"context window of 512 tokens in 1 of 2 rows.*test\.jsonl:2.*shorten"):
        heldout(tmp_path, tokenizer, window=512)
    with pytest.raises(
        DataError, match=r"max_seq_length=64 tokens in 1 of 2 rows.*test\.jsonl:2.*raise max_seq_length"
    ):
        heldout(tmp_path, tokenizer, window=512, max_seq_length=64)
    # Plain loss over the whole row needs no answer within the window, but the question can't be asked.
    with pytest.raises(
        DataError, match=r"test\.jsonl:2 has a prompt of \d+ tokens, and the model's context window is 512"
    ):
        heldout(tmp_path, tokenizer, window=512, mask_prompt=False).questions(10)


def test_speed_is_timed_in_turn_over_generations_of_one_length(good: Path):
    model, tokenizer, *_ = load(str(BASE))
    options = BenchmarkOptions(speed_trials=2, speed_prompt_tokens=600, speed_generation_tokens=16, speed_batch_size=2)
    swapper = Swapper(model)
    asked: list[str | None] = []
    use = swapper.use
    swapper.use = lambda adapter: asked.append(adapter) or use(adapter)
    speeds: list[Speed] = Timer(options, tokenizer, 512).measure(worker(options), swapper, [None, str(good)])
    assert asked == [str(good), None, None, str(good), str(good), None]
    for speed in speeds:
        assert (speed.trials, speed.prompt_tokens, speed.generation_tokens) == (2, 496, 16)
        found = speed.generation_tokens_per_second
        assert 0 < found.min <= found.median <= found.max
        assert speed.seconds_to_first_token.min > 0
        assert speed.peak_memory_gb > 0
        assert speed.batch_generation_tokens_per_second is not None
    assert tokenizer.eos_token_ids == {2}


def test_generations_do_not_end_early_while_timed():
    _, tokenizer, *_ = load(str(BASE))
    with endless(tokenizer):
        assert not tokenizer.eos_token_ids
    assert tokenizer.eos_token_ids
