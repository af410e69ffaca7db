"""The import contracts hold, and each breaks when it is violated."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

STRATEGIES = "strategies/evomerge_strategies"

VIOLATIONS = {
    "floors": {"evomerge/codec.py": "from evomerge.strategy import Strategy"},
    "floors: neighbours": {"evomerge/store/port.py": "from evomerge.executor.port import Executor"},
    "floors: exhaustive": {"evomerge/newcomer.py": ""},
    "no-plugins": {"evomerge/testing/__init__.py": "import evomerge_strategies"},
    "pure-search": {f"{STRATEGIES}/newcomer.py": "import sqlalchemy"},
    "pure-search: indirectly": {
        "evomerge/streams.py": "import httpx",
        f"{STRATEGIES}/newcomer.py": "import evomerge.streams",
    },
    "strategies-know-ports": {f"{STRATEGIES}/newcomer.py": "import evomerge.runner"},
    "fitness-knows-ports": {"fitness/evomerge_fitness/newcomer.py": "import evomerge_strategies"},
    "no-torch-to-search": {"evomerge/streams.py": "def late() -> None:\n    import torch"},
    "one-module-knows-httpx": {"fitness/evomerge_fitness/newcomer.py": "import httpx"},
    "no-cycles": {
        f"{STRATEGIES}/newcomer.py": "import evomerge_strategies.latecomer",
        f"{STRATEGIES}/latecomer.py": "import evomerge_strategies.newcomer",
    },
}


def lint_imports(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(root / part) for part in ("", "strategies", "fitness")),
    }
    return subprocess.run(
        [command, "--no-cache", *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for part in ("evomerge", "strategies", "fitness"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_contracts_hold(copy: Path) -> None:
    result = lint_imports(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("case", VIOLATIONS)
def test_contract_breaks_when_violated(copy: Path, case: str) -> None:
    for file, line in VIOLATIONS[case].items():
        with (copy / file).open("a") as source:
            source.write(f"\n{line}\n")
    result = lint_imports(copy, "--contract", case.split(":", maxsplit=1)[0])
    assert result.returncode == 1, result.stdout
    assert "BROKEN" in result.stdout
