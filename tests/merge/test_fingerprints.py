"""Nothing is hashed twice, and nothing that changed keeps its hash."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from evomerge.merge import fingerprints
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.source import Source
from evomerge.testing.checkpoints import save_checkpoint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "evomerge" / "fingerprints"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "x.safetensors", {"a": np.ones(5, np.float32), "b": np.arange(3)})
    return tmp_path / "x.safetensors"


def never(source: Source, name: str) -> str:
    pytest.fail("hashed again")


def test_hashes_of_settled_files_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "SETTLED", 0.0)
    first = Checkpoint(path)
    digest, hashes = first.digest(), [first.fingerprint(name) for name in first.entries]
    monkeypatch.setattr(Source, "_fingerprint", never)
    again = Checkpoint(path)
    assert again.digest() == digest
    assert [again.fingerprint(name) for name in again.entries] == hashes


def test_files_changed_a_moment_ago_are_not_kept(path: Path, cache: Path) -> None:
    Checkpoint(path).digest()
    assert not cache.exists()


def test_old_times_do_not_make_a_new_file_old(path: Path, cache: Path) -> None:
    """A file's own time may be set to anything; when it was last touched may not."""
    os.utime(path, (0, 0))
    Checkpoint(path).digest()
    assert not cache.exists()


def test_a_file_that_changed_is_hashed_again(path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "SETTLED", 0.0)
    before = Checkpoint(path).digest()
    time.sleep(0.02)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert Checkpoint(path).digest() != before
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"a": 5}', b"\xff", b"[" * 10**5])
def test_a_damaged_memory_is_made_anew(path: Path, cache: Path, damage: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "SETTLED", 0.0)
    digest = Checkpoint(path).digest()
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage)
    assert Checkpoint(path).digest() == digest
    assert kept.read_bytes() == whole


def test_a_place_that_cannot_be_written_only_costs_the_memory(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "SETTLED", 0.0)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert Checkpoint(path).digest() == Checkpoint(path).digest()
