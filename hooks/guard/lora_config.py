"""mlx-lm's LoRA configuration (YAML) and an adapter's adapter_config.json: real keys, real types (mlx-lm 0.32)."""

from __future__ import annotations

from . import yaml_subset
from .yaml_subset import Node

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any

NUMBER = (int, float)
KEYS = {
    "model": str, "train": bool, "fine_tune_type": str, "optimizer": str, "optimizer_config": dict, "data": str, "seed": int,
    "num_layers": int, "batch_size": int, "iters": int, "val_batches": int, "learning_rate": NUMBER, "steps_per_report": int,
    "steps_per_eval": int, "resume_adapter_file": str, "adapter_path": str, "save_every": int, "test": bool, "test_batches": int,
    "max_seq_length": int, "config": str, "grad_checkpoint": bool, "grad_accumulation_steps": int, "clear_cache_threshold": None,
    "lr_schedule": dict, "lora_parameters": dict, "mask_prompt": bool, "report_to": str, "project_name": str, "trust_remote_code": bool,
    "hf_dataset": None, "prompt_feature": str, "completion_feature": str, "chat_feature": str, "text_feature": str,
}  # fmt: skip
LORA_KEYS = {"rank": int, "scale": NUMBER, "dropout": NUMBER, "keys": list}
SCHEDULE_KEYS = {"name": str, "arguments": list, "warmup": int, "warmup_init": NUMBER}
SCHEDULES = ("cosine_decay", "exponential_decay", "linear_schedule", "step_decay")
CHOICES = {"fine_tune_type": ("lora", "dora", "full"), "optimizer": ("adam", "adamw", "muon", "sgd", "adafactor")}
RENAMED = {
    "lora_layers": "num_layers", "epochs": "iters", "lr": "learning_rate", "rank": "lora_parameters.rank", "alpha": "lora_parameters.scale (alpha / rank)",
    "dropout": "lora_parameters.dropout", "lora_rank": "lora_parameters.rank", "lora_alpha": "lora_parameters.scale (alpha / rank)",
    "gradient_checkpointing": "grad_checkpoint", "gradient_accumulation_steps": "grad_accumulation_steps", "steps": "iters", "warmup_steps": "lr_schedule.warmup",
    "base_model": "model", "output_dir": "adapter_path",
}  # fmt: skip
TELLING = frozenset(
    (
        "lora_parameters",
        "adapter_path",
        "fine_tune_type",
        "mask_prompt",
        "num_layers",
        "iters",
        "steps_per_eval",
        "lora_layers",
    )
)
NAMES = {bool: "true or false", int: "a whole number", str: "text", dict: "a map", list: "a list", NUMBER: "a number"}


def is_lora_yaml(text: str) -> bool:
    """Whether a YAML file is meant for `mlx_lm.lora -c`: judged by its top-level keys alone."""
    keys = {line.partition(":")[0] for line in text.split("\n") if ":" in line and line[:1].isalpha()}
    return len(keys & TELLING) >= 2 or (bool(keys & TELLING) and bool(keys & {"train", "data"}) and "model" in keys)


def check_yaml(text: str) -> list[str]:
    """What is wrong with a LoRA configuration, each with its line."""
    try:
        found = yaml_subset.parse(text)
    except yaml_subset.YamlError as error:
        return [str(error)]
    problems = checked(found, KEYS, "")
    lora = found.get("lora_parameters")
    if lora is not None and isinstance(lora.value, dict):
        problems += checked(lora.value, LORA_KEYS, "lora_parameters.")
        if "scale" not in lora.value:
            problems.append(
                f"line {lora.line}: lora_parameters has no scale; mlx-lm stops with a KeyError (scale is alpha / rank, default 20.0)"
            )
    schedule = found.get("lr_schedule")
    if schedule is not None and isinstance(schedule.value, dict):
        problems += checked(schedule.value, SCHEDULE_KEYS, "lr_schedule.") + check_schedule(schedule)
    for key, choices in CHOICES.items():
        node = found.get(key)
        if node is not None and isinstance(node.value, str) and node.value not in choices:
            problems.append(f"line {node.line}: {key} is {node.value!r}; mlx-lm knows {', '.join(choices)}")
    return problems


def check_schedule(schedule: Node) -> list[str]:
    name = schedule.value.get("name")
    arguments = schedule.value.get("arguments")
    problems = []
    if name is None or arguments is None:
        problems.append(
            f"line {schedule.line}: lr_schedule needs name and arguments, such as cosine_decay and [1e-5, 1000]"
        )
    elif name.value not in SCHEDULES:
        problems.append(f"line {name.line}: lr_schedule.name is {name.value!r}; mlx-lm knows {', '.join(SCHEDULES)}")
    for item in arguments.value if arguments is not None and isinstance(arguments.value, list) else ():
        if isinstance(item.value, str):
            problems.append(
                f"line {item.line}: {item.value!r} in lr_schedule.arguments is text, not a number; write it without quotes"
            )
    return problems


def checked(found: dict[str, Node], keys: dict[str, Any], prefix: str) -> list[str]:
    """Unknown keys and wrong types of one map."""
    problems = []
    for key, node in found.items():
        if key not in keys:
            problems.append(
                f"line {node.line}: mlx-lm has no key {prefix}{key} and ignores it without a word{suggestion(key, keys, prefix)}"
            )
            continue
        wanted = keys[key]
        if wanted is None or node.value is None or node.kind == "other" or fits(node.value, wanted):
            continue
        shown = repr(node.value) if not isinstance(node.value, (dict, list)) else "a " + node.kind
        how = ""
        if node.kind == "quoted" and number(node.value):  # pyright: ignore[reportArgumentType]
            how = "; in quotes YAML reads it as text: write it without quotes"
        elif isinstance(node.value, str) and number(node.value.replace("_", "")):
            how = "; YAML reads it as text: write it as 0.00001 or 1.0e-5"
        problems.append(f"line {node.line}: {prefix}{key} is {shown}, but must be {NAMES[wanted]}{how}")
    return problems


def fits(value: Any, wanted: Any) -> bool:
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, wanted)


def number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def suggestion(key: str, keys: dict[str, Any], prefix: str) -> str:
    if not prefix and key in RENAMED:
        return f"; it calls it {RENAMED[key]}"
    if prefix == "lora_parameters." and key in ("alpha", "lora_alpha"):
        return "; it calls it scale, which is alpha / rank"
    from difflib import get_close_matches

    near = get_close_matches(key.replace("-", "_"), keys, 1)
    return f"; did you mean {near[0]}?" if near else ""


def notes(text: str) -> list[str]:
    """What is right for mlx-lm but surprises other readers: `1e-5` is a number to mlx-lm, text to plain YAML 1.1."""
    found = []
    for line_number, line in enumerate(text.split("\n"), 1):
        value = yaml_subset.without_comment(line).partition(":")[2].strip()
        for word in value.strip("[]").replace(",", " ").split():
            mantissa = word.lower().partition("e")
            if mantissa[1] and "." not in mantissa[0] and number(word) and mantissa[0].lstrip("-+").isdigit():
                found.append(
                    f"line {line_number}: {word} is a number to mlx-lm, but PyYAML and other YAML 1.1 readers take it for text; "
                    f"{mantissa[0]}.0e{mantissa[2]} is a number to all"
                )
    return found


def check_adapter(text: str) -> list[str]:
    """What mlx-lm would stumble over when it loads the adapter beside this adapter_config.json."""
    from . import wire

    try:
        found = wire.loads(text)
    except ValueError:
        return ["it is not valid JSON, so mlx-lm can't load the adapter"]
    if not isinstance(found, dict):
        return ["it must be one JSON object"]
    if "peft_type" in found:
        return ["it is a PEFT configuration (peft_type); mlx-lm's has fine_tune_type, num_layers and lora_parameters"]
    problems = []
    kind = found.get("fine_tune_type", "lora")
    if kind not in CHOICES["fine_tune_type"]:
        problems.append(f"fine_tune_type is {kind!r}; mlx-lm knows lora, dora and full")
    if kind != "full":
        lora = found.get("lora_parameters")
        if not isinstance(lora, dict):
            problems.append("lora_parameters is missing; mlx-lm needs its rank, scale and dropout to load the adapter")
        else:
            problems += [
                f"lora_parameters.{key} is {lora.get(key)!r}, but must be {NAMES[LORA_KEYS[key]]}"
                for key in ("rank", "scale", "dropout") if not fits(lora.get(key), LORA_KEYS[key])
            ]  # fmt: skip
        if not fits(found.get("num_layers"), int):
            problems.append(f"num_layers is {found.get('num_layers')!r}, but must be a whole number")
    return problems
