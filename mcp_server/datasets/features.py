"""The data's own field names, as mlx-lm's ``*_feature`` options give them."""

from __future__ import annotations

from pydantic import BaseModel, Field


class FeatureNames(BaseModel):
    """Options of whatever reads a user's rows."""

    prompt_feature: str = Field(default="prompt", description="Name of this field in the data")
    completion_feature: str = Field(default="completion", description="Name of this field in the data")
    chat_feature: str = Field(default="messages", description="Name of this field in the data")
    text_feature: str = Field(default="text", description="Name of this field in the data")

    @property
    def features(self) -> dict[str, str]:
        """The data's name of each field that mlx-lm calls otherwise → mlx-lm's name."""
        pairs = (
            (self.prompt_feature, "prompt"),
            (self.completion_feature, "completion"),
            (self.chat_feature, "messages"),
            (self.text_feature, "text"),
        )
        return {own: standard for own, standard in pairs if own != standard}
