"""Where paths that users write lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_server import settings
from mcp_server.errors import PathError


def test_paths_are_the_projects_and_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert settings.resolve("a/../b") == tmp_path / "b"
    assert settings.resolve("~/models") == tmp_path / "me/models"
    assert settings.resolve("x" * 255) == tmp_path / ("x" * 255)


def test_state_folder_is_absolute_since_a_jobs_processes_work_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLX_TRAINING_HOME", "state")
    assert settings.home() == tmp_path / "state"


@pytest.mark.parametrize("text", ["x" * 256, "é" * 200, "a/" + "y" * 50_000 + "/b", "a\0b", "~no-such-user/models"])
def test_text_that_can_not_be_a_path_is_refused_in_words(text: str):
    with pytest.raises(PathError, match=r"can't be a path: .*; give a file or folder") as caught:
        settings.resolve(text)
    assert len(str(caught.value)) < 400
