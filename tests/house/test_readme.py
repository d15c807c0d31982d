"""The README's Python blocks run, top to bottom, as one program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[str]:
    """Each block after as many empty lines as precede it, so that a traceback has the README's line numbers."""
    return ["\n" * text.count("\n", 0, match.start(1)) + match[1] for match in BLOCK.finditer(text)]


def test_blocks_are_found_where_they_stand() -> None:
    text = "# Title\n```python\na = 1\n```\n```bash\nls\n```\n\n```python\nb = 2\n```\n"
    assert blocks(text) == ["\n" * 2 + "a = 1\n", "\n" * 9 + "b = 2\n"]


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(README.read_text(encoding="utf-8"))
    assert found, "README.md has no ```python block"
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in found:
        exec(compile(block, str(README), "exec"), namespace)
