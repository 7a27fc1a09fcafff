"""The job's ``config.yaml`` for stock mlx-lm says what stock will not do."""

from __future__ import annotations

import yaml

from mcp_server.training.config import as_yaml
from mcp_server.training.options import TrainingOptions

ASKED = {"model": "m", "data": "d", "iters": 10}


def test_batches_that_stock_does_not_make_are_named_and_stocks_own_are_not() -> None:
    ours, stock = (as_yaml(TrainingOptions.model_validate(ASKED | {"stock": flag})) for flag in (False, True))
    assert "# trained on rows of like length" in ours
    assert "like length" not in stock


def test_options_of_ours_alone_stand_in_comments_and_stock_reads_the_rest() -> None:
    text = as_yaml(TrainingOptions.model_validate(ASKED | {"early_stopping_patience": 3}))
    assert "# early_stopping_patience: 3 " in text
    read = yaml.safe_load(text)
    assert read["iters"] == 10 and "early_stopping_patience" not in read
