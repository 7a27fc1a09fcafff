"""SessionStart: resolves the interpreter for the other hooks and compiles the gate. Prints nothing, never fails."""

import sys

sys.path.insert(0, __file__.rpartition("/")[0])
try:
    from guard.start import prepare

    prepare()
except Exception as error:  # the hooks work without it, only slower
    sys.stderr.write("mlx-training: the hooks could not be prepared: " + type(error).__name__ + "\n")
