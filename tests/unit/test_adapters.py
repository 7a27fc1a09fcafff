"""Adapters: found, described, ranked, compared."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from mcp_server.adapters import find
from mcp_server.adapters.listing import AdapterRequest, list_adapters
from mcp_server.cli import main
from mcp_server.errors import PathError
from mcp_server.training.options import TrainingOptions
from tests.recorded import BENCHMARK, make_job

RESULTS = {"steps": 100, "weights_of_step": 100, "final_val_loss": 1.0, "best_val_loss": 1.0, "best_val_step": 99}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(folder))
    return folder


def put_adapter(
    folder: Path,
    *,
    job_id: str = "train-1",
    valid: str = "sha256:v",
    valid_rows: int = 400,
    age: float = 0.0,
    results: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """An adapter folder as a training leaves it."""
    folder.mkdir(parents=True)
    given = TrainingOptions.model_validate({"model": "some/model", "data": "/project/data"} | options)
    (folder / "adapter_config.json").write_text(json.dumps(given.as_mlx_lm()), encoding="utf-8")
    (folder / "adapters.safetensors").write_bytes(b"x" * 1000)
    when = time.time() - age
    os.utime(folder / "adapters.safetensors", (when, when))
    record = {
        "job_id": job_id,
        "data": {
            "path": given.data,
            "files": {"train.jsonl": "sha256:t" + "0" * 40, "valid.jsonl": valid},
            "rows": {"train": 40, "valid": valid_rows},
        },
        "options": given.model_dump(mode="json"),
        "results": RESULTS | (results or {}),
    }
    (folder / "provenance.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def paths(**request: Any) -> list[str]:
    return [adapter.path for adapter in list_adapters(AdapterRequest(**request)).adapters]


def test_adapters_are_found_below_the_project_and_where_jobs_put_them(project: Path, tmp_path: Path):
    put_adapter(project / "adapters/a")
    put_adapter(project / "adapters/b/previous/20260101-000000")
    elsewhere = put_adapter(tmp_path / "elsewhere")
    make_job("train-20260101-000000-aaaa", adapter_path=str(elsewhere))
    make_job("train-20260101-000000-bbbb", adapter_path=str(project / "adapters/a"))
    make_job("train-20260101-000000-cccc", adapter_path=str(tmp_path / "gone"))
    (project / "adapters/empty").mkdir()
    assert set(paths()) == {"adapters/a", "adapters/b/previous/20260101-000000", str(elsewhere)}


def test_the_search_keeps_out_of_links_checkpoints_and_other_peoples_folders(project: Path, tmp_path: Path, home: Path):
    put_adapter(project / "real")
    outside = put_adapter(tmp_path / "outside/deep")
    (project / "link").symlink_to(outside.parent, target_is_directory=True)
    (project / "loop").symlink_to(project, target_is_directory=True)
    for name in (".git/a", ".venv/a", "node_modules/a", "jobs/x/checkpoints/0000100"):
        put_adapter(project / name)
    assert paths() == ["real"]


def test_the_search_is_bounded_and_says_so(project: Path, monkeypatch: pytest.MonkeyPatch):
    put_adapter(project / "near")
    for number in range(30):
        (project / f"a{number}/b/c").mkdir(parents=True)
    put_adapter(project / "a3/b/c/far")
    monkeypatch.setattr(find, "_MOST_FOLDERS", 40)
    found = list_adapters(AdapterRequest())
    assert [adapter.path for adapter in found.adapters] == ["near"]
    assert "cut short" in found.showing
    assert paths(folder="a3") == ["a3/b/c/far"]


def test_best_comes_first_with_what_repeats_it(project: Path):
    put_adapter(project / "worse", results={"final_val_loss": 1.5, "best_val_loss": 1.2}, learning_rate=1e-4)
    put_adapter(project / "best", job_id="train-2", results={"final_val_loss": 0.9}, age=50, learning_rate=3e-5)
    found = list_adapters(AdapterRequest())
    assert [adapter.path for adapter in found.adapters] == ["best", "worse"]
    assert (
        found.summary
        == "best is 1 of 2 by validation loss: validation loss 0.9 after 100 steps; not benchmarked yet, so not proved"
    )
    assert found.best is not None
    assert found.best.arguments == {"model": "some/model", "data": "/project/data", "learning_rate": 3e-5}
    assert found.best.command == "mlx-training train --model some/model --data /project/data --learning-rate 3e-05"
    worse = found.adapters[1]
    assert worse.options == {"learning_rate": 1e-4}, "only what the best has otherwise"
    assert (worse.val_loss, worse.best_val_loss) == (1.5, 1.2), "its weights are not those of its best step"


def test_losses_of_other_data_are_not_ranked_against_each_other(project: Path):
    put_adapter(project / "old", valid="sha256:old", age=500, results={"final_val_loss": 0.1})
    put_adapter(project / "masked", age=300, results={"final_val_loss": 0.2}, mask_prompt=True)
    put_adapter(project / "new", age=10, results={"final_val_loss": 2.0})
    found = list_adapters(AdapterRequest())
    assert [(adapter.path, adapter.rank) for adapter in found.adapters] == [
        ("new", "1 of 1 by validation loss"),
        ("masked", "1 of 1 by validation loss"),
        ("old", "1 of 1 by validation loss"),
    ]


@pytest.mark.parametrize(
    ("one", "other", "rows", "together"),
    [
        ({}, {"val_batches": 1, "batch_size": 1}, 400, False),  # 100 rows, and a single one
        ({}, {"val_batches": 100, "batch_size": 1}, 400, True),
        ({}, {"val_batches": -1}, 400, False),
        ({}, {"val_batches": -1, "batch_size": 1}, 100, True),  # all of them, one way or the other
        ({}, {"stock": True}, 400, False),  # others at each validation
        ({"stock": True}, {"stock": True, "seed": 1}, 400, True),
        ({"val_batches": -1}, {"val_batches": -1, "stock": True}, 400, True),
        ({"val_batches": -1}, {"val_batches": -1, "stock": True}, 401, False),  # stock leaves the last row out
    ],
)
def test_validation_losses_of_other_rows_are_not_ranked_together(
    project: Path, one: dict[str, Any], other: dict[str, Any], rows: int, together: bool
):
    for name, options in (("one", one), ("other", other)):
        put_adapter(project / name, valid_rows=rows, **options)
    ranks = {adapter.rank for adapter in list_adapters(AdapterRequest()).adapters}
    assert ranks == (
        {f"{place} of 2 by validation loss" for place in (1, 2)} if together else {"1 of 1 by validation loss"}
    )
    compared = list_adapters(AdapterRequest(compare=["one", "other"])).summary
    assert ("can't be compared" in compared) != together


def test_benchmarks_on_one_test_set_outrank_validation(project: Path):
    for name, val, held_out in (("a", 0.5, 0.8), ("b", 0.6, 0.3)):
        adapter = put_adapter(project / name, age=500, results={"final_val_loss": val})
        measured = BENCHMARK | {"adapter": BENCHMARK["adapter"] | {"loss": held_out}}
        make_job(f"benchmark-20260101-000000-{name}", adapter_path=str(adapter), result=measured)
    found = list_adapters(AdapterRequest())
    assert [adapter.path for adapter in found.adapters] == ["b", "a"]
    assert found.adapters[0].rank == "1 of 2 by benchmark loss"
    seen = found.adapters[0].benchmark
    assert seen is not None and (seen.verdict, seen.loss, seen.exact_match) == ("better", 0.3, 0.75)


def test_adapters_without_a_validation_loss_are_ranked_by_benchmarks_of_the_same_test(project: Path):
    unknown = {"final_val_loss": None, "best_val_loss": None}
    for name, held_out, test in (("a", 0.8, {}), ("b", 0.3, {}), ("c", 0.1, {"tokens": 5}), ("validated", 0.5, {})):
        results = {} if name == "validated" else unknown
        adapter = put_adapter(project / name, age=900 if name == "c" else 500, results=results)
        measured = BENCHMARK | {"adapter": BENCHMARK["adapter"] | {"loss": held_out}} | test
        make_job(f"benchmark-20260101-000000-{name}", adapter_path=str(adapter), result=measured)
    put_adapter(project / "unmeasured", results=unknown)
    found = list_adapters(AdapterRequest())
    assert [(adapter.path, adapter.rank) for adapter in found.adapters] == [
        ("b", "1 of 3 by benchmark loss"),
        ("validated", "2 of 3 by benchmark loss"),
        ("a", "3 of 3 by benchmark loss"),
        ("c", "1 of 1 by benchmark loss"),
        ("unmeasured", None),
    ]
    assert found.summary == "b is 1 of 3 by benchmark loss; benchmark on test.jsonl: better, loss 0.3"
    assert found.best is not None and found.best.path == "b" and found.best.arguments
    compared = list_adapters(AdapterRequest(compare=["a", "b"])).summary
    assert compared == "the second has the lower benchmark loss: 0.8 against 0.3"
    assert "not known" in list_adapters(AdapterRequest(compare=["a", "unmeasured"])).summary


def test_benchmark_of_a_jobs_checkpoints_is_told_of_the_adapters_own_line(project: Path):
    """The report is about the checkpoint that was first; the job's adapter was second, and another could not be measured."""
    own, damaged = (put_adapter(project / name, age=500) for name in ("own", "damaged"))
    first = "/jobs/train-1/checkpoints/best-0000003"
    lines = [
        {"name": "best-0000003", "adapter_path": first, "loss": 0.5, "verdict": "better"},
        {"name": "base", "loss": 2.5},
        {"name": "own", "adapter_path": str(own), "loss": 3.5, "loss_difference": 1.0, "verdict": "worse"},
    ]
    ranked = BENCHMARK | {"adapter_path": first, "ranking": lines}
    make_job("benchmark-20260101-000000-aaaa", adapter_path=str(own), result=ranked)
    make_job("benchmark-20260101-000000-bbbb", adapter_path=str(damaged), result=ranked)
    seen = {adapter.path: adapter.benchmark for adapter in list_adapters(AdapterRequest()).adapters}
    assert seen["damaged"] is None
    assert seen["own"] is not None
    assert (seen["own"].verdict, seen["own"].loss, seen["own"].loss_difference) == ("worse", 3.5, 1.0)


def test_benchmark_of_several_adapters_counts_for_each_that_it_measured(project: Path):
    better, worse, left_out = (put_adapter(project / name, age=500) for name in ("better", "worse", "left-out"))
    lines = [
        {"name": "better", "adapter_path": str(better), "loss": 0.5, "loss_difference": -2.0, "verdict": "better"},
        {"name": "base", "loss": 2.5},
        {"name": "worse", "adapter_path": str(worse), "loss": 3.5, "loss_difference": 1.0, "verdict": "worse"},
    ]
    ranked = BENCHMARK | {"adapter_path": str(better), "ranking": lines}
    make_job("benchmark-20260101-000000-aaaa", adapter_path=str(left_out), result=BENCHMARK)
    everyone = [str(worse), str(better), str(left_out)]
    make_job("benchmark-20260102-000000-bbbb", adapter_path=None, adapters=everyone, result=ranked)
    found = list_adapters(AdapterRequest())
    seen = {adapter.path: adapter.benchmark for adapter in found.adapters}
    told = {path: (one.job_id[-4:], one.verdict, one.loss) for path, one in seen.items() if one is not None}
    assert told == {
        "better": ("bbbb", "better", 0.5),
        "worse": ("bbbb", "worse", 3.5),
        "left-out": ("aaaa", "better", 0.5),
    }
    assert "not benchmarked yet" not in found.summary


def test_the_one_of_several_that_could_be_measured_has_the_figures(project: Path):
    good, damaged = (put_adapter(project / name, age=500) for name in ("good", "damaged"))
    alone = BENCHMARK | {"adapter_path": str(good)}  # of two models there is no ranking
    make_job("benchmark-20260101-000000-aaaa", adapters=[str(damaged), str(good)], result=alone)
    seen = {adapter.path: adapter.benchmark for adapter in list_adapters(AdapterRequest()).adapters}
    assert seen["damaged"] is None
    assert seen["good"] is not None and seen["good"].loss == 0.5


@pytest.mark.parametrize(
    ("other", "ranked_by"),
    [
        ({}, "benchmark loss"),
        ({"base": {"loss": 2.5003, "perplexity": 12.2}}, "benchmark loss"),  # another batch size
        ({"base": {"loss": 2.6, "perplexity": 13.5}}, "validation loss"),  # the file was changed
        ({"split": "valid"}, "validation loss"),
        ({"tokens": 199}, "validation loss"),  # mask_prompt or max_seq_length
        ({"rows": 13}, "validation loss"),
        ({"data": "/project/more"}, "validation loss"),
        ({"model": "some/model-4bit"}, "validation loss"),
    ],
)
def test_benchmark_losses_rank_only_where_they_mean_the_same(project: Path, other: dict[str, Any], ranked_by: str):
    for name, val, held_out, changes in (("a", 0.5, 0.8, {}), ("b", 0.6, 0.3, other)):
        adapter = put_adapter(project / name, age=500, results={"final_val_loss": val})
        measured = BENCHMARK | {"adapter": BENCHMARK["adapter"] | {"loss": held_out}} | changes
        make_job(f"benchmark-20260101-000000-{name}", adapter_path=str(adapter), result=measured)
    best = list_adapters(AdapterRequest()).adapters[0]
    assert (best.path, best.rank) == ("b" if ranked_by == "benchmark loss" else "a", f"1 of 2 by {ranked_by}")
    compared = list_adapters(AdapterRequest(compare=["a", "b"])).summary
    assert ("benchmark losses can't be compared" in compared) == (ranked_by == "validation loss")


def test_verdict_on_the_rows_that_chose_the_weights_is_told_from_one_on_the_test(
    project: Path, capsys: pytest.CaptureFixture[str]
):
    adapter = put_adapter(project / "a", age=500)
    make_job("benchmark-20260101-000000-aaaa", adapter_path=str(adapter), result=BENCHMARK | {"split": "valid"})
    found = list_adapters(AdapterRequest())
    seen = found.adapters[0].benchmark
    assert seen is not None and seen.split == "valid"
    assert found.summary.endswith("benchmark on valid.jsonl: better, loss 0.5")
    assert main(["adapters"]) == 0
    assert "better -2 on valid.jsonl" in " ".join(capsys.readouterr().out.split())


def test_newest_benchmark_counts_unless_the_weights_are_newer(project: Path):
    adapter = put_adapter(project / "a", age=500)
    make_job("benchmark-20260101-000000-aaaa", adapter_path=str(adapter), result=BENCHMARK | {"rows": 1})
    make_job("benchmark-20260102-000000-bbbb", adapter_path=str(adapter), result=BENCHMARK | {"rows": 2})
    make_job("benchmark-20260103-000000-cccc", adapter_path=str(adapter), status="failed")
    make_job("benchmark-20260104-000000-dddd", adapter_path="/another")
    seen = list_adapters(AdapterRequest()).adapters[0].benchmark
    assert seen is not None and seen.rows == 2
    os.utime(adapter / "adapters.safetensors")
    assert list_adapters(AdapterRequest()).adapters[0].benchmark is None


def test_adapters_made_elsewhere_are_listed_last(project: Path):
    put_adapter(project / "ours", age=900)
    stock = put_adapter(project / "stock", iters=70)
    (stock / "provenance.json").unlink()
    damaged = put_adapter(project / "damaged", age=5)
    (damaged / "provenance.json").write_text("{", encoding="utf-8")
    (damaged / "adapter_config.json").write_text("[]", encoding="utf-8")
    found = list_adapters(AdapterRequest())
    assert [adapter.path for adapter in found.adapters] == ["ours", "stock", "damaged"]
    assert found.adapters[1].options["iters"] == 70
    assert found.adapters[1].job_id is None
    assert found.adapters[2].model is None


@pytest.mark.parametrize("odd", [[], 5, "x", {"train": []}, None, float("inf")])
def test_records_of_any_form_are_survived(project: Path, odd: Any):
    adapter = put_adapter(project / "one")
    record = json.loads((adapter / "provenance.json").read_text(encoding="utf-8"))
    keys = ("job_id", "model", "options", "results", "data")
    results = dict.fromkeys(RESULTS, odd) | {"seconds": odd, "trained_tokens": odd, "peak_memory_gb": odd}
    changes = [{key: odd} for key in keys] + [{"data": {"files": odd, "rows": odd, "path": odd}}, {"results": results}]
    for change in changes:
        (adapter / "provenance.json").write_text(json.dumps(record | change), encoding="utf-8")
        assert paths() == ["one"], change


def test_pages_and_emptiness_are_said(project: Path):
    assert list_adapters(AdapterRequest()).summary == "there are no adapters yet; start_lora_training makes one"
    for number in range(7):
        put_adapter(project / f"a{number}", results={"final_val_loss": 1.0 + number})
    found = list_adapters(AdapterRequest(limit=3, offset=5))
    assert [adapter.path for adapter in found.adapters] == ["a5", "a6"]
    assert found.showing == "2 of 7 adapters"
    with pytest.raises(PathError, match="nowhere"):
        list_adapters(AdapterRequest(folder="nowhere"))


def test_the_default_answer_is_terse(project: Path):
    for number in range(12):
        name = project / f"adapters/support-tone-r{8 + number}-long-name"
        adapter = put_adapter(
            name, age=500, learning_rate=1e-4 + number * 1e-5, iters=600 + number, mask_prompt=True, batch_size=2
        )
        make_job(f"benchmark-20260101-000000-{number:04}", adapter_path=str(adapter), result=BENCHMARK)
    text = list_adapters(AdapterRequest()).model_dump_json(exclude_none=True)
    assert len(text) < 1200 * 3.5, "about 3.5 characters a token"


def test_two_are_compared_by_what_differs(project: Path):
    one = put_adapter(
        project / "one", job_id="train-1", learning_rate=1e-4, results={"final_val_loss": 0.5, "peak_memory_gb": 3.0}
    )
    put_adapter(
        project / "two", job_id="train-2", results={"final_val_loss": 0.7, "peak_memory_gb": 2.0}, data="/project/more"
    )
    make_job("benchmark-20260101-000000-aaaa", adapter_path=str(one), result=BENCHMARK)
    make_job("train-20260101-000000-aaaa", adapter_path=str(one))
    os.utime(one / "adapters.safetensors", (1, 1))
    found = list_adapters(AdapterRequest(compare=["train-20260101-000000-aaaa", "two"])).comparison
    assert found is not None
    assert found.adapters == ("one", "two")
    assert found.options == {"learning_rate": (1e-4, 1e-5)}
    assert found.data == {"data": ("/project/data", "/project/more")}
    assert found.results["val_loss"] == (0.5, 0.7)
    assert found.results["peak_memory_gb"] == (3.0, 2.0)
    assert found.benchmark["verdict"] == ("better", None)
    assert found.summary == "the first has the lower validation loss: 0.5 against 0.7"
    assert found.curves == "read_training_log(job_id='train-1', compare_with=['train-2'])"


def test_comparing_what_is_not_there_names_the_remedy(project: Path):
    put_adapter(project / "one")
    with pytest.raises(PathError, match="not an adapter folder"):
        list_adapters(AdapterRequest(compare=["one", "nothing"]))
    make_job("train-20260101-000000-aaaa", adapter_path="/gone")
    with pytest.raises(PathError, match="has no adapter"):
        list_adapters(AdapterRequest(compare=["one", "train-20260101-000000-aaaa"]))


def test_secrets_of_the_options_are_not_repeated(project: Path):
    secret = "hf" + "_" + "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3x"
    put_adapter(project / "one", data=f"rows/{secret}")
    text = list_adapters(AdapterRequest()).model_dump_json()
    assert "rows/" in text
    assert secret not in text


def test_names_of_folders_reach_the_terminal_without_control_characters(
    project: Path, capsys: pytest.CaptureFixture[str]
):
    put_adapter(project / "a\x1b[2J[red]b\x07")
    assert main(["adapters"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x07" not in shown
    assert "[red]" in shown, "not taken for rich's own marks"
