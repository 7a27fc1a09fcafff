"""What can be asked of a conversion and of a fusion: mlx-lm's own names and defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_BITS = (1, 2, 3, 4, 5, 6, 8)
_GROUPS = (32, 64, 128)
# The code of mlx_lm.quant.gptq packs these widths alone.
_GPTQ_BITS = (2, 4, 8)
Method = Literal["dwq", "awq", "gptq", "dynamic"]
_NEEDS_METHOD = ("calibration_data", "method_options")
EVAL_DATA = (
    "What perplexity is measured on: a folder with test.jsonl, valid.jsonl or train.jsonl, a .jsonl or a text file; "
    "default a short general text that comes with this package"
)


class MethodOptions(BaseModel):
    """Settings of a learned quantization; what is left out is mlx-lm's default for the method."""

    model_config = ConfigDict(extra="forbid")

    num_samples: int | None = Field(default=None, ge=1, description="Calibration samples; dwq 2048, awq 128, else all")
    max_seq_length: int = Field(default=512, ge=8, description="Tokens per sample")
    seed: int = Field(default=123, ge=0, lt=2**32, description="Seed of the choice of samples")
    batch_size: int = Field(default=4, ge=1, description="dwq, dynamic: samples per step")
    learning_rate: float = Field(default=1e-6, gt=0, allow_inf_nan=False, description="dwq: rate of Adam")
    target_bpw: float = Field(default=5.0, gt=0, allow_inf_nan=False, description="dynamic: bits per weight to meet")
    high_bits: Literal[2, 3, 4, 5, 6, 8] = Field(default=5, description="dynamic: bits of the sensitive layers")
    n_grid: int = Field(default=20, ge=2, description="awq: steps of its search")
    grad_checkpoint: bool = Field(default=False, description="dwq, dynamic: less memory for more time")


class ConvertOptions(BaseModel):
    """The arguments of one conversion."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="Hub id or folder of the model to convert", min_length=1)
    mlx_path: str | None = Field(
        default=None, description="New folder for the result; default models/<model>-4bit and the like"
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a Hub id", min_length=1)
    quantize: bool = Field(default=True, description="Quantize; false only changes format and dtype")
    q_bits: int | None = Field(default=None, description="Bits per weight: 1-6 or 8; default 4")
    q_group_size: int | None = Field(default=None, description="Weights that share a scale: 32, 64 or 128; default 64")
    q_mode: Literal["affine", "mxfp4", "nvfp4", "mxfp8"] = Field(default="affine", description="Quantization format")
    quant_predicate: Literal["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"] | None = Field(
        default=None, description="Mixed-bit recipe; affine only"
    )
    dtype: Literal["float16", "bfloat16", "float32"] | None = Field(
        default=None, description="Type of the weights that are not quantized; default the model's own"
    )
    dequantize: bool = Field(default=False, description="Turn a quantized model back; goes with quantize=false")
    method: Method | None = Field(
        default=None, description="Quantize with the help of calibration_data, as mlx_lm.dwq, awq, gptq, dynamic_quant"
    )
    calibration_data: str | None = Field(
        default=None, description="For method: your data, a folder with train.jsonl, or a text file"
    )
    method_options: Annotated[MethodOptions | None, Field(description="Settings of the method")] = None
    eval_data: str | None = Field(default=None, description=EVAL_DATA)

    @model_validator(mode="after")
    def _fits_together(self) -> ConvertOptions:
        if self.dequantize and self.quantize:
            raise ValueError("dequantize=true goes with quantize=false")
        self._check_bits()
        self._check_method()
        return self

    def _check_bits(self) -> None:
        if self.q_mode == "affine":
            if self.q_bits is not None and self.q_bits not in _BITS:
                raise ValueError(f"q_bits={self.q_bits}; affine quantization has {', '.join(map(str, _BITS))} bits")
            if self.q_group_size is not None and self.q_group_size not in _GROUPS:
                raise ValueError(f"q_group_size={self.q_group_size}; choose {', '.join(map(str, _GROUPS))}")
        elif self.q_bits is not None or self.q_group_size is not None or self.quant_predicate is not None:
            raise ValueError(
                f"q_mode={self.q_mode} fixes bits and group size; leave q_bits, q_group_size, quant_predicate out"
            )

    def _check_method(self) -> None:
        if self.method is None:
            given = [name for name in _NEEDS_METHOD if getattr(self, name) is not None]
            if given:
                raise ValueError(f"{' and '.join(given)} are for method='dwq', 'awq', 'gptq' or 'dynamic'; name one")
            return
        if not self.quantize or self.q_mode != "affine" or self.quant_predicate is not None or self.dtype is not None:
            raise ValueError(
                f"method={self.method} quantizes in affine mode and keeps the model's dtype; "
                "leave quantize, q_mode, quant_predicate and dtype out"
            )
        if self.calibration_data is None:
            raise ValueError(
                f"method={self.method} learns from examples; give calibration_data, such as your train.jsonl"
            )
        if self.method == "gptq" and self.bits not in _GPTQ_BITS:
            raise ValueError(f"q_bits={self.bits}; mlx-lm's gptq packs {', '.join(map(str, _GPTQ_BITS))} bits")
        settings = self.learned
        if self.method == "dynamic" and settings.high_bits <= self.bits:
            raise ValueError(f"high_bits={settings.high_bits} must be above q_bits={self.bits}; raise it")

    @property
    def bits(self) -> int:
        """Bits per quantized weight, scales aside; of a recipe or dynamic quantization the low ones."""
        fixed = {"mxfp4": 4, "nvfp4": 4, "mxfp8": 8}
        return fixed.get(self.q_mode) or self.q_bits or 4

    @property
    def group_size(self) -> int:
        return {"mxfp4": 32, "nvfp4": 16, "mxfp8": 32}.get(self.q_mode) or self.q_group_size or 64

    @property
    def learned(self) -> MethodOptions:
        return self.method_options or MethodOptions()

    def suffix(self) -> str:
        """What the default folder's name ends in."""
        if not self.quantize:
            return "mlx" if self.dtype is None else self.dtype
        if self.method is not None:
            return f"{self.bits}bit-{self.method}"
        return self.quant_predicate or (f"{self.bits}bit" if self.q_mode == "affine" else self.q_mode)


class FuseOptions(BaseModel):
    """The arguments of one fusion."""

    model_config = ConfigDict(extra="forbid")

    adapter_path: str = Field(description="Adapter folder: LoRA, DoRA or full fine-tuning", min_length=1)
    model: str | None = Field(
        default=None,
        description="Base model, folder or Hub id; default the one the adapter was trained on",
        min_length=1,
    )
    save_path: str | None = Field(
        default=None, description="New folder for the fused model; default models/<adapter>-fused. Never overwritten"
    )
    dequantize: bool = Field(
        default=False, description="Write 16-bit weights; a quantized base otherwise rounds the adapter anew"
    )
    export_gguf: bool = Field(
        default=False, description="Write ggml-model-f16.gguf into it too; llama, mistral and mixtral in 16 bits"
    )
    eval_data: str | None = Field(
        default=None, description=EVAL_DATA.replace("perplexity is", "logits are compared and perplexity is")
    )
