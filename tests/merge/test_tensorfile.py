import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from evomerge.errors import PoolError
from evomerge.merge.tensorfile import MAX_HEADER, STORED, TensorFile, from_float32, to_float32
from evomerge.testing.checkpoints import save_checkpoint

A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def craft(path: Path, header: Any, data: bytes = b"\0" * 8) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
    tensors = {str(kind).split(".")[1]: torch.randn(3, 5).to(kind) for kind in kinds}
    tensors |= {"empty": torch.zeros(0, 4), "scalar": torch.tensor(2.5)}
    save_file(tensors, tmp_path / "x.safetensors")
    file = TensorFile(tmp_path / "x.safetensors")
    assert file.entries.keys() == tensors.keys()
    for name, tensor in tensors.items():
        entry = file.entries[name]
        assert entry.shape == tuple(tensor.shape)
        assert entry.floating == tensor.is_floating_point()
        if entry.floating:
            assert np.array_equal(to_float32(file.raw(name), entry.dtype), tensor.float().numpy().ravel())
        else:
            assert np.array_equal(file.raw(name), tensor.numpy().ravel())


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    arrays = {
        "odd": np.array([True, False, True]),
        "half": np.arange(3, dtype=np.float16),
        "wide": np.arange(6, dtype=np.float64).reshape(2, 3),
        "scalar": np.float32(7.0).reshape(()),
    }
    path = save_checkpoint(tmp_path / "x.safetensors", arrays)
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(arrays)
        for name, array in arrays.items():
            assert np.array_equal(file.get_tensor(name).numpy(), array)


BAD: dict[str, tuple[Any, bytes, str]] = {
    "no json": (b"{nope", b"", "no JSON"),
    "no utf-8": (b'{"\xff": 1}', b"", "no JSON"),
    "too deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"", "no JSON"),
    "no object": ([1], b"", "no JSON object"),
    "repeated name": (b'{"a": %s, "a": %s}' % ((json.dumps(A).encode(),) * 2), b"\0" * 8, "'a' occurs twice"),
    "unknown dtype": ({"a": A | {"dtype": "F8_E8M0"}}, b"\0" * 8, "'a' has the unsupported dtype"),
    "dtype no text": ({"a": A | {"dtype": [1]}}, b"\0" * 8, "unsupported dtype"),
    "missing field": ({"a": {"dtype": "F32"}}, b"\0" * 8, "must have exactly"),
    "no fields": ({"a": 3}, b"\0" * 8, "must have exactly"),
    "negative shape": ({"a": A | {"shape": [-2]}}, b"\0" * 8, "impossible shape"),
    "shape of booleans": ({"a": A | {"shape": [True, 2]}}, b"\0" * 8, "impossible shape"),
    "enormous shape": ({"a": A | {"shape": [2**62, 2**62]}}, b"\0" * 8, "cannot fill"),
    "three offsets": ({"a": A | {"data_offsets": [0, 8, 9]}}, b"\0" * 8, "impossible data_offsets"),
    "reversed": ({"a": A | {"data_offsets": [8, 0]}}, b"\0" * 8, "cannot fill"),
    "size mismatch": ({"a": A | {"shape": [3]}}, b"\0" * 8, "'a' of F32"),
    "overlap": ({"a": A, "b": A}, b"\0" * 8, "'b' overlaps"),
    "hole": ({"a": A, "b": A | {"data_offsets": [12, 20]}}, b"\0" * 20, "before tensor 'b' belong to no tensor"),
    "truncated": ({"a": A}, b"\0" * 7, "truncated"),
    "trailing bytes": ({"a": A}, b"\0" * 9, "1 bytes at its end"),
    "unprintable name": ({"a\n": A}, b"\0" * 8, "cannot be printed"),
    "surrogate name": (b'{"\\ud800": %s}' % json.dumps(A).encode(), b"\0" * 8, "cannot be printed"),
}


@pytest.mark.parametrize("case", BAD)
def test_damage_is_named(tmp_path: Path, case: str) -> None:
    header, data, words = BAD[case]
    path = craft(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(PoolError, match=words) as caught:
        TensorFile(path)
    assert str(path) in str(caught.value)
    assert ";" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "only 0 bytes"),
        (b"abc", "only 3 bytes"),
        (struct.pack("<Q", MAX_HEADER + 1) + b"{}", "more than the format allows"),
        (struct.pack("<Q", 100) + b"{}", "truncated"),
    ],
)
def test_broken_beginnings(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(PoolError, match=words):
        TensorFile(tmp_path / "x")


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_refused_whatever_they_are_called(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(PoolError, match=r"weights_only=True"):
        TensorFile(path)


@pytest.mark.parametrize("length", [640, 896, 1024, 1152, 1280])
def test_headers_whose_length_looks_like_a_pickle_are_read(tmp_path: Path, length: int) -> None:
    path = craft(tmp_path / "x.safetensors", json.dumps({"a": A}).encode().ljust(length))
    assert TensorFile(path).entries["a"].shape == (2,)


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    arrays = {"a": np.arange(6, dtype=np.float32), "b": np.arange(3), "c": np.zeros((2, 0), dtype=np.float16)}
    return save_checkpoint(tmp_path_factory.mktemp("valid") / "x.safetensors", arrays).read_bytes()


def flip(content: bytearray, at: int, byte: int) -> None:
    content[at % len(content)] = byte


def cut(content: bytearray, at: int, byte: int) -> None:
    del content[at % len(content) :]


def drop(content: bytearray, at: int, byte: int) -> None:
    del content[at % len(content)]


def insert(content: bytearray, at: int, byte: int) -> None:
    content.insert(at % len(content), byte)


@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from([flip, cut, drop, insert]), st.integers(0, 400), st.integers(0, 255)),
        min_size=1,
        max_size=4,
    )
)
def test_no_mutation_gives_anything_but_a_clear_error_or_a_valid_read(
    tmp_path: Path, valid: bytes, mutations: list[tuple[Callable[[bytearray, int, int], None], int, int]]
) -> None:
    content = bytearray(valid)
    for mutate, at, byte in mutations:
        if content:
            mutate(content, at, byte)
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    try:
        file = TensorFile(path)
    except PoolError:
        return
    for name, entry in file.entries.items():
        assert file.raw(name).size == entry.size


@given(st.floats(width=32, allow_nan=False))
def test_bfloat16_rounds_like_torch(value: float) -> None:
    array = np.array([value], dtype=np.float32)
    bits = from_float32(array, "BF16")
    assert bits.dtype == STORED["BF16"]
    expected = torch.from_numpy(array.copy()).to(torch.bfloat16).float().numpy()
    assert np.array_equal(to_float32(bits, "BF16"), expected)


@pytest.mark.parametrize(("dtype", "kind"), [("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)])
def test_every_byte_of_eight_bit_floats_is_read_as_torch_reads_it(dtype: str, kind: torch.dtype) -> None:
    codes = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(codes.copy()).view(kind).float().numpy()
    assert np.array_equal(to_float32(codes, dtype), expected, equal_nan=True)
    with pytest.raises(ValueError, match="never written"):
        from_float32(expected, dtype)


def test_every_bfloat16_survives_the_round_trip() -> None:
    bits = np.arange(65_536, dtype=np.uint32).astype(np.uint16)
    values = to_float32(bits, "BF16")
    kept = ~np.isnan(values)
    assert np.array_equal(from_float32(values[kept], "BF16"), bits[kept])
    assert math.isinf(float(to_float32(from_float32(np.array([3.4e38], dtype=np.float32), "BF16"), "BF16")[0]))
