"""What can be asked of a trial generation."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class GenerateOptions(BaseModel):
    """The arguments of one generation; names and defaults of ``mlx_lm.generate``."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        default=None, description="Model folder or Hub id; default the adapter's own base", min_length=1
    )
    adapter_path: str | None = Field(default=None, description="Adapter to try; without it the model alone")
    prompt: str | None = Field(default=None, description="The user's turn", min_length=1)
    messages: list[dict[str, Any]] | None = Field(
        default=None, description="A whole chat, [{role, content}, …], instead of prompt", min_length=1
    )
    system: str | None = Field(default=None, description="System message before prompt")
    raw: bool = Field(default=False, description="Give prompt as it is, without the chat template")
    compare: bool = Field(default=False, description="Answer with the base too, side by side")
    max_tokens: int = Field(default=256, ge=1, le=32768, description="Longest answer, tokens")
    temperature: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="0 takes the likeliest token each time"
    )
    top_p: float = Field(default=1.0, gt=0, le=1, description="Sample from the likeliest tokens of this probability")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the sampling")

    @model_validator(mode="after")
    def _fits_together(self) -> GenerateOptions:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        if self.messages is not None and (self.raw or self.system is not None):
            raise ValueError("raw and system go with prompt; in messages say it there")
        if self.raw and self.system is not None:
            raise ValueError(
                "raw=true leaves the chat template out, so there is no place for system; put it into prompt"
            )
        for message in self.messages or []:
            if not isinstance(message.get("role"), str) or "content" not in message:
                raise ValueError(f"each message needs role and content; this one has {', '.join(message) or 'nothing'}")
        if self.model is None and self.adapter_path is None:
            raise ValueError("give a model, an adapter_path, or both")
        if self.compare and self.adapter_path is None:
            raise ValueError("compare=true sets an adapter against its base; give adapter_path")
        return self


class Answer(BaseModel):
    """What one model said."""

    text: str
    tokens: int
    finish_reason: str = Field(description="stop, or length when max_tokens cut it")
    tokens_per_second: float


class GenerationResult(BaseModel):
    """The answers. ``base`` without an adapter, or with compare."""

    model: str
    adapter_path: str | None = None
    prompt_tokens: int
    base: Answer | None = None
    adapter: Answer | None = None
    notes: list[str] = Field(default_factory=list)
