"""The demo's data: complete, disjoint by product, the same for the same seed, and readable by mlx-lm's chat format."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_server.demo import task

SEEDS = range(6)


def products_named(rows: list[task.Row]) -> set[str]:
    text = " ".join(message["content"] for row in rows for message in row["messages"]).lower()
    return {item for item in task.PRODUCTS if f" {item}" in text or f'"{item}"' in text}


def test_catalogue_gives_every_product_three_facts_in_range():
    facts = task.catalogue()
    assert list(facts) == list(task.PRODUCTS)
    assert len(set(task.PRODUCTS)) == len(task.PRODUCTS) == 60
    for fact in facts.values():
        assert set(fact) == set(task.QUESTIONS) == set(task.SENTENCES)
        assert 10 <= int(fact["price"]) <= 99
        assert fact["colour"] in task.COLOURS


def test_catalogue_does_not_depend_on_hash_randomisation():
    code = "from mcp_server.demo import task; print(task.catalogue())"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert answers == {f"{task.catalogue()}\n"}


@pytest.mark.parametrize("seed", SEEDS)
def test_no_product_is_in_two_splits(seed: int):
    rows = task.dataset(seed)
    parts = task.split_products(seed)
    assert sorted(item for part in parts.values() for item in part) == sorted(task.PRODUCTS)
    for name in rows:
        # What the rows say, not only what the split intended.
        assert products_named(rows[name]) <= set(parts[name])
    assert not products_named(rows["train"]) & (products_named(rows["valid"]) | products_named(rows["test"]))
    assert not products_named(rows["valid"]) & products_named(rows["test"])


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_are_plain_questions_answered_by_true_records(seed: int):
    facts = task.catalogue()
    for name, rows in task.dataset(seed).items():
        assert len(rows) == task.ROWS[name]
        assert len({row["messages"][0]["content"] for row in rows}) == len(rows), "a question comes twice"
        for row in rows:
            assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
            answer = json.loads(row["messages"][1]["content"])
            item = answer.pop("item")
            assert item in row["messages"][0]["content"]
            assert list(answer.items()) in [[fact] for fact in facts[item].items()]


def test_training_never_uses_the_last_phrasing_and_test_does():
    def last_phrasings(rows: list[task.Row]) -> int:
        questions = {row["messages"][0]["content"] for row in rows}
        return sum(t[-1].format(item=item) in questions for t in task.QUESTIONS.values() for item in task.PRODUCTS)

    data = task.dataset(0)
    assert last_phrasings(data["train"]) == 0
    assert last_phrasings(data["test"]) > 0


def test_write_dataset_writes_one_json_a_line_and_repeats_itself(tmp_path: Path):
    first = task.write_dataset(tmp_path / "new" / "a", seed=3)
    second = task.write_dataset(tmp_path / "b", seed=3)
    other = task.write_dataset(tmp_path / "c", seed=4)
    assert [path.name for path in first.values()] == ["train.jsonl", "valid.jsonl", "test.jsonl"]
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes()
        assert path.read_bytes() != other[name].read_bytes()
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == task.dataset(3)[name]
        assert len(lines) >= task.TRAINING["batch_size"]  # mlx-lm refuses a smaller set, for validation too


def test_pretraining_answers_in_a_sentence_unless_told_otherwise():
    rows = task.pretraining_rows()
    assert len(rows) == len(task.PRODUCTS) * 3 * 5 * 4
    for row in rows:
        system = row["messages"][0]["content"] if row["messages"][0]["role"] == "system" else None
        is_record = row["messages"][-1]["content"].startswith("{")
        assert is_record == (system == task.ASK_RECORD)


def test_task_and_package_import_without_mlx():
    code = (
        "import sys; from mcp_server.demo import BASE, task; "
        "heavy = {'mlx', 'mlx_lm', 'numpy', 'transformers', 'tokenizers'}; "
        "bad = heavy & {name.split('.')[0] for name in sys.modules}; "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
