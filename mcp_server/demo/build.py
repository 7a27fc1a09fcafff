"""Make the demo's base model again: `python -m mcp_server.demo.build --output DIR`.

A tokenizer is trained on the task's text, a tiny Qwen2 model is pre-trained with mlx-lm's own training loop (every
parameter trainable), and both are saved the way mlx-lm expects a model folder. Deterministic by seed on one machine.
The result is committed in `base/`: on two shared cores the 1500 steps took 278 s with OpenBLAS
(LD_PRELOAD=libopenblas.so.0, MLX_DISABLE_COMPILE=1), while 50 steps took 54 s with the BLAS of MLX's Linux wheel.
Nothing is downloaded.
"""

# pyright: basic, reportArgumentType=false
# (MLX and mlx-lm annotate their own calls partly or too narrowly.)
from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import qwen2
from mlx_lm.tuner.datasets import CacheDataset, ChatDataset
from mlx_lm.tuner.trainer import TrainingArgs, train
from mlx_lm.utils import load_tokenizer
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from mcp_server.demo import task

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Qwen2's own split: transformers builds its Qwen2 tokenizer with this pattern whatever tokenizer.json says.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Enough for every word of the task to be one token (628 are used): a row of the demo then fits in 32.
MAX_VOCABULARY = 640
# Every Linear and the embedding have an input of 64 n, so that 4-bit groups of 64 fit everywhere.
SHAPE = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def build_tokenizer(folder: Path, texts: list[str]) -> int:
    """Train a byte-level BPE on `texts` and write the tokenizer's files; gives the size of the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=MAX_VOCABULARY,
            special_tokens=list(SPECIAL),
            # All 256 bytes, so that any text can be encoded.
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 512,
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
        },
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return tokenizer.get_vocab_size()


def build_config(folder: Path, vocabulary: int) -> dict[str, Any]:
    """Write config.json and generation_config.json for a model of SHAPE; gives the config."""
    ids = {"bos_token_id": SPECIAL.index("<|endoftext|>"), "eos_token_id": SPECIAL.index("<|im_end|>")}
    config: dict[str, Any] = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        **SHAPE,
        "vocab_size": vocabulary,
        "max_position_embeddings": 512,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        **ids,
    }
    write_json(folder / "config.json", config)
    write_json(
        folder / "generation_config.json", {**ids, "pad_token_id": SPECIAL.index("<|endoftext|>"), "do_sample": False}
    )
    return config


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


class Progress:
    """Prints what mlx-lm's loop reports (its own screen shows no learning rate and no time left)."""

    def __init__(self, iters: int) -> None:
        self.iters = iters
        self.start = time.monotonic()

    def on_train_loss_report(self, info: dict[str, Any]) -> None:
        print(
            f"step {info['iteration']}/{self.iters}  loss {info['train_loss']:.4f}  "
            f"lr {info['learning_rate']:.2e}  {time.monotonic() - self.start:.0f} s",
            flush=True,
        )

    def on_val_loss_report(self, info: dict[str, Any]) -> None:
        del info  # There is no validation set: every fact is to be known.


def pretrain(folder: Path, config: dict[str, Any], *, iters: int, batch_size: int, rate: float, seed: int) -> None:
    """Train all parameters on the pre-training rows and write model.safetensors into `folder`."""
    mx.random.seed(seed)
    np.random.seed(seed)
    model = qwen2.Model(qwen2.ModelArgs.from_dict(config))
    model.unfreeze()
    parameters: Any = tree_flatten(model.trainable_parameters())
    print(f"{sum(value.size for _, value in parameters):,} parameters, vocabulary {config['vocab_size']}", flush=True)
    data: Any = task.pretraining_rows(seed)
    tokenizer: Any = load_tokenizer(folder)
    rows = ChatDataset(data, tokenizer, mask_prompt=False)
    warmup = max(1, iters // 20)
    schedule = optim.join_schedules(
        [optim.linear_schedule(1e-6, rate, warmup), optim.cosine_decay(rate, iters - warmup, rate / 100)], [warmup]
    )
    # mlx-lm's loop always writes its "adapter" file, here all weights; the metadata that loaders want is added below.
    with tempfile.TemporaryDirectory() as scratch:
        train(
            model,
            optim.AdamW(learning_rate=schedule, weight_decay=0.01),
            CacheDataset(rows),
            args=TrainingArgs(
                batch_size=batch_size,
                iters=iters,
                steps_per_report=50,
                steps_per_save=iters + 1,
                max_seq_length=128,
                adapter_file=str(Path(scratch) / "all.safetensors"),
            ),
            training_callback=Progress(iters),
        )
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})


def build(output: Path, *, iters: int, batch_size: int, rate: float, seed: int) -> Path:
    """Make the whole model folder beside `output`, then move it there, so that half a model is never left."""
    if output.exists():
        raise SystemExit(f"{output} exists: choose a new folder or remove it first")
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        texts = [message["content"] for row in task.pretraining_rows(seed) for message in row["messages"]]
        texts += ["system\n", "user\n", "assistant\n"] * 2000  # as often as the template puts them there
        config = build_config(scratch, build_tokenizer(scratch, texts))
        pretrain(scratch, config, iters=iters, batch_size=batch_size, rate=rate, seed=seed)
        scratch.chmod(0o755)
        scratch.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return output


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the model folder to make; must not exist")
    parser.add_argument("--iters", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    start = time.monotonic()
    folder = build(args.output, iters=args.iters, batch_size=args.batch_size, rate=args.learning_rate, seed=args.seed)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size:,} bytes, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
