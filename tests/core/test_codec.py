"""The codec: exact there and back, and a refusal of what it cannot promise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from evomerge import codec
from evomerge.errors import CodecError


@dataclass(frozen=True)
class Leaf:
    number: int
    share: float


@dataclass(frozen=True)
class Twig:
    share: float
    number: int


@dataclass(frozen=True, eq=False)
class Tree:
    flag: bool
    name: str
    share: float
    kind: Literal["a", "b"]
    maybe: Leaf | None
    either: Leaf | Twig
    leaves: tuple[Leaf, ...]
    pair: tuple[int, str]
    named: dict[str, float]
    numbers: NDArray[Any]
    child: Tree | None = None


LEAVES = st.builds(Leaf, st.integers(), st.floats(allow_nan=False))
TREES = st.builds(
    Tree,
    st.booleans(),
    st.text(),
    st.floats(),
    st.sampled_from(["a", "b"]),
    st.none() | LEAVES,
    LEAVES | st.builds(Twig, st.floats(allow_nan=False), st.integers()),
    st.lists(LEAVES).map(tuple),
    st.tuples(st.integers(), st.text()),
    st.dictionaries(st.text(), st.floats(allow_nan=False)),
    arrays.arrays(
        st.sampled_from(["<f4", "<f8", "<f2", "|b1", "<i8", "|u1"]), arrays.array_shapes(min_dims=0, min_side=0)
    ),
)


@given(TREES)
def test_what_is_dumped_is_loaded_bit_for_bit(tree: Tree) -> None:
    tree = replace(tree, child=tree)
    text = codec.dump(tree)
    loaded = codec.load(Tree, text)
    assert codec.dump(loaded) == text
    assert codec.equal(loaded, tree)
    assert loaded.numbers.dtype == tree.numbers.dtype
    assert loaded.numbers.tobytes() == tree.numbers.tobytes()
    assert type(loaded.either) is type(tree.either)
    assert loaded.share == tree.share or math.isnan(tree.share)


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_damaged_text_is_refused_and_nothing_else(noise: bytes) -> None:
    text = noise.decode(errors="replace")
    try:
        codec.load(Leaf, text)
    except CodecError:
        return
    assert codec.load(Leaf, text) is not None


@pytest.mark.parametrize(
    "value",
    [
        Leaf(1, 1),  # an int where a float is promised would come back as another type
        Leaf(np.int64(1), 1.0),  # type: ignore[arg-type]
        Leaf(True, 1.0),
    ],
)
def test_what_the_annotation_does_not_promise_is_refused(value: Leaf) -> None:
    with pytest.raises(CodecError, match="expected"):
        codec.dump(value)


def test_a_type_without_a_form_is_refused() -> None:
    @dataclass(frozen=True)
    class Odd:
        numbers: set[int]

    with pytest.raises(CodecError):
        codec.dump(Odd({1}))


def test_another_version_of_a_class_is_refused() -> None:
    with pytest.raises(CodecError, match="2 fields"):
        codec.load(Leaf, '[1, 2.0, "new"]')


def test_loaded_arrays_cannot_be_changed() -> None:
    tree = Tree(True, "", 0.0, "a", None, Leaf(1, 1.0), (), (1, ""), {}, np.arange(3))
    loaded = codec.load(Tree, codec.dump(tree))
    with pytest.raises(ValueError, match="read-only"):
        loaded.numbers[0] = 1
