"""Tokens. They are made up, and put together here so that no scanner takes this file for a leak."""

NO = {"run": "nothing is destroyed"}
HF = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz12345678"
SK = "sk-" + "proj-Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9St0"
WB = "0f1e2d3c4b5a69788796a5b4" + "c3d2e1f001234567"
DENY = [
    (command, NO)
    for command in (
        f"echo 'HF_TOKEN={HF}' > config.env",
        f"echo 'token: {HF}' >> settings.yaml",
        f"cat > config.py <<'EOF'\nHF_TOKEN = '{HF}'\nEOF",
        f"printf 'OPENAI_API_KEY={SK}\\n' | tee keys.txt",
        f"sed -i 's/TOKEN/{HF}/' README.md",
        f"python3 -c \"open('config.json', 'w').write('{HF}')\"",
        f"echo 'export WANDB_API_KEY={WB}' >> env.sh",
    )
]
ASK = [
    (command, NO)
    for command in (
        f"HF_TOKEN={HF} hf download x",
        f"export HF_TOKEN={HF}",
        f"hf auth login --token {HF}",
        f"curl -H 'Authorization: Bearer {HF}' https://huggingface.co/api/whoami-v2",
        f"echo 'HF_TOKEN={HF}' > .env",
        f"echo 'OPENAI_API_KEY={SK}' >> .env",
        f"wandb login {WB}",
        f"hf auth login --token hf_''{HF[3:]}",
        f"git clone https://user:{HF}@huggingface.co/me/x",
    )
]
ALLOW = [
    (command, NO)
    for command in (
        "echo ${HF_TOKEN:+set}",
        'test -n "$HF_TOKEN" && echo yes',
        "HF_TOKEN=$HF_TOKEN hf download x",
        "export HF_TOKEN=$(cat ~/.cache/huggingface/token)",
        "echo 'HF_TOKEN=hf_your_token_here' > .env.example",
        "echo 'HF_TOKEN=hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' > .env.example",
        "python -c 'import os; print(bool(os.environ.get(\"HF_TOKEN\")))'",
        "grep -rn 'hf_' docs || true",
        "git show 0f1e2d3c4b5a69788796a5b4c3d2e1f001234567",
        "pip install hf_transfer",
        "HF_HUB_ENABLE_HF_TRANSFER=1 hf download x",
        "wandb status",
        "git log --oneline | grep sk-",
    )
]
