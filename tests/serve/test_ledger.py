from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import ConfigError, SpentError
from evomerge.serve.ledger import Entry, Ledger, Outcome
from evomerge.serve.tokens import Holder

ALICE, BOB = Holder("alice"), Holder("bob", items=50)


def entry(holder: Holder = ALICE, items: int = 10, outcome: Outcome = "scored") -> Entry:
    return Entry(holder.name, "0" * 32, "search", items, 0.5, outcome)


def test_what_is_reserved_is_gone_until_it_is_given_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "log", evaluations=2, items=100)
    assert ledger.left(ALICE) == (2, 100)
    ledger.reserve(ALICE, 60)
    with pytest.raises(SpentError, match="40 items are left"):
        ledger.reserve(ALICE, 41)
    ledger.reserve(ALICE, 40)
    with pytest.raises(SpentError, match="quota of evaluations"):
        ledger.reserve(ALICE, 0)
    ledger.refund(ALICE, 40)
    assert ledger.left(ALICE) == (1, 40)
    ledger.close()


def test_a_holders_own_limits_come_first(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "log", evaluations=2, items=100)
    assert ledger.left(BOB) == (2, 50)
    ledger.reserve(ALICE, 100)
    assert ledger.left(BOB) == (2, 50)
    ledger.close()


@given(st.lists(st.tuples(st.sampled_from(["scored", "failed", "unavailable", "refused"]), st.integers(0, 9))))
def test_a_restart_counts_what_took_place(
    tmp_path_factory: pytest.TempPathFactory, past: list[tuple[Outcome, int]]
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "log"
    ledger = Ledger(path)
    for outcome, items in past:
        ledger.write(entry(items=items, outcome=outcome))
    ledger.close()
    again = Ledger(path, evaluations=1000, items=1000)
    counted = [items for outcome, items in past if outcome in ("scored", "failed")]
    assert again.left(ALICE) == (1000 - len(counted), 1000 - sum(counted))
    again.close()


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_a_kill_cut_off_spoils_no_other(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "log"
    ledger = Ledger(path)
    ledger.write(entry())
    ledger.write(entry())
    ledger.close()
    path.write_text(path.read_text()[:-cut])
    for evaluations in (1 + (cut == 1), 2 + (cut == 1)):
        again = Ledger(path, evaluations=10)
        assert again.left(ALICE)[0] == 10 - evaluations
        again.write(entry())
        again.close()
    assert json.loads(path.read_text().splitlines()[-1])["holder"] == "alice"


def test_a_file_that_is_no_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"holder": "alice"}\n')
    with pytest.raises(ConfigError, match="log, line 1: this is no line of an audit log"):
        Ledger(tmp_path / "log")
    with pytest.raises(ConfigError, match="cannot keep the audit log"):
        Ledger(tmp_path / "none" / "log")


def test_others_cannot_read_it(tmp_path: Path) -> None:
    Ledger(tmp_path / "log").close()
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0
