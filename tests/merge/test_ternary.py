from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evomerge.errors import PoolError
from evomerge.merge.kernels import golomb
from evomerge.merge.tensorfile import TensorFile
from evomerge.merge.ternary import BLOCK, Signs, Ternary, TernaryFile, blocks, encode, write_ternary
from evomerge.testing.checkpoints import save_checkpoint

SIZE = 2 * BLOCK + 700
edges = st.sampled_from([0, 1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, SIZE - 1, SIZE])
densities = st.sampled_from([0.0, 1e-4, 0.01, 0.05, 0.2, 0.5, 0.9, 1.0])


def drawn(seed: int, density: float, size: int) -> Signs:
    draw = np.random.default_rng(seed)
    return ((draw.random(size) < density) * draw.choice([-1, 1], size)).astype(np.int8)


def write(path: Path, vectors: Mapping[str, Signs], scale: float = 0.5) -> Path:
    def parts(name: str) -> Iterator[Signs]:
        return (vectors[name].ravel()[start:stop] for start, stop in blocks(vectors[name].size))

    write_ternary(path, {name: Ternary(signs.shape, scale, 7) for name, signs in vectors.items()}, parts)
    return path


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), densities, st.integers(1, BLOCK), st.integers(0, golomb.MOST))
def test_decoding_gives_what_was_encoded_and_no_byte_is_left(seed: int, density: float, size: int, rice: int) -> None:
    signs = drawn(seed, density, size)
    code = np.zeros(-(-golomb.size_in_bits(signs, rice) // 8), dtype=np.uint8)
    golomb.encode(signs, rice, code)
    found = np.zeros_like(signs)
    assert golomb.decode(code, rice, found)
    assert (found == signs).all()
    assert not golomb.decode(code[:-1], rice, np.zeros_like(signs))
    assert not golomb.decode(np.append(code, np.uint8(0)), rice, np.zeros_like(signs))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, golomb.MOST), st.integers(1, 300))
def test_any_bytes_are_decoded_or_refused(code: bytes, rice: int, size: int) -> None:
    guarded = np.zeros(size + 2, dtype=np.int8)
    guarded[[0, -1]] = 77
    fits = golomb.decode(np.frombuffer(code, dtype=np.uint8), rice, guarded[1:-1])
    assert guarded[0] == guarded[-1] == 77
    assert set(guarded[1:-1].tolist()) <= {-1, 0, 1}
    if fits:
        again = np.zeros(len(code), dtype=np.uint8)
        assert -(-golomb.size_in_bits(guarded[1:-1], rice) // 8) == len(code)
        golomb.encode(guarded[1:-1], rice, again)
        assert again.tobytes()[:-1] == code[:-1]  # the last one is filled up with anything


@pytest.mark.parametrize("density", [0.01, 0.05, 0.1, 0.2, 0.3])
def test_codes_are_close_to_the_entropy(density: float) -> None:
    bits = sum(8 * encode(drawn(seed, density, BLOCK)).size for seed in range(4)) / (4 * BLOCK)
    entropy = -density * np.log2(density) - (1 - density) * np.log2(1 - density) + density
    assert 0.98 * entropy < bits < 1.05 * entropy + 16 / BLOCK


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), density=densities, one=edges, other=edges)
def test_any_stretch_of_a_file_is_read(
    tmp_path_factory: pytest.TempPathFactory, seed: int, density: float, one: int, other: int
) -> None:
    vectors = {"a.w": drawn(seed, density, SIZE), "empty": np.zeros((0, 3), dtype=np.int8)}
    file = TernaryFile(write(tmp_path_factory.mktemp("file") / "x.ternary", vectors))
    start, stop = sorted((one, other))
    assert np.array_equal(file.signs("a.w", start, stop), vectors["a.w"][start:stop])
    assert file.tensors == {"a.w": Ternary((SIZE,), 0.5, 7), "empty": Ternary((0, 3), 0.5, 7)}


Parts = dict[str, NDArray[Any]]


def parts_of(path: Path) -> Parts:
    file = TensorFile(path)
    return {name: file.raw(name).reshape(entry.shape).copy() for name, entry in file.entries.items()}


def without(name: str) -> Any:
    return lambda parts: parts.pop(name)


def changed(name: str, **values: Any) -> Any:
    def change(parts: Parts) -> None:
        for at, value in values.items():
            parts[name][int(at.removeprefix("at").replace("last", "-1"))] = value

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without("w:signs"), ":signs of U8"),
        (without("w:about"), ":about of I64"),
        (lambda parts: parts.update({"plain": np.zeros(3, dtype=np.float32)}), "''"),
        (lambda parts: parts.update({"w:scale": parts["w:scale"].astype(np.float64)}), ":scale of F32"),
        (lambda parts: parts.update({"w:about": parts["w:about"][:0]}), "shape or scale"),
        (changed("w:about", at1=-4), "shape or scale"),
        (changed("w:about", at1=10**15), "blocks"),
        (changed("w:scale", at0=np.nan), "shape or scale"),
        (changed("w:scale", at0=-1.0), "shape or scale"),
        (changed("w:starts", at1=10**9), "blocks"),
        (changed("w:starts", at1=-(2**63)), "blocks"),
        (changed("w:starts", at0=1), "blocks"),
        (lambda parts: parts.update({"w:starts": parts["w:starts"][:0]}), "blocks"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, damage: Any, words: str) -> None:
    parts = parts_of(write(tmp_path / "x.ternary", {"w": drawn(1, 0.1, SIZE)}))
    damage(parts)
    with pytest.raises(PoolError, match=rf"bad.ternary .*{words}.*write it again"):
        TernaryFile(save_checkpoint(tmp_path / "bad.ternary", parts))


@pytest.mark.parametrize(
    "damage", [changed("w:signs", at0=16), changed("w:signs", at0=255), changed("w:signs", at9=255)]
)
def test_a_damaged_code_is_named(tmp_path: Path, damage: Any) -> None:
    parts = parts_of(write(tmp_path / "x.ternary", {"w": drawn(1, 0.1, SIZE)}))
    damage(parts)
    file = TernaryFile(save_checkpoint(tmp_path / "bad.ternary", parts))
    with pytest.raises(PoolError, match=r"bad.ternary .*'w': its code is broken"):
        file.signs("w", 0, 10)
    assert file.signs("w", BLOCK, SIZE).size == SIZE - BLOCK
