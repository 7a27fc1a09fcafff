"""The fused loss against the stock loss: values and gradients, on every kind of head and mask."""

# pyright: basic
from __future__ import annotations

import importlib
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.nn.utils import average_gradients
from mlx.utils import tree_flatten
from mlx_lm.tuner import trainer
from mlx_lm.utils import quantize_model

from mcp_server.training import measures
from mcp_server.training.options import TrainingOptions
from mcp_server.workers import checkpoints, train
from mcp_server.workers.fused_loss import FusedLoss, UnservedHeadError
from mcp_server.workers.losses import masked_loss
from mcp_server.workers.proof import choose_loss
from tests.tiny import ALWAYS_TIED, KINDS, tiny_config

ROWS, LENGTH = 3, 41  # 120 targets
SPANS = [[3, 40], [10, 30], [0, 20]]
EXTRA: dict[str, dict[str, Any]] = {
    "granite": {"logits_scaling": 8.0, "attention_multiplier": 0.25, "embedding_multiplier": 12.0,
                "residual_multiplier": 0.5, "attention_bias": False, "mlp_bias": False},
    "minicpm": {"dim_model_base": 16, "scale_depth": 1.4, "scale_emb": 12},
}  # fmt: skip


def make(kind: str, *, tie: bool = True, dtype: mx.Dtype = mx.float32, bits: int | None = None, **changes: Any) -> Any:
    """A random model of ``kind``, adapted with LoRA whose both matrices are other than zero."""
    config = tiny_config("qwen2" if kind in EXTRA else kind, tie=tie) | EXTRA.get(kind, {}) | {"model_type": kind}
    module: Any = importlib.import_module(f"mlx_lm.models.{kind}")
    mx.random.seed(0)
    model = module.Model(module.ModelArgs.from_dict(config))
    if kind == "gemma3_text":
        model.pop("lm_head")
        model.tie_word_embeddings = True
    model.set_dtype(dtype)
    if bits is not None:
        model, _ = quantize_model(model, config, group_size=64, bits=bits)
    options = {"lora_parameters": {"rank": 4, "scale": 10.0}, "num_layers": 2} | changes
    train.make_trainable(model, TrainingOptions.model_validate({"model": "m", "data": "d"} | options))
    for _, layer in model.named_modules():
        if "lora_b" in layer:
            layer.lora_b = mx.random.normal(layer.lora_b.shape) * 0.05
    mx.eval(model.parameters())
    model.train()
    return model


def batch() -> tuple[mx.array, mx.array]:
    tokens = mx.random.randint(0, tiny_config()["vocab_size"], (ROWS, LENGTH), key=mx.random.key(7))
    return tokens, mx.array(SPANS)


def norm(arrays: list[mx.array]) -> float:
    squares: list[Any] = [mx.square(array).sum().item() for array in arrays]
    return float(sum(squares)) ** 0.5


def compare(model: Any, fused: Any, stock: Any, tokens: mx.array, where: mx.array) -> tuple[float, float]:
    """How far loss and gradient are from stock's, relative."""
    results: list[Any] = []
    for loss in (stock, fused):
        (value, count), gradient = nn.value_and_grad(model, loss)(model, tokens, where)
        leaves: Any = tree_flatten(gradient)
        arrays = [array.astype(mx.float32) for _, array in leaves]
        results.append((value.item(), int(count.item()), arrays))
    (a, counted, ours), (b, recounted, theirs) = results
    assert counted == recounted > 0
    length = norm(ours)
    apart = norm([x - y for x, y in zip(ours, theirs, strict=True)])
    assert length > 1e-4
    return abs(a - b) / abs(a), apart / length


@pytest.mark.parametrize("chunk", [1, 24, 50, 120, 500])
def test_chunks_that_do_and_do_not_divide(chunk: int):
    model = make("qwen2")
    assert max(compare(model, FusedLoss(model, chunk), trainer.default_loss, *batch())) < 1e-5


@pytest.mark.parametrize("kind", [*KINDS, *EXTRA])
def test_tied_heads(kind: str):
    model = make(kind)
    assert max(compare(model, FusedLoss(model, 50), trainer.default_loss, *batch())) < 1e-5


@pytest.mark.parametrize("kind", [kind for kind in (*KINDS, *EXTRA) if kind not in ALWAYS_TIED])
def test_untied_heads(kind: str):
    model = make(kind, tie=False)
    assert "lm_head" in model
    assert max(compare(model, FusedLoss(model, 50), trainer.default_loss, *batch())) < 1e-5


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "cohere", "phi3"])
@pytest.mark.parametrize("tie", [True, False])
def test_quantized_heads(kind: str, tie: bool):
    if not tie and kind in ALWAYS_TIED:
        tie = True
    model = make(kind, tie=tie, bits=4)
    head = model.lm_head if "lm_head" in model else model.model.embed_tokens
    assert "scales" in head
    assert max(compare(model, FusedLoss(model, 50), trainer.default_loss, *batch())) < 1e-5


@pytest.mark.parametrize("kind", ["llama", "gemma2", "cohere"])
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_16_bit(kind: str, dtype: mx.Dtype):
    model = make(kind, dtype=dtype)
    assert max(compare(model, FusedLoss(model, 50), trainer.default_loss, *batch())) < 1e-3


def test_language_model_inside_another_module():
    gemma3: Any = importlib.import_module("mlx_lm.models.gemma3")
    text = tiny_config("gemma3_text")
    model = gemma3.Model(gemma3.ModelArgs("gemma3", text, text["vocab_size"]))
    train.make_trainable(model, TrainingOptions(model="m", data="d", num_layers=1))
    model.train()
    assert max(compare(model, FusedLoss(model, 50), trainer.default_loss, *batch())) < 1e-5


MASKS = {
    "spans": mx.array(SPANS),
    "last answers": mx.arange(LENGTH - 1)[None] > mx.array([[5], [20], [38]]),
    "every turn": (mx.arange(LENGTH - 1)[None] // mx.array([[3], [5], [7]])) % 2 == 1,
    "all": mx.ones((ROWS, LENGTH - 1), dtype=mx.bool_),
    "one token": mx.arange(ROWS * (LENGTH - 1)).reshape(ROWS, -1) == 77,
    "one row": mx.array([[False], [True], [False]]) & mx.ones((ROWS, LENGTH - 1), dtype=mx.bool_),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_every_kind(name: str):
    model = make("qwen3")
    assert max(compare(model, FusedLoss(model, 50), masked_loss, batch()[0], MASKS[name])) < 1e-5


@pytest.mark.parametrize("where", [mx.zeros((ROWS, LENGTH - 1), dtype=mx.bool_), mx.array([[60, 41]] * ROWS)])
def test_nothing_trained_is_zero_and_not_nan(where: mx.array):
    model = make("llama")
    (loss, count), gradient = nn.value_and_grad(model, FusedLoss(model, 50))(model, batch()[0], where)
    assert (loss.item(), count.item()) == (0.0, 0)
    leaves: Any = tree_flatten(gradient)
    assert all(mx.all(array == 0).item() for _, array in leaves)


def test_one_token_alone():
    model = make("llama")
    tokens = batch()[0][:1, :2]
    assert max(compare(model, FusedLoss(model, 50), trainer.default_loss, tokens, mx.array([[0, 1]]))) < 1e-5


@pytest.mark.parametrize("where", [mx.array(SPANS), MASKS["every turn"]])
def test_evaluation_gives_the_same_loss_without_gradients(where: mx.array):
    model = make("gemma2")
    model.eval()
    tokens, _ = batch()
    assert FusedLoss(model, 50)(model, tokens, where)[0].item() == pytest.approx(
        masked_loss(model, tokens, where)[0].item(), rel=1e-5
    )


@pytest.mark.parametrize("checkpointed", [False, True])
def test_compiled_with_grad_checkpoint_and_averaged_gradients(checkpointed: bool, monkeypatch: pytest.MonkeyPatch):
    mx.enable_compile()
    model = make("qwen2")
    fused = FusedLoss(model, 50)
    layer = type(model.layers[0])
    monkeypatch.setattr(layer, "__call__", layer.__call__)  # checkpointing replaces it for good
    if checkpointed:
        trainer.grad_checkpoint(model.layers[0])
    state = [model.state, mx.random.state]

    def step(tokens: mx.array, where: mx.array, loss: Any) -> Any:
        (value, _), gradient = nn.value_and_grad(model, loss)(model, tokens, where)
        return value, average_gradients(gradient)

    try:
        plain, expected = step(*batch(), trainer.default_loss)
        compiled = mx.compile(lambda tokens, where: step(tokens, where, fused), inputs=state, outputs=state)
        value, gradient = compiled(*batch())
        mx.eval(value, gradient, plain, expected)
    finally:
        mx.disable_compile()
    assert value.item() == pytest.approx(plain.item(), rel=1e-5)
    for (name, ours), (_, theirs) in zip(tree_flatten(gradient), tree_flatten(expected), strict=True):
        np.testing.assert_allclose(np.array(ours), np.array(theirs), rtol=1e-4, atol=1e-6, err_msg=name)


def test_gradient_is_that_of_what_the_loss_is_multiplied_by():
    """Ranks weigh their losses by their tokens, inside the step."""
    model = make("qwen2")

    def weighed(loss: Any) -> Any:
        def of(model: Any, *given: mx.array) -> tuple[mx.array, mx.array]:
            value, count = loss(model, *given)
            return value * 0.25, count

        return of

    apart, turned = compare(model, weighed(FusedLoss(model, 50)), weighed(masked_loss), *batch())
    assert apart < 1e-5
    assert turned < 1e-4


def test_logits_of_a_whole_batch_never_exist():
    config = tiny_config(vocab=32_000)
    module: Any = importlib.import_module("mlx_lm.models.qwen2")
    model = module.Model(module.ModelArgs.from_dict(config))
    train.make_trainable(model, TrainingOptions(model="m", data="d", num_layers=1))
    model.train()
    mx.eval(model.parameters())
    tokens = mx.zeros((4, 129), dtype=mx.int32)
    where = mx.array([[0, 128]] * 4)
    logits_bytes = 4 * 128 * 32_000 * 4
    peaks = []
    for loss in (trainer.default_loss, FusedLoss(model, 16)):
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(nn.value_and_grad(model, loss)(model, tokens, where))
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[0] > 2 * logits_bytes
    assert peaks[1] < 0.6 * logits_bytes


# ---- what it proves before it is used


def options(**changes: Any) -> TrainingOptions:
    return TrainingOptions.model_validate({"model": "m", "data": "d", "batch_size": ROWS, "fused_loss": True} | changes)


@pytest.mark.parametrize("kind", KINDS)
def test_proves_itself_and_is_used(kind: str):
    loss, why = choose_loss(make(kind), options(), batch())
    assert isinstance(loss, FusedLoss)
    assert why == "on: asked for"


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_proves_itself_in_16_bit(dtype: mx.Dtype):
    assert isinstance(choose_loss(make("gemma2", dtype=dtype), options(), batch())[0], FusedLoss)


def test_proof_leaves_random_numbers_mode_and_weights_alone():
    model = make("llama", lora_parameters={"rank": 4, "scale": 10.0, "dropout": 0.5})
    model.eval()
    mx.random.seed(11)
    key = checkpoints.random_key()
    weights = [np.array(array) for _, array in tree_flatten(model.parameters())]
    assert isinstance(choose_loss(model, options(), batch())[0], FusedLoss)
    assert checkpoints.random_key() == key
    assert not model.training
    after = [np.array(array) for _, array in tree_flatten(model.parameters())]
    assert all(np.array_equal(a, b) for a, b in zip(weights, after, strict=True))


@pytest.mark.parametrize("lora_key", ["lm_head", "model.embed_tokens"])
def test_trained_head_or_embeddings_keep_the_stock_loss(lora_key: str):
    model = make("llama", tie=False, lora_parameters={"rank": 4, "scale": 1.0, "keys": [lora_key, "self_attn.q_proj"]})
    loss, why = choose_loss(model, options(), batch())
    assert loss is masked_loss
    assert lora_key in why and "is trained, which is outside the layers" in why


class _OddHead(nn.Module):
    """A head that needs more than the hidden states of a token: it looks at all of them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.model

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        hidden = self.model(tokens, cache)
        return self.model.embed_tokens.as_linear(hidden + mx.cumsum(hidden, axis=1))

    @property
    def layers(self) -> Any:
        return self.model.layers


def test_head_that_mixes_tokens_is_found_out():
    model = _OddHead(make("qwen2"))
    loss, why = choose_loss(model, options(), batch())
    assert loss is masked_loss
    assert why.startswith("off: on the first batch its loss differs from stock's by")


class _TurnedHead(_OddHead):
    """A head whose value is a token's own, and whose gradient is not: it reaches the tokens before."""

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        hidden = self.model(tokens, cache)
        others = mx.cumsum(hidden, axis=1)
        return self.model.embed_tokens.as_linear(hidden + (others - mx.stop_gradient(others)))


def test_head_whose_gradient_alone_mixes_tokens_is_found_out():
    loss, why = choose_loss(_TurnedHead(make("qwen2")), options(), batch())
    assert loss is masked_loss
    assert why.startswith("off: on the first batch its loss differs from stock's by")


class _HeadInside(nn.Module):
    """A backbone that gives the logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.language_model = _Inner(model)

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        return self.language_model(tokens)

    @property
    def layers(self) -> Any:
        return self.language_model.layers


class _Inner(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.layers = model.model.layers
        self.embed = model.model.embed_tokens

    def __call__(self, tokens: mx.array) -> mx.array:
        hidden = self.embed(tokens)
        for layer in self.layers:
            hidden = layer(hidden, "causal")
        return self.embed.as_linear(hidden)


def test_head_inside_the_backbone_is_said_to_be_so():
    loss, why = choose_loss(_HeadInside(make("qwen2")), options(), batch())
    assert loss is masked_loss
    assert why == "off: this model's head can't be taken apart: its backbone gives the logits themselves"


def test_layers_beside_the_head_are_said_to_be_so():
    with pytest.raises(UnservedHeadError, match="one module"):
        FusedLoss(_Inner(make("qwen2")), 50)


# ---- when it is wanted


def test_on_by_default_only_where_it_pays_and_never_with_stock():
    base = {"fused_loss": None, "batch_size": 4, "max_seq_length": 2049}
    assert measures.fused_loss(options(**base), 151_936)[0]
    assert not measures.fused_loss(options(**base), 1_000)[0]
    assert not measures.fused_loss(options(**base, stock=True), 151_936)[0]
    assert not measures.fused_loss(options(**base | {"fused_loss": False}), 151_936)[0]
    assert measures.fused_loss(options(fused_loss=True, stock=True), 1_000)[0]


def test_small_chunks_are_slow_with_a_quantized_head_on_cuda_alone():
    assert measures.coarse_chunks("linux-cuda", quantized=True)
    assert not measures.coarse_chunks("linux-cuda", quantized=False)
    assert not any(measures.coarse_chunks(backend, quantized=True) for backend in ("apple-silicon", "linux-cpu", None))
    assert measures.chunk_tokens(151_936) == 192
    assert measures.chunk_tokens(151_936, coarse=True) == 1_024


def test_without_grad_checkpoint_a_quantized_head_on_cuda_has_the_stock_loss_unless_asked_for():
    base = {"fused_loss": None, "batch_size": 4, "max_seq_length": 2049}
    wanted, why = measures.fused_loss(options(**base), 151_936, coarse=True)
    assert not wanted and "without grad_checkpoint" in why
    assert measures.fused_loss(options(**base, grad_checkpoint=True), 151_936, coarse=True)[0]
    assert measures.fused_loss(options(**base | {"fused_loss": True}), 151_936, coarse=True) == (True, "asked for")


def test_the_chunk_that_the_worker_takes_is_the_one_of_the_head():
    vocabulary = make("qwen2").args.vocab_size
    for coarse, logits in ((False, "_CHUNK_LOGITS"), (True, "_COARSE_CHUNK_LOGITS")):
        loss, _ = choose_loss(make("qwen2"), options(), batch(), coarse=coarse)
        assert isinstance(loss, FusedLoss)
        assert loss.chunk == getattr(measures, logits) // vocabulary // 64 * 64
