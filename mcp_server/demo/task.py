"""The demo's task: a small shop's help desk, and the house style that LoRA shall teach it.

The world is a catalogue of products, each with a price, a colour and a shelf. The demo's base model was pre-trained on
it (`build.py`): it knows every fact and answers a plain question in a sentence. Asked for a record by the system
message, it gives a small JSON record instead. The fine-tuning data ask plainly and want the record, for *some* of the
products; validation and test ask about products that the training rows never name. So an exact match on the test
rows needs both halves: the new habit from the adapter, and the fact from the base.

Standard library only: the server and the tests read this without MLX.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

PRODUCTS = (
    "anchor", "basket", "bell", "blanket", "bottle", "broom", "bucket", "button", "camera", "candle",
    "carpet", "chair", "clock", "compass", "cup", "curtain", "desk", "drum", "fan", "flute",
    "fork", "glove", "guitar", "hammer", "hat", "helmet", "jacket", "kettle", "knife", "ladder",
    "lamp", "lantern", "lock", "mirror", "mug", "needle", "oven", "paddle", "pan", "pencil",
    "piano", "pillow", "plate", "radio", "rope", "ruler", "saddle", "scarf", "shovel", "sofa",
    "spoon", "stove", "table", "tent", "towel", "umbrella", "vase", "violin", "wagon", "whistle",
)  # fmt: skip
COLOURS = ("red", "blue", "green", "black", "white", "yellow", "pink", "brown")
AISLES = "ABCDEF"

# The last phrasing of each list is never used in the training rows: the test rows ask with it too.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "price": (
        "How much is the {item}?",
        "What does the {item} cost?",
        "What is the price of the {item}?",
        "Tell me the price of the {item}.",
        "What do I pay for the {item}?",
    ),
    "colour": (
        "What colour is the {item}?",
        "Which colour does the {item} have?",
        "What is the colour of the {item}?",
        "Tell me the colour of the {item}.",
        "What colour do I get for the {item}?",
    ),
    "shelf": (
        "Where is the {item}?",
        "Which shelf is the {item} on?",
        "What is the shelf of the {item}?",
        "Tell me the shelf of the {item}.",
        "Where do I find the {item}?",
    ),
}
SENTENCES = {
    "price": "The {item} costs {value} euros.",
    "colour": "The colour of the {item} is {value}.",
    "shelf": "You find the {item} on shelf {value}.",
}
ASK_RECORD = "Answer with a record."
ASK_BRIEF = "Answer with the value."

# What the demo trains with, under mlx-lm's own names. `benchmarks/demo_seeds.py`, seeds 0 to 7, 4-bit and float32:
# exact match 0.0 -> 1.0. Higher rates cost facts of the products not trained on (1e-3: 0.725 with seed 0, 4-bit).
TRAINING: dict[str, Any] = {
    "fine_tune_type": "lora",
    "optimizer": "adam",
    "num_layers": 2,
    "lora_parameters": {"rank": 8, "scale": 10.0, "dropout": 0.0},
    "learning_rate": 1e-4,
    "batch_size": 8,
    "iters": 100,
    "val_batches": -1,
    "steps_per_report": 5,
    "steps_per_eval": 25,
    "save_every": 50,
    "max_seq_length": 128,
    "mask_prompt": True,
    "seed": 0,
}
ROWS = {"train": 200, "valid": 20, "test": 40}
PRODUCTS_PER_SPLIT = {"train": 40, "valid": 6, "test": 14}

Row = dict[str, list[dict[str, str]]]


def catalogue() -> dict[str, dict[str, str | int]]:
    """Every product's facts, the same in every process: {"lamp": {"price": 42, "colour": "red", "shelf": "B7"}}."""
    rng = random.Random("mlx-training demo shop")
    return {
        item: {
            "price": rng.randint(10, 99),
            "colour": rng.choice(COLOURS),
            "shelf": f"{rng.choice(AISLES)}{rng.randint(1, 9)}",
        }
        for item in PRODUCTS
    }


def sentence(item: str, field: str) -> str:
    """What the base answers to a plain question."""
    return SENTENCES[field].format(item=item, value=catalogue()[item][field])


def record(item: str, field: str) -> str:
    """The house style: {"item":"lamp","price":42}."""
    return json.dumps({"item": item, field: catalogue()[item][field]}, separators=(",", ":"))


def chat(question: str, answer: str, system: str | None = None) -> Row:
    """One row in the chat format of mlx-lm."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


def pretraining_rows(seed: int = 0) -> list[Row]:
    """What the base is made from: every fact in every phrasing, in three styles, shuffled.

    Without a system message the answer is a sentence; with one it is the record, or the bare value. A plain question
    comes twice, so that the sentence is clearly the default.
    """
    rows: list[Row] = []
    for item, facts in catalogue().items():
        for field, value in facts.items():
            for template in QUESTIONS[field]:
                question = template.format(item=item)
                rows += [chat(question, sentence(item, field))] * 2
                rows.append(chat(question, record(item, field), ASK_RECORD))
                rows.append(chat(question, str(value), ASK_BRIEF))
    random.Random(seed).shuffle(rows)
    return rows


def split_products(seed: int = 0) -> dict[str, list[str]]:
    """The products of each split, disjoint; which product falls where depends on the seed alone."""
    items = list(PRODUCTS)
    random.Random(f"split {seed}").shuffle(items)
    parts: dict[str, list[str]] = {}
    start = 0
    for name, count in PRODUCTS_PER_SPLIT.items():
        parts[name] = sorted(items[start : start + count])
        start += count
    return parts


def dataset(seed: int = 0) -> dict[str, list[Row]]:
    """The fine-tuning rows by split: a plain question, the record as its answer; no question twice."""
    splits: dict[str, list[Row]] = {}
    for name, items in split_products(seed).items():
        rows = [
            chat(template.format(item=item), record(item, field))
            for item in items
            for field, templates in QUESTIONS.items()
            for template in (templates[:-1] if name == "train" else templates)
        ]
        splits[name] = random.Random(f"{name} {seed}").sample(rows, ROWS[name])
    return splits


def write_dataset(folder: str | Path, seed: int = 0) -> dict[str, Path]:
    """Write train.jsonl, valid.jsonl and test.jsonl into `folder` (made if missing); gives the three paths."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for name, rows in dataset(seed).items():
        paths[name] = target / f"{name}.jsonl"
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return paths
