from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from evomerge.errors import SpentError
from evomerge.http.pace import Budget, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1.5", 1.5),
        (" 20 ", 20.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("20ms", 0.02),
        ("1s500ms", 1.5),
        ("", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("Wed, 99 Foo 2026 00:00:00 GMT", None),
    ],
)
def test_spans_are_read_as_servers_write_them(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


def test_dates_and_times_since_1970_are_spans_from_now() -> None:
    for text in (formatdate(time.time() + 100, usegmt=True), str(int(time.time() + 100))):
        found = seconds_of(text)
        assert found is not None
        assert 95 < found <= 100
    assert seconds_of("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_what_is_given_back_may_be_spent_again() -> None:
    budget = Budget(None, 10)
    budget.spend("items", 10)
    with pytest.raises(SpentError):
        budget.spend("items", 1)
    budget.give_back("items", 4)
    budget.spend("items", 4)
    budget.spend("requests", 10**6)
