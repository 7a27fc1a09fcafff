"""The gate, its settings, its jobs. `{plugin}` is the plugin's own folder."""

NO = {"run": "would change the plugin"}
DENY = [
    (command, NO)
    for command in (
        "rm -rf {plugin}/hooks",
        "echo 'exit 0' > {plugin}/hooks/pre_tool_use.py",
        "sed -i 's/deny/allow/' {plugin}/hooks/guard/gate.py",
        "mv {plugin}/hooks {plugin}/hooks.off",
        "chmod 000 {plugin}/hooks/pre_tool_use.py",
        "echo '{}' > {plugin}/hooks/hooks.json",
        "rm -rf {home}/.mlx-training",
        "rm -rf {home}/.mlx-training/jobs/job-1",
        "rm {home}/.mlx-training/gpu.lock",
        "echo completed > {home}/.mlx-training/jobs/job-1/state.json",
        "mv {home}/.mlx-training/jobs {home}/jobs-old",
        "printf 'off: [artefacts]\\n' > .claude/mlx-training.yaml",
        "echo 'off: [hub]' >> {home}/.claude/mlx-training.yaml",
        "claude plugin disable mlx-training",
        "claude plugin uninstall mlx-training@market",
        "echo '{\"disableAllHooks\": true}' > .claude/settings.json",
        "python3 -c \"import json; json.dump({'disableAllHooks': True}, open('.claude/settings.local.json', 'w'))\"",
        "jq '.disableAllHooks=true' .claude/settings.json | tee .claude/settings.local.json",
        "python3 -c \"import shutil; shutil.rmtree('{home}/.mlx-training')\"",
    )
]
ASK: list[str] = []
ALLOW = [
    (command, NO)
    for command in (
        "cat {plugin}/hooks/hooks.json",
        "ls -la {plugin}/hooks {home}/.mlx-training/jobs",
        "cat {home}/.mlx-training/jobs/job-1/state.json",
        "tail -f {home}/.mlx-training/jobs/job-1/metrics.jsonl",
        "cp {home}/.mlx-training/jobs/job-1/metrics.jsonl /tmp/m-{id}.jsonl",
        "cat .claude/settings.json",
        "claude plugin list",
        "claude --version",
        "mlx-training guard explain 'rm -rf adapters'",
        "mlx-training guard log",
        "mlx-training jobs --json",
        "mkdir -p .claude/commands && echo hi > .claude/commands/hello.md",
        'echo \'{"model": "opus"}\' > .claude/settings.local.json',
        "grep -rn disableAllHooks docs || true",
        "git diff {plugin}/hooks",
    )
]
