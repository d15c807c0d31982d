"""Every example runs as a user would run it, and says what it is there to say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

STEPS = 60
"""Enough for warm-up and patience of the rules."""

SAYS = {
    "plain_pytorch.py": "Verdict   healthy: 60 steps, 3 layers, no alert",
    "vanishing_sigmoids.py": "Verdict   vanishing: 0, 2, 4, ... (10 of 11 layers)",
    "exploding_weights.py": "exploding: 0, 2, 4, ... (7 of 7 layers); ",
    "rnn_through_time.py": "Verdict   vanishing: encoder (1 of 3 layers)",
    "custom_rule.py": "dominant: ",
    "clipping.py": "so it acts as a smaller learning rate and not against spikes",
}


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.stem)
def test_it_runs_and_says_its_line(example: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-W", "error", str(example), "--steps", str(STEPS), "--logdir", str(tmp_path / "runs")]
    found = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr
    assert SAYS.get(example.name, "") in found.stdout
    assert found.stdout.strip()
    assert list((tmp_path / "runs").rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.stem)
def test_it_stands_alone(example: Path) -> None:
    text = example.read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert "gradwatch.demo" not in text
