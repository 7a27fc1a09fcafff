"""A small tokenizer of the kind that Llama 2 and Mistral have (BPE over '▁' with byte fallback), made without a download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mcp_server.demo import BASE

BOS, EOS = "<s>", "</s>"


def write_sentencepiece(folder: Path, words: list[str], size: int) -> None:
    """Replace the tokenizer of a tiny model by one with ``size`` tokens: each byte, the beginnings of ``words``, and filling."""
    base: dict[str, Any] = json.loads((BASE / "tokenizer_config.json").read_text())
    pieces = ["<unk>", BOS, EOS, *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    merges: list[str] = []
    for word in words:
        for end in range(1, len(word) + 1):
            left, right = "▁" + word[: end - 1], word[end - 1]
            for piece in (right, left + right):
                if piece not in pieces:
                    pieces.append(piece)
            if f"{left} {right}" not in merges:
                merges.append(f"{left} {right}")
    assert len(pieces) <= size, len(pieces)
    pieces += [f"filling{index}" for index in range(size - len(pieces))]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": index,
                "content": pieces[index],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index in range(3)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": merges,
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    settings = {"tokenizer_class": "TokenizersBackend", "bos_token": BOS, "eos_token": EOS, "unk_token": "<unk>"}
    settings["model_max_length"] = base.get("model_max_length", 512)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "generation_config.json").unlink(missing_ok=True)
