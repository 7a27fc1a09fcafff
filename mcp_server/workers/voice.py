"""The worker's side of ``datasets/process.py``: lines of JSON to whoever asked. A closed pipe ends the process."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel

from mcp_server.errors import ModelError, UserError

Request = TypeVar("Request", bound=BaseModel)


class Voice:
    """Progress now and then, and at the end one answer."""

    def __init__(self, first: str) -> None:
        """``first``: what is done until the first ``progress``."""
        # Libraries print; what they print must not land among our lines.
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._state: tuple[float, float | None, str] = (0, None, first)
        threading.Thread(target=self._repeat, daemon=True).start()

    def progress(self, done: float, total: float | None, what: str) -> None:
        self._state = (done, total, what)

    def _repeat(self) -> None:
        while True:
            self.say({"progress": self._state})
            time.sleep(0.4)

    def say(self, word: dict[str, Any]) -> None:
        try:
            self._out.write(json.dumps(word) + "\n")
            self._out.flush()
        except BrokenPipeError:
            os._exit(1)


def answer(kind: type[Request], work: Callable[[Request, Voice], BaseModel], first: str) -> None:
    """Read the request, do ``work``, and say what came of it."""
    voice = Voice(first)
    request = kind.model_validate_json(sys.stdin.read())
    try:
        found = work(request, voice)
    except UserError as error:
        voice.say({"error": str(error), "kind": "model" if isinstance(error, ModelError) else "data"})
    else:
        voice.say(found.model_dump(mode="json"))
