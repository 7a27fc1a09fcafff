"""Rows as mlx-lm renders them: tokens, where the loss begins, and whether the template can be masked at all."""

from __future__ import annotations

from typing import Any

from jinja2.exceptions import TemplateError
from mlx_lm.tuner.datasets import ChatDataset, CompletionsDataset, TextDataset

from mcp_server.datasets.lengths import trained_tokens
from mcp_server.datasets.rows import CHAT, COMPLETIONS, Problem
from mcp_server.errors import DataError
from mcp_server.workers.assistant import AssistantTurns, as_messages

_CHECKED = 16  # rows of each file that are rendered in both ways
_SEEN_CONTENT = 64  # rows of each file whose messages are looked for in the rendered text


class Rendered:
    """One row: ``tokens``, the ``offset`` of the first trained one, and how many ``prefix`` tokens the prompt alone shares.

    ``dropped`` names a message the template left out. ``mask``: 1 for each token of an answer, under assistant_only_loss.
    """

    __slots__ = ("dropped", "mask", "offset", "prefix", "tokens")

    def __init__(
        self, tokens: list[int], offset: int, prefix: int, dropped: str | None, mask: bytes | None = None
    ) -> None:
        self.tokens = tokens
        self.offset = offset
        self.prefix = prefix
        self.dropped = dropped
        self.mask = mask

    def trained(self, window: int) -> int:
        """Tokens that count in the loss within ``window`` tokens, without the padding token of mlx-lm's mask."""
        if self.mask is not None:
            return sum(self.mask[1:window])
        return trained_tokens(len(self.tokens), self.offset, window)


class Renderer:
    """Renders batches of one file's rows."""

    def __init__(self, tokenizer: Any, *, mask_prompt: bool, assistant_only_loss: bool = False) -> None:
        self._tokenizer = tokenizer
        self._turns = AssistantTurns(tokenizer) if assistant_only_loss else None
        self._mask = mask_prompt
        self._together = True  # until a row comes out differently
        self._checked = 0
        self._seen = 0

    def render(self, rows: list[tuple[int, dict[str, Any], str]]) -> list[Rendered | Problem]:
        """Each (line, row, format) as the model sees it, or why it can't be rendered."""
        texts: list[tuple[str, str | None] | Problem] = [self._texts(row, row_format) for _, row, row_format in rows]
        whole = [text[0] for text in texts if not isinstance(text, Problem)]
        prompts = [text[1] for text in texts if not isinstance(text, Problem) and text[1] is not None]
        # Rows of one file have one format, so all of them take special tokens (text) or none does (template).
        special = bool(rows) and rows[0][2] not in (CHAT, COMPLETIONS)
        encoded = iter(self._encode(whole, special))
        encoded_prompts = iter(self._encode(prompts, special))
        rendered: list[Rendered | Problem] = []
        for (_, row, row_format), text in zip(rows, texts, strict=True):
            if isinstance(text, Problem):
                rendered.append(text)
                continue
            tokens = next(encoded)
            prompt = next(encoded_prompts) if text[1] is not None else []
            if special and tokens[-1:] != [self._tokenizer.eos_token_id]:
                tokens = [*tokens, self._tokenizer.eos_token_id]
            rendered.append(self._checked_row(row, row_format, text[0], tokens, prompt))
        return rendered

    def _checked_row(
        self, row: dict[str, Any], row_format: str, text: str, tokens: list[int], prompt: list[int]
    ) -> Rendered | Problem:
        offset = len(prompt)
        if self._checked < _CHECKED or not self._together:
            self._checked += 1
            true_tokens, offset = self._by_mlx_lm(row, row_format)
            if true_tokens != tokens or offset != len(prompt):
                self._together = False
            tokens = true_tokens
        prefix = next((at for at, (a, b) in enumerate(zip(tokens, prompt, strict=False)) if a != b), None)
        prefix = min(len(tokens), len(prompt)) if prefix is None else prefix
        mask: bytes | None = None
        if self._turns is not None and row_format in (CHAT, COMPLETIONS):
            messages = row["messages"] if row_format == CHAT else as_messages(row["prompt"], row["completion"])
            try:
                tokens, mask = self._turns.mask(messages, row.get("tools"))
            except DataError as error:
                return Problem("answers-not-found", str(error))
        return Rendered(tokens, offset, prefix, self._dropped(row, row_format, text), mask)

    def _by_mlx_lm(self, row: dict[str, Any], row_format: str) -> tuple[list[int], int]:
        data: Any
        if row_format == CHAT:
            data = ChatDataset([], self._tokenizer, mask_prompt=self._mask)
        elif row_format == COMPLETIONS:
            data = CompletionsDataset([], self._tokenizer, "prompt", "completion", self._mask)
        else:
            data = TextDataset([], self._tokenizer)
        tokens, offset = data.process(row)
        return list(tokens), offset

    def _texts(self, row: dict[str, Any], row_format: str) -> tuple[str, str | None] | Problem:
        """The whole row and, under mask_prompt, its prompt alone, as text."""
        if row_format not in (CHAT, COMPLETIONS):
            return row["text"], None
        messages: list[dict[str, Any]] = (
            row["messages"] if row_format == CHAT else as_messages(row["prompt"], row["completion"])
        )
        try:
            whole = self._template(messages, row.get("tools"), generation=False)
            if not self._mask:
                return whole, None
            # As mlx-lm: a chat that ends with the user gets no generation prompt, a completion always does.
            generation = row_format == COMPLETIONS or messages[-1].get("role") == "assistant"
            return whole, self._template(messages[:-1], row.get("tools"), generation=generation)
        except ValueError as error:
            if "chat_template" in str(error) or "chat template" in str(error):
                return Problem(
                    "no-chat-template",
                    "needs a chat template and the model's tokenizer has none; use the model's Instruct version, "
                    "or bring the data to text format with prepare_dataset",
                )
            return _refused(error)
        except (TemplateError, TypeError, KeyError, AttributeError, IndexError) as error:
            return _refused(error)

    def _template(self, messages: list[dict[str, Any]], tools: Any, *, generation: bool) -> str:
        # Left out where mlx-lm leaves it out, so that a template sees the same arguments.
        extra: dict[str, Any] = {"add_generation_prompt": True} if generation else {}
        return self._tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **extra)

    def _encode(self, texts: list[str], special: bool) -> list[list[int]]:
        if not texts:
            return []
        return self._tokenizer._tokenizer(texts, add_special_tokens=special)["input_ids"]

    def _dropped(self, row: dict[str, Any], row_format: str, text: str) -> str | None:
        if row_format != CHAT or self._seen >= _SEEN_CONTENT:
            return None
        self._seen += 1
        for number, message in enumerate(row["messages"], start=1):
            content = message.get("content")
            if isinstance(content, str) and content.strip() and content.strip()[:200] not in text:
                return f"message {number} ({message.get('role')})"
        return None


def _refused(error: Exception) -> Problem:
    text = " ".join(str(error).split())[:200]
    return Problem(
        "template-refuses",
        f"is refused by the model's chat template: {text or type(error).__name__}; change the row's messages",
    )
