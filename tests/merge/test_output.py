import errno
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from evomerge.merge import output
from evomerge.merge.output import BLOCK, Output, pages
from evomerge.merge.parallel import run
from evomerge.merge.tensorfile import Array


def filled(nbytes: int, seed: int = 0) -> Array:
    buffer = pages(nbytes)
    buffer[:] = np.random.default_rng(seed).integers(0, 256, nbytes, dtype=np.uint8)
    return buffer


def write(path: Path, nbytes: int, buffers: Sequence[Array], threads: int = 1) -> None:
    with Output(path, nbytes) as out:
        work = [
            lambda at=at, buffer=buffer: out.write(buffer, at * len(buffer))  # type: ignore[misc]
            for at, buffer in enumerate(buffers)
        ]
        list(run(work, threads))


@pytest.mark.parametrize("nbytes", [0, 1, BLOCK, 3 * BLOCK - 17, 3 * BLOCK])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_file_has_its_bytes_and_no_more(tmp_path: Path, nbytes: int, threads: int) -> None:
    buffers = [filled(BLOCK, seed) for seed in range(-(-nbytes // BLOCK))]
    write(tmp_path / "file", nbytes, buffers, threads)
    assert (tmp_path / "file").read_bytes() == b"".join(buffer.tobytes() for buffer in buffers)[:nbytes]


def test_a_file_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        write(tmp_path / "file", 10, [filled(BLOCK)])
    assert (tmp_path / "file").read_text() == "mine"


def test_file_systems_without_direct_writes_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_DIRECT", os.O_DIRECT)
    opened = os.open

    def refuses(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            os.close(opened(path, flags & ~os.O_DIRECT, mode))  # as some do: the file is made, then refused
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", refuses)
    buffer = filled(BLOCK)
    write(tmp_path / "file", 1000, [buffer])
    assert (tmp_path / "file").read_bytes() == buffer[:1000].tobytes()


def test_disks_of_larger_blocks_are_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(output, "_DIRECT", os.O_DIRECT)
    pwrite = os.pwrite

    def refuses(file: int, buffer: memoryview, start: int) -> int:
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return pwrite(file, buffer, start)

    monkeypatch.setattr(os, "pwrite", refuses)
    buffers = [filled(BLOCK, seed) for seed in range(8)]
    write(tmp_path / "file", 8 * BLOCK, buffers, threads=4)
    assert (tmp_path / "file").read_bytes() == b"".join(buffer.tobytes() for buffer in buffers)


def test_what_the_disk_takes_in_parts_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, buffer, start: pwrite(file, buffer[:512], start))
    buffer = filled(2 * BLOCK)
    write(tmp_path / "file", 2 * BLOCK, [buffer])
    assert (tmp_path / "file").read_bytes() == buffer.tobytes()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EINVAL])
def test_errors_of_the_disk_are_told(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(file: int, buffer: memoryview, start: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwrite", refuses)
    with pytest.raises(OSError, match=os.strerror(code)):
        write(tmp_path / "file", BLOCK, [filled(BLOCK)])


def test_files_are_left_closed(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    write(tmp_path / "one", BLOCK, [filled(BLOCK)])
    with pytest.raises(KeyError), Output(tmp_path / "two", BLOCK):
        raise KeyError
    assert len(list(Path("/proc/self/fd").iterdir())) == before
