"""`make demo`, shorter."""

import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "experiments/demo/demo.py"


@pytest.mark.slow
@pytest.mark.chaos
def test_demo(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    command = [sys.executable, DEMO, folder, "--evaluations", "600"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(": identical") == 3
    assert result.stdout.count("loaded back: exactly as good") == 1
    assert (folder / "history.png").stat().st_size > 10_000
