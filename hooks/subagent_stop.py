"""SubagentStop and Stop: holds the specialist back once for what it would leave unsaid. Lets go on its own failures."""

import sys

sys.path.insert(0, __file__.rpartition("/")[0])
raw = sys.stdin.buffer.read()
if b"mlx-training-specialist" in raw:
    try:
        from guard.stop import review
        from guard.wire import loads

        sys.stdout.write(review(loads(raw.decode("utf-8", "replace"))))
    except Exception as error:  # an agent that can't stop is worse than one that says too little
        sys.stderr.write("mlx-training: the stop could not be checked: " + type(error).__name__ + "\n")
