"""One training at a time."""

NO = {"run": "needs MLX"}
BUSY = {"run": "needs MLX", "state": "training"}
T = "mlx_lm.lora --train --data data --adapter-path adapters/"
DENY = [
    (T + "a & " + T + "b & wait", NO),
    (T + "a && " + T + "b", NO),
    ("for lr in 1e-5 2e-5; do " + T + "lr-$lr --learning-rate $lr; done", NO),
    ("parallel mlx_lm.lora --train --adapter-path adapters/p-{} ::: 1 2", NO),
    (T + "n", BUSY),
    ("python -m mlx_lm lora --train --data data --adapter-path adapters/n", BUSY),
    ("nohup uv run mlx_lm.lora --train --adapter-path adapters/n > log.txt 2>&1 &", BUSY),
    ("mlx_lm.lora -c lora.yaml", BUSY),
    ("python -m mlx_lm.lora --config lora.yaml --adapter-path adapters/n", BUSY),
    ("mlx-training train --model m --data data", BUSY),
    ("python train_mlx.py", BUSY),
    ("bash -c 'python -m mlx_lm lora --train --adapter-path adapters/n'", BUSY),
]
ASK: list[str] = []
ALLOW = [
    (T + "n", NO),
    (T + "n --iters 10 > train.log 2>&1 &", NO),
    ("mlx_lm.lora -c lora.yaml", NO),
    ("mlx_lm.lora --help", BUSY),
    ("mlx_lm.lora --test --adapter-path adapters/my-lora --data data", BUSY),
    ("mlx_lm.generate --model m --adapter-path adapters/my-lora --prompt x", BUSY),
    ("python -m mlx_lm generate --model m --prompt 'how to --train'", BUSY),
    ("ps aux | grep mlx_lm.lora", BUSY),
    ("tail -f train.log", BUSY),
    ("echo mlx_lm.lora --train", BUSY),
    ("mlx-training jobs", BUSY),
    ("pytest tests -k train", BUSY),
    ("git log --grep train", BUSY),
    ("mlx_lm.convert --hf-path x --mlx-path models/new", BUSY),
]
