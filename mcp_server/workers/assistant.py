"""Which tokens of a conversation the assistant says: every answer and the token that ends it, not the headers.

A template says it itself (``{% generation %}``), or it is found by rendering: a turn begins where the conversation before
it, with the generation prompt, ends, and ends where the conversation up to it ends. That holds when each of these is a
prefix of the whole. Templates that are not prefixes of themselves (Qwen3 drops the reasoning of earlier turns, Mistral
shows the tools before the last question) are noticed, and the turn is located by what changes in the whole when its
text is another. Places are found in the text and carried over to tokens by the tokenizer's offsets, since the tokens of a
prefix need not be a prefix of the tokens.
"""

from __future__ import annotations

import copy
import re
from typing import Any, cast

from mlx_lm.tuner.datasets import ChatDataset, CompletionsDataset, ConcatenatedDataset

from mcp_server.errors import DataError

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_OTHER = "\ue000other\ue001"  # from the private use area: neither end is in any text
Span = tuple[int, int]
Messages = list[dict[str, Any]]


class AssistantMask:
    """Tokens and mask of the rows of mlx-lm's data sets."""

    def __init__(self, tokenizer: Any) -> None:
        self._turns = AssistantTurns(tokenizer)

    def of(self, data: Any, row: dict[str, Any]) -> tuple[list[int], bytes]:
        """Tokens as mlx-lm's data set ``data`` has them, and 1 where the assistant speaks. Raises DataError."""
        while isinstance(data, ConcatenatedDataset):
            data = cast(Any, data)._data[row["_dataset"]]
        if isinstance(data, ChatDataset):
            messages = row[data.chat_key]
        elif isinstance(data, CompletionsDataset):
            messages = as_messages(row[data.prompt_key], row[data.completion_key])
        else:
            raise DataError("is plain text, which has no answers; leave assistant_only_loss out, or make chat rows")
        return self._turns.mask(messages, row.get("tools"))


def as_messages(prompt: str, completion: str) -> Messages:
    """A completion as mlx-lm renders it."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]


class AssistantTurns:
    """The assistant's part of conversations, by one tokenizer and its template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._inner = tokenizer._tokenizer
        template = getattr(self._inner, "chat_template", None)
        own = getattr(tokenizer, "_chat_template", None) is None  # else mlx-lm renders by a function of its own
        self._marked = own and isinstance(template, str) and _GENERATION.search(template) is not None
        added = getattr(self._inner, "added_tokens_decoder", {}).values()
        special = [*map(str, self._inner.all_special_tokens), *(str(token) for token in added if token.special)]
        self._special = sorted({token for token in special if token})
        self._ending: str | None = None
        self._opening: str | None = None

    def mask(self, messages: Messages, tools: Any = None) -> tuple[list[int], bytes]:
        """Tokens of the conversation, as mlx-lm renders it, and 1 for each that the assistant says. Raises DataError."""
        text = self._render(messages, tools)
        encoded = self._inner(text, add_special_tokens=False, return_offsets_mapping=self._inner.is_fast)
        tokens: list[int] = list(encoded["input_ids"])
        if self._marked:
            return tokens, self._by_markers(messages, tools, tokens)
        if not self._inner.is_fast:
            raise DataError(
                "can't be masked turn by turn: the model's tokenizer gives no offsets (no tokenizer.json); "
                "use mask_prompt instead"
            )
        mask = bytearray(len(tokens))
        at = 0
        for begin, end in self.spans(messages, tools, text):
            for index in range(at, len(tokens)):
                first, last = encoded["offset_mapping"][index]
                if first >= end:
                    break
                at = index + 1
                # White space may have the empty offset at its end: it belongs to what is before.
                mask[index] = first >= begin and begin < last <= end
        return tokens, bytes(mask)

    def spans(self, messages: Messages, tools: Any, text: str) -> list[Span]:
        """Where in the rendered ``text`` each turn of the assistant stands, in characters. Raises DataError."""
        found: list[Span] = []
        for number, message in enumerate(messages):
            if message.get("role") != "assistant":
                continue
            after = found[-1][1] if found else 0
            span = self._by_prefixes(messages, number, tools, text)
            if span is None or span[0] < after:
                span = self._by_difference(messages, number, tools, text, after)
            begin, end = span
            found.append((begin, end - self._trailing(text[begin:end])))
        return found

    def _render(self, messages: Messages, tools: Any, *, opening: bool = False) -> str:
        extra: dict[str, Any] = {"add_generation_prompt": True} if opening else {}
        return self._tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **extra)

    def _by_markers(self, messages: Messages, tools: Any, tokens: list[int]) -> bytes:
        thinking = {self._tokenizer._thinking_kwarg: self._tokenizer.has_thinking}
        marked = self._inner.apply_chat_template(
            messages, tools=tools, return_dict=True, return_assistant_tokens_mask=True, **thinking
        )
        if list(marked["input_ids"]) != tokens:
            raise DataError(
                "has other tokens with the template's generation markers than without; use mask_prompt instead"
            )
        return bytes(marked["assistant_masks"])

    def _by_prefixes(self, messages: Messages, number: int, tools: Any, text: str) -> Span | None:
        try:
            before = self._render(messages[:number], tools, opening=True)
            upto = self._render(messages[: number + 1], tools)
        except Exception:
            return None  # some templates refuse a conversation that is empty or ends like this
        if text.startswith(before) and text.startswith(upto) and len(before) < len(upto):
            return len(before), len(upto)
        return None

    def _by_difference(self, messages: Messages, number: int, tools: Any, text: str, after: int) -> Span:
        """The turn as the part of ``text`` that changes with it, back to its header and on to its end."""
        other = copy.deepcopy(messages)
        changed = other[number]
        if changed.get("content"):
            changed["content"] = _OTHER
        for call in changed.get("tool_calls") or []:
            function = call.get("function", call)
            function["name"], function["arguments"] = _OTHER, {}
        try:
            another = self._render(other, tools)
        except Exception as error:
            raise _not_found(number, messages, f"the template refuses it changed: {error}") from error
        if _OTHER not in another:
            raise _not_found(number, messages, "the template does not show it")
        begin = _alike(text, another)
        end = len(text) - _alike(text[begin:][::-1], another[begin:][::-1])
        if begin < after:
            raise _not_found(number, messages, "it changes what stands before it")
        if not (opening := self._generation_prompt()):
            begin -= len(text[after:begin]) - len(text[after:begin].rstrip())  # a space before it is the answer's
        elif (place := text.rfind(opening, after, begin)) >= 0:
            begin = place + len(opening)
        elif changed.get("tool_calls"):
            raise _not_found(number, messages, "where its tool call begins can't be told")
        closing = self._end_of_turn()
        if closing and closing in text[begin:end]:
            raise _not_found(number, messages, f"it holds the end token {closing!r} itself")
        if closing and (place := text.find(closing, end)) >= 0:
            end = place + len(closing)
        return begin, end

    def _generation_prompt(self) -> str:
        """What opens an answer, such as "<|im_start|>assistant\\n"; "" for templates that have none."""
        if self._opening is None:
            question = [{"role": "user", "content": "x"}]
            short, long = self._render(question, None), self._render(question, None, opening=True)
            self._opening = long[len(short) :] if long.startswith(short) else ""
        return self._opening

    def _end_of_turn(self) -> str:
        """The special token that ends an answer, such as "<|im_end|>"; "" for templates that have none."""
        if self._ending is None:
            text = self._render(as_messages("x", _OTHER), None)
            _, _, rest = text.partition(_OTHER)
            places = [(rest.find(token), token) for token in self._special if token in rest]
            self._ending = min(places)[1] if places else ""
        return self._ending

    def _trailing(self, turn: str) -> int:
        """Characters of white space after the token that ends the turn: the next header's, not the answer's."""
        bare = turn.rstrip()
        return len(turn) - len(bare) if any(bare.endswith(token) for token in self._special) else 0


def _alike(one: str, other: str) -> int:
    """Characters at the start of two texts that are the same."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _not_found(number: int, messages: Messages, reason: str) -> DataError:
    return DataError(
        f"can't be masked: message {number + 1} of {len(messages)}, an answer, is not found in the rendered row, which is "
        f"no continuation of the row without it ({reason}); use mask_prompt, or change the row"
    )
