"""PreToolUse: silent for what is harmless, a deny or ask as JSON for what isn't, a refusal for its own failures."""

import posix
import sys

sys.path.insert(0, __file__.rpartition("/")[0])
raw = b""
code = 0
try:
    raw = sys.stdin.buffer.read()
    from guard.prefilter import settled_raw

    if not settled_raw(raw):
        from guard.gate import main

        answer = main(raw).encode()
        while answer:
            answer = answer[posix.write(1, answer) :]
except BaseException as error:
    # Any crash would let the call pass, so it becomes a refusal when the call names something protected.
    if any(name in raw.lower() for name in (b"adapter", b"safetensors", b"mlx", b"checkpoint", b".jsonl", b"models")):
        posix.write(
            2, b"The mlx-training gate failed (" + type(error).__name__.encode() + b"), so this call is refused."
        )
        code = 2
# Tidying up the interpreter would cost an eighth of the call, and there is nothing to tidy.
posix._exit(code)  # pyright: ignore[reportPrivateUsage]
