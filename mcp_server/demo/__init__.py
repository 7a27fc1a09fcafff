"""The offline demo: a small shop's help desk, a tiny model that knows its facts, and data that teach a house style."""

from pathlib import Path

# The pre-trained model of the demo, a plain model folder for mlx-lm (`build.py` makes it again).
BASE = Path(__file__).with_name("base")
