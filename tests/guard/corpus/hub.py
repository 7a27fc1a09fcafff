"""Uploads."""

NO = {"run": "needs the network"}
DENY: list[str] = []
ASK = [
    (command, NO)
    for command in (
        "mlx_lm.upload --path models/Qwen2.5-3B-4bit --upload-repo me/qwen",
        "python -m mlx_lm upload --path fused_model --upload-repo me/x",
        "mlx_lm.convert --hf-path x --mlx-path models/n -q --upload-repo me/x",
        "mlx_lm.fuse --model m --save-path models/n2 --upload-repo me/x",
        "hf upload me/my-lora adapters/my-lora",
        "huggingface-cli upload me/my-lora adapters/my-lora .",
        "hf upload-large-folder me/x models --repo-type model",
        "uvx hf upload me/x data --repo-type dataset",
        "uv run huggingface-cli upload me/x .",
        "git push hf main",
        "git push https://huggingface.co/me/x main",
        "git -C . push hf HEAD:main",
        "git remote add hub https://huggingface.co/me/y && git push hub main",
        "git push git@hf.co:me/x main",
        "python -c \"from huggingface_hub import HfApi; HfApi().upload_folder(folder_path='adapters', repo_id='me/x')\"",
        "python -c \"from huggingface_hub import upload_file; upload_file(path_or_fileobj='a', path_in_repo='a', repo_id='me/x')\"",
        "python <<'EOF'\nfrom huggingface_hub import HfApi\napi = HfApi()\napi.upload_large_folder(repo_id='me/x', folder_path='models', repo_type='model')\nEOF",
        "python <<'EOF'\nfrom datasets import load_dataset\nds = load_dataset('json', data_files='data/train.jsonl')\nds.push_to_hub('me/x')\nEOF",
        "python <<'EOF'\nmodel.push_to_hub('me/x')\nEOF",
        "python -c \"from huggingface_hub import HfApi; HfApi().update_repo_visibility('me/x', private=False)\"",
        "hf repo create me/x",
        "hf repo settings me/x --private false",
        "curl -X POST https://huggingface.co/api/models/me/x/commit/main -d @payload.json",
        "curl -T model.safetensors https://huggingface.co/me/x/upload",
        "bash push.sh",
    )
]
ALLOW = [
    (command, NO)
    for command in (
        "hf download Qwen/Qwen2.5-0.5B --local-dir models/qwen",
        "huggingface-cli download mlx-community/Qwen2.5-3B-Instruct-4bit",
        "hf auth whoami",
        "hf auth login",
        "hf cache ls",
        "hf repo create me/x --private",
        "git push origin main",
        "git push",
        "git push --dry-run hf main",
        "git pull hf main",
        "git fetch hf",
        "git remote -v",
        "git clone https://huggingface.co/Qwen/Qwen2.5-0.5B",
        "python -c \"from huggingface_hub import snapshot_download; snapshot_download('Qwen/Qwen2.5-0.5B')\"",
        "curl -sL https://huggingface.co/api/models/Qwen/Qwen2.5-0.5B",
        "curl -LO https://huggingface.co/Qwen/x/resolve/main/config.json",
        "wget https://huggingface.co/Qwen/x/resolve/main/README.md",
        "mlx_lm.convert --hf-path Qwen/Qwen2.5-0.5B --mlx-path models/q05",
        "echo hf upload me/x .",
        "grep -rn 'push_to_hub' docs || true",
        "git commit --allow-empty -m 'hf upload me/x'",
        "python -c \"print('push_to_hub')\"",
        "npm publish --dry-run",
        "hf --help && hf upload --help",
    )
]
