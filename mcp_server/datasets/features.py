"""The data's own field names, as mlx-lm's ``*_feature`` options give them."""

from __future__ import annotations

from pydantic import BaseModel, Field

NAME_THEM = (
    "say what the data call these fields with prompt_feature and completion_feature, chat_feature or text_feature"
)
_GIVEN = "Name of this field in the data; default as the adapter was trained"


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


class GivenNames(BaseModel):
    """The same of whatever reads rows that have to do with a training: its names hold where none is given."""

    prompt_feature: str | None = Field(default=None, description=_GIVEN)
    completion_feature: str | None = Field(default=None, description=_GIVEN)
    chat_feature: str | None = Field(default=None, description=_GIVEN)
    text_feature: str | None = Field(default=None, description=_GIVEN)

    def over(self, trained: FeatureNames) -> FeatureNames:
        """The names that hold after a training with these."""
        given = self.model_dump(include=set(FeatureNames.model_fields), exclude_none=True)
        return trained.model_copy(update=given)
