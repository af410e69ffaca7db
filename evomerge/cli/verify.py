"""``evomerge verify``."""

from __future__ import annotations

import time
from dataclasses import asdict

from evomerge.cli.databases import Db, Name, opened_study
from evomerge.cli.output import Json, duration, emit, note, say


def verify(name: Name = None, db: Db = None, json: Json = False) -> None:
    """Replay a stored study through a fresh strategy and prove what is stored. Needs neither models nor torch."""
    from evomerge.study.verify import verify as replay

    began = time.monotonic()
    with opened_study(db, name) as study:
        note(f"replaying {study.summary().told} results ...")
        proof = replay(study)
    if json:
        emit(asdict(proof))
        return
    final = "" if proof.final is None else f"\n  the final candidate #{proof.final} is the one that the scores choose"
    versions = "".join(f"\n  {name}: {then} -> {now}" for name, (then, now) in proof.other_versions.items())
    say(
        f"{proof.study}: verified in {duration(time.monotonic() - began)}; "
        f"{proof.turns} turns were replayed through a fresh {proof.strategy}\n"
        f"  {proof.asked} candidates asked: numbers, parents and recipes' digests are equal\n"
        f"  {proof.told} results told: {proof.changes} changes of the population are equal\n"
        f"  snapshots ({proof.snapshots}): digests of the strategy's whole state are equal{final}\n"
        "The scores were taken from the database, not computed again."
        f"{f'{chr(10)}It holds under other versions than the study began with:{versions}' if versions else ''}"
    )
