"""The documentation says what the code does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from evomerge.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *ROOT.glob("[a-z]*/README.md"),
        *ROOT.glob("experiments/*/*.md"),
    }
)


def test_generated_pages_are_what_the_code_says() -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL):
        for command in re.findall(r"^evomerge ([\w-]+)", block, re.MULTILINE):
            assert command in known, f"{page.name} names evomerge {command}"
