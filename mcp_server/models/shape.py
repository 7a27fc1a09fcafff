"""The shape of a model, as far as memory and time depend on it: from config.json and safetensors headers, no weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from mcp_server.errors import ModelError
from mcp_server.models import folder

_BYTES = {"F64": 8, "F32": 4, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+)\.weight$")
_TENSOR = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+)$")
# What mlx-lm drops when it loads the language part of a larger model.
_NOT_LOADED = re.compile(r"(^|\.)(vision_tower|vision_model|visual|audio_tower|multi_modal_projector|mtp)\.")
Dtype = Literal["BF16", "F16", "F32"]


class Module(BaseModel, frozen=True):
    """The linear layers of one name in one transformer block: ``count`` experts, each ``inputs`` → ``outputs``."""

    name: str
    inputs: int
    outputs: int
    count: int = 1
    quantized: bool = False

    @property
    def expert(self) -> bool:
        return self.count > 1

    @property
    def parameters(self) -> int:
        return self.inputs * self.outputs * self.count


class ModelShape(BaseModel):
    """Dimensions by the names of config.json; bytes and modules by the headers."""

    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int = Field(description="Width of a dense MLP, or of the shared part of an MoE block; 0 where there is none")
    expert_mlp: int = Field(default=0, description="Width of one expert")
    experts: int = 0
    active_experts: int = 0
    vocabulary: int
    tied: bool
    softcap: bool = Field(default=False, description="Logits are capped by a tanh, which costs a copy of them")
    score_cap: bool = Field(default=False, description="So are the attention scores")
    norms: int = Field(default=2, description="Norms of one block that are as wide as hidden_size")
    head_norms: bool = Field(default=False, description="Queries and keys have norms too")
    weight_bytes: int
    parameters: int
    bits: float | None = Field(default=None, description="Bits per weight of a quantized model")
    dtype: Dtype = Field(description="Type of the activations: that of the weights or, when quantized, of their scales")
    modules: list[Module] = Field(description="Linear layers of one block, which LoRA adapts")
    layer_bytes: int = Field(description="Weights of one block, bytes")
    layer_tensors: int = Field(description="Tensors of one block that are not quantized: what full fine-tuning trains")

    @property
    def act_bytes(self) -> int:
        """Bytes of one activation."""
        return _BYTES[self.dtype]

    @property
    def quantized(self) -> bool:
        return self.bits is not None

    @property
    def query(self) -> int:
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        return self.kv_heads * self.head_dim

    def label(self) -> str:
        """In a few words: type, size, weights."""
        size = f"{self.parameters / 1e9:.1f}B" if self.parameters >= 5e8 else f"{self.parameters / 1e6:.0f}M"
        kind = f"{self.bits:.1f}-bit" if self.bits else f"{8 * self.act_bytes}-bit"
        return f"{self.model_type} {size} {kind}"


def read(path: Path) -> ModelShape:
    """The shape of the model in folder ``path``. Raises ModelError when its config names no dimensions known here."""
    return from_headers(folder.read_config(path), headers(path))


def headers(path: Path) -> dict[str, Any]:
    """All tensors of a model folder: name → {dtype, shape}."""
    merged: dict[str, Any] = {}
    for file in folder.weight_files(path):
        merged |= folder.tensors(file)
    return merged


def from_config(config: dict[str, Any], *, bits: int | None = None) -> ModelShape:
    """The shape of a model of which only config.json is known: its tensors are worked out from the dimensions.

    ``bits`` gives the shape after a quantization with groups of 64 (config.json's own says otherwise when it is None).
    """
    return from_headers(*imagine(config, bits=bits))


def imagine(config: dict[str, Any], *, bits: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config and the tensors (name → dtype, shape) of a llama-like model with the dimensions of ``config``."""
    text = {**config, **(config.get("text_config") or {})}
    quantization = config.get("quantization") or {}
    bits = bits or quantization.get("bits")
    dtype = {"float32": "F32", "float16": "F16"}.get(str(text.get("torch_dtype") or text.get("dtype")), "BF16")
    tied = bool(text.get("tie_word_embeddings", False))
    tensors = _tensors_of(_dimensions(text), tied, dtype, bits, quantization)
    known = config if bits is None else {**config, "quantization": quantization or {"bits": bits, "group_size": 64}}
    return known, tensors


def from_headers(config: dict[str, Any], tensors: dict[str, Any]) -> ModelShape:
    """The shape from ``config`` and the tensors' names, types and shapes."""
    text = {**config, **(config.get("text_config") or {})}
    dims = _dimensions(text)
    kept = {name: entry for name, entry in tensors.items() if not _NOT_LOADED.search(name)}
    size = {name: _size(entry) for name, entry in kept.items()}
    layers = dims["layers"]
    modules, layer_bytes = _block(kept, size, config.get("quantization") or {})
    scales = {name for name in kept if name.endswith((".scales", ".biases"))}
    quantized = any(name.endswith(".scales") for name in kept)
    total = sum(size.values())
    parameters = sum(
        _elements(entry, name, kept, config.get("quantization") or {})
        for name, entry in kept.items()
        if name not in scales
    )
    return ModelShape(
        model_type=str(config["model_type"]),
        **dims,
        tied=not any(name.endswith("lm_head.weight") for name in kept),
        softcap=bool(text.get("final_logit_softcapping")) or str(config["model_type"]) == "gemma2",
        score_cap=bool(text.get("attn_logit_softcapping")) or str(config["model_type"]) == "gemma2",
        **_norms(kept, dims["hidden"]),
        weight_bytes=total,
        parameters=parameters,
        bits=round(8 * total / parameters, 2) if quantized and parameters else None,
        dtype=_dtype(kept, scales if quantized else set()),
        modules=modules,
        layer_bytes=layer_bytes // max(layers, 1),
        layer_tensors=_layer_tensors(kept),
    )


def _dimensions(text: dict[str, Any]) -> dict[str, int]:
    def first(*names: str) -> int | None:
        return next((text[name] for name in names if isinstance(text.get(name), int)), None)

    layers = folder.layer_count(text)
    hidden = first("hidden_size", "n_embd", "d_model", "dim")
    heads = first("num_attention_heads", "n_head", "n_heads")
    vocabulary = first("vocab_size")
    if not layers or not hidden or not heads or not vocabulary:
        named = {"layers": layers, "hidden_size": hidden, "num_attention_heads": heads, "vocab_size": vocabulary}
        missing = ", ".join(name for name, value in named.items() if not value)
        raise ModelError(
            f"config.json of this {text.get('model_type')} names no {missing}, so its memory can't be estimated; "
            "start with a small batch and watch get_metal_memory, or call plan_training with probe=true"
        )
    experts = first("num_local_experts", "num_experts", "n_routed_experts") or 0
    mlp = first("intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    expert_mlp = (first("moe_intermediate_size") or mlp) if experts else 0
    shared = first("shared_expert_intermediate_size") or (first("n_shared_experts") or 0) * expert_mlp
    return {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": first("num_key_value_heads", "n_head_kv") or heads,
        "head_dim": first("head_dim") or hidden // heads,
        "vocabulary": vocabulary,
        "mlp": shared if experts else mlp,
        "expert_mlp": expert_mlp,
        "experts": experts,
        "active_experts": first("num_experts_per_tok", "num_experts_per_token") or 0,
    }


def _block(tensors: dict[str, Any], size: dict[str, int], quantization: dict[str, Any]) -> tuple[list[Module], int]:
    """Linear layers of the last block (the one every LoRA reaches), and the bytes of all blocks."""
    found = {name: match for name in tensors if (match := _LAYER.search(name))}
    last = max((int(match[1]) for match in found.values()), default=-1)
    modules: dict[str, Module] = {}
    for name, match in found.items():
        shape = tensors[name]["shape"]
        if int(match[1]) != last or len(shape) < 2:
            continue
        scales = tensors.get(name.removesuffix("weight") + "scales")
        inputs = shape[-1]
        if scales is not None:
            inputs = scales["shape"][-1] * _group(name, quantization)
        # Experts kept one by one in a file (mixtral's) are one stacked layer in mlx-lm.
        plain = re.sub(r"\.experts\.\d+\.", ".experts.", match[2])
        before = modules[plain].count if plain in modules else 0
        count = before + (math.prod(shape[:-2]) if len(shape) > 2 else 1)
        modules[plain] = Module(name=plain, inputs=inputs, outputs=shape[-2], count=count, quantized=scales is not None)
    inside = sum(value for name, value in size.items() if re.search(r"(?:^|\.)(?:layers|h|blocks)\.\d+\.", name))
    return list(modules.values()), inside


def _layer_tensors(tensors: dict[str, Any]) -> int:
    """How many tensors the last block has, without those of quantized layers."""
    found = [match for name in tensors if (match := _TENSOR.search(name))]
    last = max((int(match[1]) for match in found), default=-1)
    names = {re.sub(r"\.experts\.\d+\.", ".experts.", match[2]) for match in found if int(match[1]) == last}
    quantized = {name.removesuffix("scales") for name in names if name.endswith(".scales")}
    return sum(name[: name.rfind(".") + 1] not in quantized for name in names)


def _norms(tensors: dict[str, Any], hidden: int) -> dict[str, Any]:
    """How many norms the last block has; of a block with none by that name nothing is said."""
    found = [match for name in tensors if (match := _LAYER.search(name)) and match[2].endswith("norm")]
    last = max((int(match[1]) for match in found), default=-1)
    widths = {match[2]: tensors[match.string]["shape"] for match in found if int(match[1]) == last}
    inner = [name for name in widths if name.endswith(("q_norm", "k_norm"))]
    outer = [name for name, width in widths.items() if name not in inner and width == [hidden]]
    return {"norms": len(outer), "head_norms": bool(inner)} if outer else {}


def _group(name: str, quantization: dict[str, Any]) -> int:
    """Weights that share a scale; a mixed recipe names it by layer."""
    own = quantization.get(name.removesuffix(".weight"))
    chosen: Any = own if isinstance(own, dict) else quantization
    group = chosen.get("group_size", 64)
    return group if isinstance(group, int) else 64


def _elements(entry: dict[str, Any], name: str, tensors: dict[str, Any], quantization: dict[str, Any]) -> int:
    """Parameters in a tensor: as they were before packing."""
    shape = entry["shape"]
    scales = tensors.get(name.removesuffix("weight") + "scales") if name.endswith(".weight") else None
    if scales is not None:
        return math.prod(scales["shape"]) * _group(name, quantization)
    return math.prod(shape)


def _dtype(tensors: dict[str, Any], scales: Iterable[str]) -> Dtype:
    """The type of most floats among the scales or, when not quantized, among all tensors."""
    names = set(scales) or set(tensors)
    counts: dict[Dtype, int] = {"BF16": 0, "F16": 0, "F32": 0}
    for name in names:
        dtype = tensors[name]["dtype"]
        if dtype in counts:
            counts[dtype] += math.prod(tensors[name]["shape"])
    return max(counts, key=lambda dtype: counts[dtype])


def _size(entry: dict[str, Any]) -> int:
    return math.prod(entry["shape"]) * _BYTES.get(entry["dtype"], 1)


def _tensors_of(
    dims: dict[str, int], tied: bool, dtype: str, bits: int | None, quantization: dict[str, Any]
) -> dict[str, Any]:
    """The tensors of a llama-like model of these dimensions."""
    hidden, query, key = dims["hidden"], dims["heads"] * dims["head_dim"], dims["kv_heads"] * dims["head_dim"]
    group = quantization.get("group_size", 64)
    tensors: dict[str, Any] = {}

    def linear(name: str, *shape: int) -> None:
        if bits is None or shape[-1] % group:
            tensors[f"{name}.weight"] = {"dtype": dtype, "shape": list(shape)}
            return
        tensors[f"{name}.weight"] = {"dtype": "U32", "shape": [*shape[:-1], shape[-1] * bits // 32]}
        for part in ("scales", "biases"):
            tensors[f"{name}.{part}"] = {"dtype": dtype, "shape": [*shape[:-1], shape[-1] // group]}

    linear("model.embed_tokens", dims["vocabulary"], hidden)
    for number in range(dims["layers"]):
        block = f"model.layers.{number}"
        for name, shape in (
            ("self_attn.q_proj", (query, hidden)),
            ("self_attn.k_proj", (key, hidden)),
            ("self_attn.v_proj", (key, hidden)),
            ("self_attn.o_proj", (hidden, query)),
        ):
            linear(f"{block}.{name}", *shape)
        if dims["experts"]:
            experts, width = dims["experts"], dims["expert_mlp"]
            linear(f"{block}.mlp.gate", experts, hidden)
            for name, shape in (("gate", (width, hidden)), ("up", (width, hidden)), ("down", (hidden, width))):
                linear(f"{block}.mlp.switch_mlp.{name}_proj", experts, *shape)
        if dims["mlp"]:
            linear(f"{block}.mlp.gate_proj", dims["mlp"], hidden)
            linear(f"{block}.mlp.up_proj", dims["mlp"], hidden)
            linear(f"{block}.mlp.down_proj", hidden, dims["mlp"])
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{block}.{norm}.weight"] = {"dtype": dtype, "shape": [hidden]}
    tensors["model.norm.weight"] = {"dtype": dtype, "shape": [hidden]}
    if not tied:
        linear("lm_head", dims["vocabulary"], hidden)
    return tensors
