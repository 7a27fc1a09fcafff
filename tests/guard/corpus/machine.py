"""The machine's limits."""

NO = {"run": "changes the machine, or macOS"}
DENY: list[str] = []
ASK = [
    (command, NO)
    for command in (
        "sudo sysctl iogpu.wired_limit_mb=24576",
        "sudo sysctl -w iogpu.wired_limit_mb=30000",
        "sysctl -w debug.iogpu.wired_limit=1",
        "sudo purge",
        "purge",
        "echo 'iogpu.wired_limit_mb=1' | sudo tee -a /etc/sysctl.conf",
        "N=24576; sudo sysctl iogpu.wired_limit_mb=$N",
        "ulimit -v 16000000 && mlx_lm.generate --model m --prompt x",
        "sudo sh -c 'sysctl iogpu.wired_limit_mb=1000'",
        "python3 -c \"import os; os.system('sudo sysctl iogpu.wired_limit_mb=1')\"",
    )
]
ALLOW = [
    (command, NO)
    for command in (
        "sysctl iogpu.wired_limit_mb",
        "sysctl -n iogpu.wired_limit_mb hw.memsize",
        "sysctl -a | grep iogpu",
        "sysctl -n machdep.cpu.brand_string",
        "memory_pressure",
        "vm_stat 1",
        "ulimit -a",
        "ulimit -n 4096",
        "echo sudo purge",
        "grep -rn iogpu.wired_limit_mb docs",
        "git gc --prune=now",
        "docker system prune --dry-run",
        "brew cleanup",
        "npm cache clean",
    )
]
