import os
import pty
import re
import select
import sys
from pathlib import Path

import pytest

from evomerge.cli import progress
from evomerge.cli.progress import Meter
from evomerge.runner import Progress

START = Progress(
    told=0,
    spent=0.0,
    failed=0,
    budget=1000,
    in_flight=8,
    workers=2,
    best=None,
    best_number=None,
    numbers={"coverage": 0.9914, "entropy": 0.5},
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_meter() -> None:
    from dataclasses import replace

    clock = Clock()
    meter = Meter(clock)
    assert meter.text(START) == "0/1000  coverage 0.991  2 workers"
    clock.now += 2
    line = meter.text(replace(START, told=130, spent=100.0, best=0.75, best_number=7, failed=3, workers=1))
    assert line == "100/1000  50/s  ETA 18.0 s  best 0.7500 (#7)  coverage 0.991  1 worker  3 failed"
    clock.now += 20
    assert "5/s  ETA 3 min" in meter.text(replace(START, told=230, spent=200.0))
    assert meter.text(replace(START, spent=200.25)).startswith("200.2/1000")
    assert meter.text(replace(START, phase="selection", in_flight=4)) == "scoring 4 on the selection split"


@pytest.mark.slow
def test_a_terminal_gets_one_live_line(study: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-m", "evomerge", "run", str(study)])
    seen = b""
    while True:
        select.select([terminal], [], [], 60)
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # the child's end of the terminal is closed
            break
        if not piece:
            break
        seen += piece
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert re.search(r"digits .*/60 .*best 0\.\d+ \(#\d+\) coverage", text)
    assert "finished: budget spent" in text


def test_nothing_written_for_long_is_no_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    with progress.copied(1000) as advance:
        advance(0)
        assert capsys.readouterr().err == ""
        advance(600)
    assert "600 B of 1.0 kB written" in capsys.readouterr().err
