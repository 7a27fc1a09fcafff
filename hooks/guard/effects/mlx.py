"""MLX programs: which they are, what they would train, and where they write."""

from __future__ import annotations

from guard import paths
from guard.shell.marks import UNKNOWN

from .commands import Call, options
from .scene import State, Work

DONE = (None, None)
TRAINERS = ("lora", "dora", "train", "grpo", "dpo", "orpo", "sft", "tuner.trainer")
# package -> what its bare name does without a sub-command
PACKAGES = (
    "mlx_lm",
    "mlx_vlm",
    "mlx_lm_lora",
    "mlx_tune",
    "mlx_whisper",
    "mlx_embeddings",
    "mlx_audio",
    "mlx_omni_server",
)
VALUES = [
    "model",
    "data",
    "adapter-path",
    "iters",
    "batch-size",
    "learning-rate",
    "num-layers",
    "save-every",
    "config",
    "fine-tune-type",
    "optimizer",
    "seed",
    "val-batches",
    "max-seq-length",
    "steps-per-report",
    "steps-per-eval",
    "grad-accumulation-steps",
    "test-batches",
    "resume-adapter-file",
    "save-path",
    "hf-path",
    "mlx-path",
    "q-bits",
    "q-group-size",
    "upload-repo",
    "prompt",
    "max-tokens",
    "temp",
    "report-to",
    "project-name",
    "dtype",
    "gguf-path",
    "path",
    "wandb",
    "revision",
    "quant-predicate",
    "q-mode",
    "draft-model",
    "system-prompt",
    "top-p",
    "trust-remote-code-x",
    "host",
    "port",
    "tasks",
    "output-dir",
]

# argparse takes any unique beginning of these for the whole
OPTIONS = {
    "lora": "model train data fine-tune-type optimizer mask-prompt num-layers batch-size iters val-batches learning-rate steps-per-report "
    "steps-per-eval grad-accumulation-steps resume-adapter-file adapter-path save-every test test-batches max-seq-length config "
    "grad-checkpoint clear-cache-threshold report-to project-name seed trust-remote-code",
    "fuse": "model save-path adapter-path upload-repo dequantize export-gguf gguf-path trust-remote-code",
}


def completed(sub: str, words: list[str]) -> list[str]:
    """The words with shortened options in full."""
    names = OPTIONS.get(sub, "").split()
    out = []
    for word in words:
        key, equals, value = word.partition("=")
        fits = [name for name in names if name.startswith(key[2:])] if key[:2] == "--" and key[2:] else []
        out.append("--" + fits[0] + equals + value if len(fits) == 1 else word)
    return out


def handle(call: Call) -> tuple[str | None, bool | None] | None:
    name = call.name
    if name in ("hf", "huggingface-cli"):
        # uploads are the Hub policy's, which reads the argv
        if call.argv[1:2] in (["cache"], ["delete-cache"]) and {"delete", "rm", "prune", "delete-cache"} & set(
            call.argv[1:3]
        ):
            delete_cache(call, " ".join(call.argv))
        return DONE
    if name == "mlx-training":
        return own(call)
    if name.startswith(("mlx_lm", "mlx-lm", "mlx_vlm", "mlx_tune", "mlx_whisper", "mlx_embeddings", "mlx_audio")):
        module = name.replace("-", "_")
        rest = call.argv[1:]
        if "." not in module and rest and rest[0][:1] != "-":
            module, rest = module + "." + rest[0], rest[1:]
        elif module.startswith("mlx_lm_") and not module.startswith("mlx_lm_lora"):
            module = "mlx_lm." + module[7:]
        return module_run(call, module, rest)
    return None


def own(call: Call) -> tuple[str | None, bool | None]:
    """This project's own command line."""
    words = call.argv[1:]
    if words[:1] == ["train"]:
        add(call.state, call, "train", call.argv, options(["x", *words[1:]], "", tuple(VALUES))[1])
    return DONE


def module_run(call: Call, module: str, rest: list[str]) -> tuple[str | None, bool | None]:
    """`python -m mlx_lm.lora ...`, `python -m mlx_lm lora ...` and `mlx_lm.lora ...` are one thing."""
    package, _, sub = module.partition(".")
    if not sub and rest and rest[0][:1] != "-":
        sub, rest = rest[0], rest[1:]
    flags, values, _ = options(["x", *completed(sub, rest)], "cm", tuple(VALUES))
    if flags & {"help", "h", "version"}:
        return DONE
    flags = {flag.replace("_", "-") for flag in flags}
    values = {key.replace("_", "-"): value for key, value in values.items()}
    values["flags"] = " ".join(sorted(flags))
    argv = [package + "." + sub if sub else package, *rest]
    config = values.get("c") or values.get("config")
    settings = configured(call.scene.read(config, call.state)) if config else {}
    for key, value in settings.items():
        values.setdefault(key, value)
    kind = "use"
    if sub in TRAINERS or (package == "mlx_lm_lora"):
        training = package == "mlx_lm_lora" or sub == "train" or "train" in flags or settings.get("train") == "true"
        kind = "train" if training else "test"
    elif sub in ("convert", "fuse", "generate", "upload"):
        kind = sub
    elif sub in ("dwq", "awq", "gptq", "dynamic_quant", "quant.dwq", "quant.awq", "quant.gptq", "quant.dynamic_quant"):
        kind = "quantise"
    elif sub in ("manage", "cache_prompt", "share"):
        kind = sub
    add(call.state, call, kind, argv, values)
    writes(call, kind, values)
    return DONE


def configured(text: str | None) -> dict[str, str]:
    """The plain `key: value` lines of a LoRA configuration."""
    settings = {}
    for line in (text or "").split("\n"):
        key, colon, value = line.partition(":")
        if colon and key.strip() == key and key.replace("_", "").isalnum():
            settings[key.replace("_", "-")] = (
                value.split(" #")[0].strip().strip("'\"").lower()
                if key == "train"
                else (value.split(" #")[0].strip().strip("'\""))
            )
    return settings


def add(state: State, call: Call, kind: str, argv: list[str], values: dict[str, str]) -> None:
    work = Work(kind, argv, state, values)
    work.by = " ".join(call.argv)
    call.scene.works.append(work)


def writes(call: Call, kind: str, values: dict[str, str]) -> None:
    """Where the program puts its result. `convert` refuses a path that exists, so it can't hurt."""
    by = " ".join(call.argv)
    if kind == "train":
        target = values.get("adapter-path") or "adapters"
        if UNKNOWN not in target:
            touch = call.scene.touch("train", target, call.state, by)
            resumed = values.get("resume-adapter-file", "")
            if resumed and paths.real(paths.normal(paths.parent_of(resumed), call.state.cwd)) == paths.real(
                paths.normal(target, call.state.cwd)
            ):
                touch.to = resumed
    elif kind in ("fuse", "quantise"):
        default = "fused_model" if kind == "fuse" else "mlx_model"
        target = values.get("save-path") or values.get("mlx-path") or default
        if UNKNOWN not in target:
            call.scene.touch("unpack-model", target, call.state, by)
    elif kind == "manage" and "delete" in values.get("flags", ""):
        delete_cache(call, by)


def delete_cache(call: Call, by: str) -> None:
    cache = (call.state.get("HF_HUB_CACHE") or call.state.get("HF_HOME") or [paths.hub_cache()])[0]
    call.scene.touch("delete", cache, call.state, by).tree = True
