"""mlx-lm's YAML configuration, read as mlx-lm reads it: what the call says wins, then the file, then the defaults."""

from __future__ import annotations

import re
from typing import Any

import yaml

from mcp_server import settings
from mcp_server.errors import ArgumentError, PathError
from mcp_server.training.options import OURS_ALONE, TrainingOptions

# What mlx-lm's file may hold that says nothing about how to train, or that a job decides itself.
_IGNORED = {"train", "config", "trust_remote_code"}


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-5 as a number, as mlx-lm's does; plain YAML 1.1 takes it for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
        |\.[0-9_]+(?:[eE][-+][0-9]+)?
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)


def read_config(path: str) -> tuple[dict[str, Any], list[str]]:
    """The options in an mlx-lm YAML file, and warnings about what is not taken over. Raises PathError, ArgumentError."""
    file = settings.resolve(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PathError(f"config {file} can't be read: {error}; give an mlx-lm YAML file") from error
    return parse_config(text, str(file))


def parse_config(text: str, name: str) -> tuple[dict[str, Any], list[str]]:
    """``read_config`` of a text."""
    try:
        found = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise ArgumentError(f"config {name} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ArgumentError(f"config {name} holds no options; expected lines such as 'iters: 600'")
    known = TrainingOptions.model_fields.keys()
    options: dict[str, Any] = {}
    warnings: list[str] = []
    for key, value in found.items():
        if key in known:
            if value is not None:
                options[key] = value
        elif key == "trust_remote_code" and value:
            warnings.append("trust_remote_code in the config is not taken over: code of a model is never run")
        elif key not in _IGNORED:
            warnings.append(f"the config's {key!r} is no option of mlx-lm's trainer and is not used")
    if found.get("train") is False:
        warnings.append("the config says train: false; it is trained all the same, since that was asked for")
    return options, warnings


def as_yaml(options: TrainingOptions) -> str:
    """The run as a file for ``mlx_lm lora --config``; options of ours alone stand in comments."""
    own = {key: value for key, value in options.as_mlx_lm().items() if value is not None and key != "config"}
    text = yaml.safe_dump(own, sort_keys=False, allow_unicode=True)
    extra = options.model_dump(mode="json", include=OURS_ALONE, exclude_defaults=True)
    if isinstance(options.lr_schedule, str):
        extra["lr_schedule"] = options.lr_schedule
    alone = "of mlx-training alone; stock mlx-lm has no such option"
    notes = [f"# {key}: {value} ({alone})" for key, value in extra.items()]
    if options.buckets:
        notes.append(
            "# trained on rows of like length in each batch: stock makes its own batches, so its losses differ"
        )
    return "\n".join(["# mlx_lm lora --config this-file", *notes, text])
