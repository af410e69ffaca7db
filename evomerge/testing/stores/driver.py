"""A driver to be killed: it goes on with the made-up journal wherever the last one stopped, as fast as it can."""

from __future__ import annotations

from evomerge.store import open_store
from evomerge.store.port import Snapshot
from evomerge.testing.stores import samples


def drive(url: str, name: str, length: int, commit_every: float) -> None:
    """Save turns of the study up to ``length``, a snapshot after every tenth; takes it over from a dead driver."""
    with open_store(url, commit_every=commit_every, lease_seconds=600) as store:
        study = store.open(name, write=True)
        for seq in range(len(list(study.turns(items=False))), length):
            study.save_turn(samples.turn(seq))
            if seq % 10 == 0:
                study.save_snapshot(Snapshot(seq, f"{seq}", f"state {seq}"))
