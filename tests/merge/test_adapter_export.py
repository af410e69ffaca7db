import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.candidate import MEMBER, Noise, Recipe, Segment
from evomerge.errors import ExportError
from evomerge.merge.adapter_export import AdapterJob, AdapterReport, export_adapter, export_adapters
from evomerge.merge.build import Builder, Mode
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.pool import ModelPool
from evomerge.merge.views.adapted import Adapted
from evomerge.merge.views.adapter import Adapter
from evomerge.merge.views.peft import read_config
from evomerge.settings import PoolSettings
from evomerge.testing.adapters import UNEQUAL, make_pool, random_adapters

PEFT = Path(__file__).parent / "views" / "peft"


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    return make_pool(tmp_path / "pool", random_adapters(UNEQUAL, 1))


def recipe(pool: ModelPool, operator: str, values: tuple[float, ...], members: Sequence[str] = ()) -> Recipe:
    segments = tuple(Segment(group.name, 0, group.size, values) for group in pool.groups)
    sources = (pool.base or "", *(members or (name for name in pool.sources if name != pool.base)))
    return Recipe(operator, tuple(MEMBER + name for name in sources), segments)


def write(pool: ModelPool, one: Recipe, out: Path, mode: Mode = "table", **settings: Any) -> AdapterReport:
    return export_adapter(Builder(pool, mode), one, (), out, card="# card", **settings)


def again(pool: ModelPool, out: Path) -> Adapted:
    """The written adapter over the pool's base."""
    return Adapted(Adapter(out, pool.checkpoints[pool.base or ""]))


def built(pool: ModelPool, one: Recipe) -> dict[str, NDArray[Any]]:
    """The recipe's tensors."""
    builder = Builder(pool, "table")
    vector = builder.resolve(one)
    return {slot.name: builder.read(vector, slot, 0, slot.size) for slot in pool.layout.slots}


def assert_same(pool: ModelPool, out: Path, one: Recipe, tolerance: float = 1e-5) -> None:
    found = again(pool, out)
    for name, values in built(pool, one).items():
        np.testing.assert_allclose(found.floats(name), values, rtol=tolerance, atol=tolerance, err_msg=name)


OPERATORS = {
    "lora_cat": (0.3, -0.7, 1.1),
    "task_arithmetic": (0.3, -0.7, 1.1),
    "lora_svd": (0.3, -0.7, 1.1, 3.0, 1.0),
    "lora_lego": (3.0, 0.9),
}


@pytest.mark.parametrize("mode", ["dense", "table", "auto"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_the_adapter_is_the_model(pool: ModelPool, tmp_path: Path, operator: str, mode: Mode) -> None:
    one = recipe(pool, operator, OPERATORS[operator])
    report = write(pool, one, tmp_path / "out", mode)
    assert_same(pool, tmp_path / "out", one)
    assert report.errors == {}
    assert report.error == 0.0
    assert report.ranks == {
        name: factors.rank for name, factors in again(pool, tmp_path / "out").adapter.modules.items()
    }


def test_a_linear_combination_is_the_concatenation(pool: ModelPool, tmp_path: Path) -> None:
    for operator in ("lora_cat", "task_arithmetic"):
        write(pool, recipe(pool, operator, (0.3, -0.7, 1.1)), tmp_path / operator)
    one, other = (
        (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("lora_cat", "task_arithmetic")
    )
    assert one == other


@pytest.mark.parametrize("cut", [10, 33, 60, 61, 69, 79])
@pytest.mark.parametrize("operator", ["lora_cat", "task_arithmetic"])
def test_segments_that_end_within_a_tensor_are_exact(pool: ModelPool, tmp_path: Path, operator: str, cut: int) -> None:
    whole = recipe(pool, operator, (0.3, -0.7, 1.1))
    first, second = whole.segments
    cut_up = (replace(first, stop=cut), replace(first, start=cut, values=(1.0, 0.5, -0.4)), second)
    one = replace(whole, segments=cut_up)
    report = write(pool, one, tmp_path / "out")
    assert report.error == 0.0
    assert_same(pool, tmp_path / "out", one)


@pytest.mark.parametrize("case", ["linear", "patterns", "transposed", "embedding", "convolution"])
def test_every_form_is_written_as_peft_reads_it(case: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(PEFT / case, tmp_path / name)
    settings = PoolSettings({"one": "one", "two": "two"}, base=str(PEFT / case / "base.safetensors"))
    pool = ModelPool.open(settings, tmp_path)
    one = recipe(pool, "lora_cat", (0.5, 0.5))
    write(pool, one, tmp_path / "out")
    expected = Checkpoint(PEFT / case / "merged.safetensors")
    found = again(pool, tmp_path / "out")
    for name in expected.entries:
        np.testing.assert_allclose(found.floats(name), expected.floats(name), rtol=2e-5, atol=2e-6, err_msg=name)
    theirs, mine = (read_config(folder).raw for folder in (tmp_path / "one", tmp_path / "out"))
    assert mine["fan_in_fan_out"] == theirs["fan_in_fan_out"]
    names = Checkpoint(tmp_path / "one" / "adapter_model.safetensors").entries.keys()
    assert Checkpoint(tmp_path / "out" / "adapter_model.safetensors").entries.keys() == names


def test_different_ranks_are_told_by_pattern_and_scales_are_one(pool: ModelPool, tmp_path: Path) -> None:
    report = write(pool, recipe(pool, "lora_cat", (1.0, 1.0, 1.0)), tmp_path / "out")
    assert len(set(report.ranks.values())) > 1
    config = read_config(tmp_path / "out")
    for name, rank in report.ranks.items():
        module = name.removesuffix(".weight")
        assert config.rank_of(module) == rank
        assert config.scale_of(module) == 1.0
    assert not config.rslora


def test_a_rank_compresses_and_tells_the_error(pool: ModelPool, tmp_path: Path) -> None:
    one = recipe(pool, "lora_cat", (0.3, -0.7, 1.1))
    report = write(pool, one, tmp_path / "out", rank=2)
    assert max(report.ranks.values()) == 2
    base, merged, found = pool.checkpoints["base"], built(pool, one), again(pool, tmp_path / "out")
    errors, lost, whole = {}, 0.0, 0.0
    for name, values in merged.items():
        delta = values.astype(np.float64) - base.floats(name)
        left = np.sum((values.astype(np.float64) - found.floats(name)) ** 2)
        errors[name] = np.sqrt(left / np.sum(delta**2)) if delta.any() else 0.0
        lost, whole = lost + left, whole + float(np.sum(delta**2))
    for name, error in report.errors.items():
        assert error == pytest.approx(errors[name], rel=1e-3)
    assert report.error == pytest.approx(np.sqrt(lost / whole), rel=1e-3)
    stored = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert stored["digest"] == one.digest
    assert stored["adapter"]["error"] == report.error
    assert f"{report.error:.2%}" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("noise", [None, Noise(0.0, 1, 1)])
def test_other_operators_need_a_rank(pool: ModelPool, tmp_path: Path, noise: Noise | None) -> None:
    operator = "nearswap" if noise is None else "lora_cat"
    values = (0.5,) if noise is None else (1.0,)
    one = replace(recipe(pool, operator, values, ["one"]), noise=noise)
    with pytest.raises(ExportError, match=rf"{one.digest}.*no linear combination.*give a rank"):
        write(pool, one, tmp_path / "out", "auto")
    report = write(pool, one, tmp_path / "out", "auto", rank=10)
    assert report.error == pytest.approx(0.0, abs=1e-6)
    assert_same(pool, tmp_path / "out", replace(one, noise=None))


def test_a_scaled_base_is_no_adapter(pool: ModelPool, tmp_path: Path) -> None:
    one = recipe(pool, "linear", (0.5, 0.2, 0.2, 0.2))
    with pytest.raises(ExportError, match=r"first\[0:80\].*sum to 1.1 instead of 1"):
        write(pool, one, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_no_adapter_can_say_counts_as_lost(pool: ModelPool, tmp_path: Path) -> None:
    one = recipe(pool, "linear", (0.5, 0.2, 0.2, 0.2))
    report = write(pool, one, tmp_path / "out", rank=10)
    assert report.errors == {"first.1.bias": 1.0, "second.4.weight": 1.0}
    base, merged = pool.checkpoints["base"], built(pool, one)
    squares = {name: float(np.sum((values - base.floats(name)) ** 2)) for name, values in merged.items()}
    lost = sum(squares[name] for name in report.errors)
    assert report.error == pytest.approx(np.sqrt(lost / sum(squares.values())), rel=1e-5)
    found = again(pool, tmp_path / "out")
    for name in report.ranks:
        np.testing.assert_allclose(found.floats(name), merged[name], rtol=1e-5, atol=1e-5)


def test_nothing_added_is_an_adapter_of_zeros(pool: ModelPool, tmp_path: Path) -> None:
    for operator in ("lora_cat", "task_arithmetic"):
        one = recipe(pool, operator, (0.0, 0.0, 0.0))
        report = write(pool, one, tmp_path / operator)
        assert set(report.ranks.values()) == {1}
        for name, values in built(pool, one).items():
            assert again(pool, tmp_path / operator).floats(name).tobytes() == values.tobytes()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-5), ("float16", 1e-2), ("bfloat16", 5e-2)])
def test_other_dtypes(pool: ModelPool, tmp_path: Path, dtype: str, tolerance: float) -> None:
    one = recipe(pool, "lora_cat", (0.3, -0.7, 1.1))
    write(pool, one, tmp_path / "out", dtype=dtype)
    assert_same(pool, tmp_path / "out", one, tolerance)
    stored = {"float64": "F64", "float16": "F16", "bfloat16": "BF16"}[dtype]
    entries = Checkpoint(tmp_path / "out" / "adapter_model.safetensors").entries.values()
    assert {entry.dtype for entry in entries} == {stored}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"rank": 0}, "rank 0 is impossible"),
        ({"dtype": "float16"}, r"'base_model.model.first.0.lora_B.weight' holds values beyond float16"),
    ],
)
def test_impossible_wishes_are_refused(
    pool: ModelPool, tmp_path: Path, settings: Mapping[str, Any], message: str
) -> None:
    one = recipe(pool, "lora_cat", (1e6, 1.0, 1.0))
    with pytest.raises(ExportError, match=message):
        write(pool, one, tmp_path / "out", **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]


def test_a_pool_of_whole_models_has_no_adapters(tmp_path: Path) -> None:
    make_pool(tmp_path, random_adapters(UNEQUAL, 1))
    pool = ModelPool.open(PoolSettings({"one": "base.safetensors"}), tmp_path)
    with pytest.raises(ExportError, match="the pool has no adapters"):
        write(pool, Recipe("linear", ("pool:one",), (Segment("all", 0, pool.size, (1.0,)),)), tmp_path / "out")


def test_a_full_disk_leaves_nothing(pool: ModelPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match="No space left on device"):
        write(pool, recipe(pool, "lora_cat", (1.0, 1.0, 1.0)), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]


def test_several_at_once_are_the_same_as_one_by_one(pool: ModelPool, tmp_path: Path) -> None:
    recipes = [recipe(pool, operator, values) for operator, values in OPERATORS.items()]
    jobs = [AdapterJob(one, (), tmp_path / f"together{at}", "# card") for at, one in enumerate(recipes)]
    reports = export_adapters(Builder(pool, "table"), jobs)
    for at, one in enumerate(recipes):
        assert write(pool, one, tmp_path / f"alone{at}") == reports[at]
        for name in ("adapter_model.safetensors", "adapter_config.json", "README.md", "recipe.json"):
            assert (tmp_path / f"alone{at}" / name).read_bytes() == (tmp_path / f"together{at}" / name).read_bytes()


def test_one_that_fails_leaves_none(pool: ModelPool, tmp_path: Path) -> None:
    good = AdapterJob(recipe(pool, "lora_cat", (1.0, 1.0, 1.0)), (), tmp_path / "good", "")
    with pytest.raises(ExportError, match="rank"):
        export_adapters(Builder(pool, "table"), [good, replace(good, out=tmp_path / "bad", rank=-1)])
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]
