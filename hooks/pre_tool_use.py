"""PreToolUse: silent for what is harmless, a deny or ask as JSON for what isn't, a refusal for its own failures."""

import sys

sys.path.insert(0, __file__.rpartition("/")[0])
raw = b""
try:
    raw = sys.stdin.buffer.read()
    from guard.prefilter import settled
    from guard.wire import loads

    payload = loads(raw.decode("utf-8", "replace"))
    if isinstance(payload, dict) and not settled(payload):
        from guard.gate import main

        sys.stdout.write(main(payload))
except BaseException as error:
    # Any crash would let the call pass, so it becomes a refusal when the call names something protected.
    text = raw.lower()
    if any(name in text for name in (b"adapter", b"safetensors", b"mlx", b"checkpoint", b".jsonl", b"models")):
        sys.stderr.write("The mlx-training gate failed (" + type(error).__name__ + "), so this call is refused.")
        sys.exit(2)
