"""A real PostgreSQL server behind the command line, and without it."""

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evomerge import store as stores

pytestmark = pytest.mark.pg


def test_a_study_in_postgresql(evomerge: Any, study: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = study.read_text()
    study.write_text(f"{file}\nstore: {{url: '{postgres_url}'}}\n")
    assert evomerge("run", study).code == 0
    assert not list(Path().glob("*.db"))
    assert "finished" in evomerge("status", postgres_url).out
    monkeypatch.setenv("EVOMERGE_DB", postgres_url)
    assert "60 candidates asked" in evomerge("verify").out
    assert evomerge("resume", "--budget", 62).code == 0


@pytest.mark.slow
def test_a_server_that_goes_away(
    evomerge: Any, study: Path, postgres_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "open_store", partial(stores.open_store, retry_seconds=1.0))
    url = postgres_server.url("postgres")
    study.write_text(study.read_text().replace("evaluations: 60", "evaluations: 100000") + f"store: {{url: '{url}'}}\n")

    def stop_later() -> None:
        deadline = time.monotonic() + 60
        with stores.open_store(url) as store:
            while not any(one.told > 20 for one in store.studies()) and time.monotonic() < deadline:
                time.sleep(0.05)
        postgres_server.stop()

    stopper = threading.Thread(target=stop_later)
    stopper.start()
    ended = evomerge("run", study)
    stopper.join()
    assert ended.code == 4, ended.err
    assert "away" in ended.err or "resume" in ended.err
    postgres_server.start()
    assert "interrupted" in evomerge("status", url).out or "running" in evomerge("status", url).out
    study.write_text(study.read_text().replace("evaluations: 100000", "evaluations: 2000"))
    assert evomerge("resume", study, "--allow-changed", "--steal").code == 0
    assert "2000 candidates asked" in evomerge("verify", "--db", url).out
