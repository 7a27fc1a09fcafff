"""--trust-remote-code."""

NO = {"run": "needs MLX"}
DENY: list[str] = []
ASK = [
    (command, NO)
    for command in (
        "mlx_lm.generate --model m --prompt x --trust-remote-code",
        "mlx_lm.convert --hf-path x --mlx-path models/n --trust-remote-code",
        "python -m mlx_lm generate --model m --trust_remote_code",
        "mlx_lm.generate --model m --trust-remote-code=true",
        "mlx_lm.generate --model m --trust-rem --prompt x",
        "uv run mlx_lm.lora --train --trust-remote-code --adapter-path adapters/n",
        "python -c \"from transformers import AutoTokenizer as T; T.from_pretrained('x', trust_remote_code=True)\"",
        "python <<'EOF'\nfrom mlx_lm import load\nload('x', tokenizer_config={'trust_remote_code': True})\nEOF",
        "lm_eval --model hf --model_args pretrained=x,trust_remote_code=True",
        "HF_TRUST_REMOTE_CODE=1 python eval.py",
        "vllm serve x --trust-remote-code",
        "F=--trust-remote-code; mlx_lm.generate --model m $F",
        "mlx_lm.generate --model m --trust-'remote'-code",
        "vllm serve x --tr''ust-remote-code",
    )
]
ALLOW = [
    (command, NO)
    for command in (
        "mlx_lm.generate --model m --prompt 'what is trust_remote_code?'",
        "grep -rn trust_remote_code docs || true",
        "rg -n -- --trust-remote-code docs || true",
        "echo --trust-remote-code",
        "git commit --allow-empty -m 'drop --trust-remote-code'",
        "python -c \"from transformers import AutoTokenizer as T; T.from_pretrained('x', trust_remote_code=False)\"",
        "lm_eval --model hf --model_args pretrained=x,trust_remote_code=False",
        "mlx_lm.generate --help | grep trust",
        "mlx_lm.generate --model m --prompt x",
    )
]
