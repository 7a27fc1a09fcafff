"""The file tools: (tool, input). `{root}`, `{home}` and `{plugin}` as in the shell cases."""

import json

from tests.guard.tree import ROW

from .secrets import HF, SK, WB

GOOD = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'


VALID = "".join(json.dumps({**ROW, "n": number}) + "\n" for number in (1, 11))


def write(path: str, content: str) -> tuple[str, dict[str, str]]:
    return "Write", {"file_path": "{root}/" + path if path[:1] not in "{/" else path, "content": content}


def edit(path: str, old: str, new: str) -> tuple[str, dict[str, str]]:
    return "Edit", {
        "file_path": "{root}/" + path if path[:1] not in "{/" else path,
        "old_string": old,
        "new_string": new,
    }


DENY = [
    write("new/train.jsonl", "not json\n"),
    write("new/train.jsonl", GOOD + '{"messages": [{"role": "user", "content": "q"}]\n'),
    write("new/valid.jsonl", '{"messages": []}\n'),
    write("new/train.jsonl", '{"messages": [{"role": "user", "content": "q"}]}\n'),
    write(
        "new/train.jsonl", '{"messages": [{"role": "human", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
    ),
    write(
        "new/train.jsonl", '{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}]}\n'
    ),
    write(
        "new/train.jsonl", '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null}]}\n'
    ),
    write("new/train.jsonl", GOOD + '{"text": "mixed"}\n'),
    write("new/train.jsonl", '{"prompt": "a", "completion": "b"}\n' + GOOD),
    write("new/train.jsonl", '{"text": NaN}\n'),
    write("new/test.jsonl", '{"input": "a", "output": "b"}\n'),
    write("new/train.jsonl", GOOD + "\n" + GOOD),
    write("new/train.jsonl", "[" + GOOD.strip() + "]\n"),
    write("new/train.jsonl", "\ufeff" + GOOD),
    write("new/train.jsonl", '{"messages": [{"from": "human", "value": "q"}]}\n'),
    write("new/train.jsonl", '{"text": ""}\n'),
    write("data/train.jsonl", ""),
    edit("data/valid.jsonl", VALID, ""),
    ("MultiEdit", {"file_path": "{root}/data/valid.jsonl", "edits": [{"old_string": VALID.strip(), "new_string": ""}]}),
    edit("data/train.jsonl", '"role": "assistant"', '"role": "bot"'),
    edit("data/train.jsonl", '"messages"', '"message"'),
    (
        "MultiEdit",
        {
            "file_path": "{root}/data/valid.jsonl",
            "edits": [{"old_string": '"role": "user"', "new_string": '"role": "usr"'}],
        },
    ),
    write("adapters/my-lora/adapters.safetensors", "x"),
    write("models/Qwen2.5-3B-4bit/model.safetensors", "x"),
    write("config.py", f"TOKEN = '{HF}'\n"),
    write("README.md", f"export OPENAI_API_KEY={SK}\n"),
    write("train.sh", f"export WANDB_API_KEY={WB}\n"),
    edit("README.md", "Readme", f"token {HF}"),
    ("NotebookEdit", {"notebook_path": "{root}/n.ipynb", "new_source": f"login('{HF}')"}),
    write("{plugin}/hooks/pre_tool_use.py", "pass\n"),
    edit("{plugin}/hooks/guard/gate.py", "DENY", "ALLOW"),
    write("{plugin}/hooks/hooks.json", "{}"),
    write("{root}/.claude/mlx-training.yaml", "off: [artefacts]\n"),
    write("{home}/.claude/mlx-training.yaml", "off: [hub]\n"),
    write("{root}/.claude/settings.json", '{"disableAllHooks": true}'),
    write("{home}/.claude/settings.json", '{"enabledPlugins": {"mlx-training@market": false}}'),
    write("{home}/.mlx-training/jobs/job-1/state.json", '{"state": "completed"}'),
]

ASK = [
    write(".env", f"HF_TOKEN={HF}\n"),
    write("/tmp/elsewhere-{id}.txt", f"{HF}\n"),
]

ALLOW = [
    write("new/train.jsonl", GOOD),
    write("new/train.jsonl", GOOD * 3),
    write("new/train.jsonl", '{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n'),
    write("new/train.jsonl", '{"text": "hello"}\n{"text": "world"}'),
    write("data/train.jsonl", GOOD * 2),
    write("data/raw.jsonl", '{"anything": 1}\n'),
    write("notes/other.jsonl", "not json at all\n"),
    edit("data/train.jsonl", "capital of France", "capital of Spain"),
    ("MultiEdit", {"file_path": "{root}/data/train.jsonl", "edits": [{"old_string": "Paris", "new_string": "Lyon"}]}),
    write("clean.py", "import shutil\nshutil.rmtree('adapters')\n"),
    write("docs/guide.md", "rm -rf adapters\n"),
    write("lora.yaml", "model: m\ntrain: true\n"),
    edit("adapters/my-lora/adapter_config.json", "8", "16"),
    write("adapters/notes.md", "run 1 was good\n"),
    write("app.py", "import os\ntoken = os.environ['HF_TOKEN']\n"),
    write(".env.example", "HF_TOKEN=hf_your_token_here\n"),
    write("src/main.py", "print('hello')\n"),
    write("{root}/.claude/settings.json", '{"permissions": {"allow": ["Bash(ls)"]}}'),
    write("hooks/my_hook.py", "print('mine')\n"),
    ("NotebookEdit", {"notebook_path": "{root}/n.ipynb", "new_source": "print(1)"}),
    write("tests/fixtures/rows.jsonl", '{"broken": \n'),
    edit("README.md", "Readme", "Read me"),
    write(
        "new/train.jsonl",
        '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n',
    ),
    write(
        "new/train.jsonl",
        '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [{"type": "function"}]}, {"role": "tool", "content": "1"}, {"role": "assistant", "content": "a"}], "tools": []}\n',
    ),
    write("Dockerfile", "FROM python:3.12\nRUN pip install mlx-lm\n"),
]
