"""The generation worker: base, adapter or both on one prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import stream_generate
from mlx_lm.sample_utils import make_sampler

from mcp_server.errors import DataError, ModelError
from mcp_server.generation.options import Answer, GenerateOptions, GenerationResult
from mcp_server.jobs.files import read_json
from mcp_server.workers import job
from mcp_server.workers.fetching import fetch
from mcp_server.workers.loading import apply_adapter, load_with_config, not_finite, other_base

_LOOK_TOKENS = 16


def generate_text(worker: job.WorkerJob) -> dict[str, Any]:
    """Generate as the spec says; the result for ``outcome.json``."""
    options = GenerateOptions.model_validate(worker.spec.options)
    assert options.model is not None
    source = fetch(worker, options.model)
    worker.phase("loading model", model=str(source))
    model, tokenizer, config = load_with_config(str(source))
    if bad := not_finite(model):
        raise ModelError(f"model {options.model} holds NaN or infinity ({bad[0]}); download or convert it again")
    prompt, notes = _prompt(tokenizer, options)
    context = config.get("max_position_embeddings")
    if isinstance(context, int) and len(prompt) >= context:
        raise DataError(f"the prompt has {len(prompt)} tokens and the model's context {context}; shorten it")
    result = GenerationResult(
        model=options.model, adapter_path=options.adapter_path, prompt_tokens=len(prompt), notes=notes
    )
    if options.adapter_path is None or options.compare:
        worker.phase("answer of the base")
        result.base = _answer(worker, model, tokenizer, prompt, options)
    if options.adapter_path is not None:
        worker.phase("answer of the adapter", adapter_path=options.adapter_path)
        apply_adapter(model, options.adapter_path)
        adapter = read_json(Path(options.adapter_path) / "adapter_config.json") or {}
        result.notes += other_base(adapter, options.model)
        result.adapter = _answer(worker, model, tokenizer, prompt, options)
    return result.model_dump(exclude_none=True)


def _prompt(tokenizer: Any, options: GenerateOptions) -> tuple[list[int], list[str]]:
    """The prompt's tokens, and what should be known of how they came about."""
    if options.raw or (options.prompt is not None and options.system is None and tokenizer.chat_template is None):
        notes = [] if options.raw else ["the model has no chat template, so the prompt was given as it is"]
        return tokenizer.encode(options.prompt), notes
    if tokenizer.chat_template is None:
        raise ModelError(
            f"model {options.model} has no chat template, so it takes no messages and no system; give prompt with raw=true"
        )
    system = [{"role": "system", "content": options.system}] if options.system is not None else []
    messages = options.messages or [*system, {"role": "user", "content": options.prompt}]
    try:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False), []
    except Exception as error:
        # Chat templates raise what they like.
        text = " ".join(str(error).split())[:300]
        raise ModelError(f"the chat template of {options.model} refuses these messages: {text}; change them") from error


def _answer(
    worker: job.WorkerJob, model: nn.Module, tokenizer: Any, prompt: list[int], options: GenerateOptions
) -> Answer:
    mx.random.seed(options.seed)
    sampler = make_sampler(temp=options.temperature, top_p=options.top_p)
    pieces: list[str] = []
    last: Any = None
    for last in stream_generate(model, tokenizer, prompt, max_tokens=options.max_tokens, sampler=sampler):
        pieces.append(last.text)
        if len(pieces) % _LOOK_TOKENS == 0:
            worker.check_stop()
            worker.events.write("progress", name="tokens", step=last.generation_tokens, total=options.max_tokens)
    return Answer(
        text="".join(pieces),
        tokens=last.generation_tokens,
        finish_reason=last.finish_reason,
        tokens_per_second=round(last.generation_tps, 2),
    )


if __name__ == "__main__":
    job.run(generate_text)
