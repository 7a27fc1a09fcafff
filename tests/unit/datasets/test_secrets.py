"""Secrets are found by kind and place, and never appear in anything that is shown."""

from __future__ import annotations

import random
import string

import pytest

from mcp_server.datasets.secrets import find_secrets, redact, redact_value
from tests.unit.datasets.conftest import Inspect, Write, chat, good_rows


def made(alphabet: str, length: int) -> str:
    """Put together here, so that no scanner of this repository finds a secret."""
    return "".join(random.Random(length).choices(alphabet, k=length))


ALNUM = string.ascii_letters + string.digits
SECRETS = {
    "Hugging Face token": "hf" + "_" + made(ALNUM, 34),
    "Anthropic key": "sk-" + "ant-api03-" + made(ALNUM, 40),
    "OpenAI-like key": "sk-" + "proj-" + made(ALNUM, 40),
    "AWS access key id": "AKIA" + made(string.ascii_uppercase, 16),
    "GitHub token": "ghp" + "_" + made(ALNUM, 36),
    "GitLab token": "glpat" + "-" + made(ALNUM, 20),
    "Slack token": "xoxb" + "-" + made(string.digits, 24),
    "Google API key": "AIza" + made(ALNUM, 35),
    "private key": "-----BEGIN RSA " + "PRIVATE KEY-----\n" + made(ALNUM, 64) + "\n-----END RSA PRIVATE KEY-----",
}
AWS, WANDB = made(ALNUM + "/+", 40), made("0123456789abcdef", 40)
IN_CONTEXT = [
    ("AWS secret access key", "aws_secret_access_key = ", AWS),
    ("AWS secret access key", '"SecretAccessKey": "', AWS),
    ("AWS secret access key", '"secretAccessKey": "', AWS),
    ("AWS secret access key", "AWS_SECRET_ACCESS_KEY=", AWS),
    ("Weights & Biases key", "export WANDB_API_KEY=", WANDB),
    ("Weights & Biases key", "Wandb key: ", WANDB),
    ("Weights & Biases key", "my w&b key ", WANDB),
]
CASES = [(kind, "", secret) for kind, secret in SECRETS.items()] + IN_CONTEXT


@pytest.mark.parametrize(("kind", "context", "secret"), CASES)
def test_each_kind_is_found_and_removed(kind: str, context: str, secret: str):
    text = f"before\n{context}{secret}\nafter"
    assert find_secrets(text) == [kind]
    assert redact(text) == f"before\n{context}[{kind} removed]\nafter"


def test_what_stands_under_a_secrets_name_is_removed_whatever_it_looks_like():
    told = {
        "token": "plain-looking",
        "keys": ["self_attn.q_proj"],
        "config": {"api_key": "x1", "tokens": 7},
        "path": "org/data",
    }
    assert redact_value(told) == told | {"token": "[removed]", "config": {"api_key": "[removed]", "tokens": 7}}


def test_of_many_secrets_in_a_text_nothing_is_left():
    """Of all kinds, and in an order other than the one they are looked for in."""
    shuffled = random.Random(0).sample(CASES, len(CASES))
    text = "".join(f"{context}{secret} and " for _, context, secret in shuffled)
    assert redact(text) == "".join(f"{context}[{kind} removed] and " for kind, context, _ in shuffled)


@pytest.mark.parametrize(("kind", "context", "secret"), CASES)
def test_a_secret_in_a_row_is_named_with_its_line_and_never_shown(
    write: Write, inspect: Inspect, kind: str, context: str, secret: str
):
    write("train.jsonl", *good_rows(2), chat("What is in the file?", f"It says:\n{context}{secret}"))
    report = inspect()
    finding = next(finding for finding in report.findings if finding.code == f"secret: {kind}")
    assert (finding.severity, finding.line) == ("error", 3)
    assert secret not in report.model_dump_json()
    assert secret[-20:] not in report.model_dump_json()


def test_a_secret_quoted_by_another_message_is_removed(write: Write, inspect: Inspect):
    secret = SECRETS["GitHub token"]
    write("train.jsonl", *good_rows(2), {"messages": [{"role": secret, "content": "x"}]}, {secret: 1})
    report = inspect()
    assert {"unknown-role", "unknown-format"} <= {finding.code for finding in report.findings}
    assert secret not in report.model_dump_json()


@pytest.mark.parametrize(
    "text",
    [
        "the sk-learn package and a task-oriented approach",
        "a half_baked idea in hf_hub_download()",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
        "AKIA is a prefix; ghp_ too",
        "-----BEGIN CERTIFICATE-----",
        "sk-this-is-only-a-css-class-name-with-hyphens",
    ],
)
def test_ordinary_text_is_left_alone(text: str):
    assert find_secrets(text) == []
    assert redact(text) == text
