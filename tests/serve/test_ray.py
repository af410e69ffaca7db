from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("ray")


def test_several_are_scored_at_once_in_processes_of_their_own(serve: Any, opened: Any) -> None:
    """The answers are those of a server that scores in its own process."""
    executor = replace(opened.settings.executor, kind="ray", workers=2, time_limit=60.0)
    server = serve(replace(opened, settings=replace(opened.settings, executor=executor)))
    here = serve()
    controls = [{"operator": "linear", "values": [number / 10, 0.5]} for number in range(10)]
    with ThreadPoolExecutor(10) as threads:
        there = list(threads.map(lambda control: server.ask(control=control, split="report").json(), controls))
    assert there == [here.ask(control=control, split="report").json() for control in controls]
