"""What can be asked of a conversion: mlx_lm.convert's own names and defaults."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_BITS = (1, 2, 3, 4, 5, 6, 8)
_GROUPS = (32, 64, 128)


class ConvertOptions(BaseModel):
    """The arguments of one conversion."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="Hub id or folder of the model to convert", min_length=1)
    mlx_path: str | None = Field(
        default=None, description="New folder for the result; default models/<model>-4bit and the like"
    )
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

    @model_validator(mode="after")
    def _fits_together(self) -> ConvertOptions:
        if self.dequantize and self.quantize:
            raise ValueError("dequantize=true goes with quantize=false")
        if self.q_mode == "affine":
            if self.q_bits is not None and self.q_bits not in _BITS:
                raise ValueError(f"q_bits={self.q_bits}; affine quantization has {', '.join(map(str, _BITS))} bits")
            if self.q_group_size is not None and self.q_group_size not in _GROUPS:
                raise ValueError(f"q_group_size={self.q_group_size}; choose {', '.join(map(str, _GROUPS))}")
        elif self.q_bits is not None or self.q_group_size is not None or self.quant_predicate is not None:
            raise ValueError(
                f"q_mode={self.q_mode} fixes bits and group size; leave q_bits, q_group_size, quant_predicate out"
            )
        return self

    def suffix(self) -> str:
        """What the default folder's name ends in."""
        if not self.quantize:
            return "mlx"
        return self.quant_predicate or (f"{self.q_bits or 4}bit" if self.q_mode == "affine" else self.q_mode)
