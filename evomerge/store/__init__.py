"""Where studies are kept: a port, and stores in memory, in SQLite and in PostgreSQL behind it."""

from __future__ import annotations

from evomerge.store.port import Store

__all__ = ["open_store"]

MEMORY = "memory://"


def open_store(
    url: str,
    *,
    commit_every: float = 0.1,
    lease_seconds: float = 60.0,
    keep_losses: bool = True,
    retry_seconds: float = 30.0,
) -> Store:
    """The store behind an address.

    Args:
        url: ``sqlite:///study.db``, ``postgresql://user@host/name``, or ``memory://NAME`` for this process alone.
        commit_every: seconds of saved turns that share one commit; 0 commits each turn by itself.
        lease_seconds: how long a silent driver keeps its study.
        keep_losses: whether per-item losses are kept.
        retry_seconds: how long to try again while the database is locked, full or away.

    Raises:
        StoreError: the address is none that can be used.
    """
    if url.startswith(MEMORY):
        from evomerge.store.memory import MemoryStore

        name = url.removeprefix(MEMORY)
        return MemoryStore(name, commit_every=commit_every, lease_seconds=lease_seconds, keep_losses=keep_losses)
    from evomerge.store.sql import SqlStore

    return SqlStore(
        url,
        commit_every=commit_every,
        lease_seconds=lease_seconds,
        keep_losses=keep_losses,
        retry_seconds=retry_seconds,
    )
