import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.errors import PoolError, RecipeError
from evomerge.merge.layout import natural
from evomerge.merge.pool import ModelPool
from evomerge.settings import PoolSettings
from evomerge.strategy import Group
from evomerge.testing.checkpoints import save_checkpoint

MakePool = Callable[..., ModelPool]


def names(pool: ModelPool) -> list[str]:
    return [slot.name for slot in pool.layout.slots]


def test_natural_order() -> None:
    given = ["layers.10.b", "layers.2.b", "layers.2", "layers.02.a", "embed", "layers.2.a", "x" + "9" * 5000]
    expected = ["embed", "layers.2", "layers.02.a", "layers.2.a", "layers.2.b", "layers.10.b", "x" + "9" * 5000]
    assert sorted(given, key=natural) == expected


def test_default_layout_is_one_group_in_natural_order(make_pool: MakePool) -> None:
    pool = make_pool()
    assert names(pool) == ["embed", "layers.2.w", "layers.10.w", "norm"]
    assert pool.groups == (Group("all", 95),)
    assert [slot.offset for slot in pool.layout.slots] == [0, 44, 79, 94]
    assert (pool.size, pool.copied, pool.base, pool.reference, pool.members) == (95, (), None, "m0", ("m0", "m1", "m2"))


def test_order_patterns_come_first_in_their_order(make_pool: MakePool) -> None:
    assert names(make_pool(order=("norm", "layers.*"))) == ["norm", "layers.2.w", "layers.10.w", "embed"]


def test_groups_and_exclusions(make_pool: MakePool) -> None:
    pool = make_pool(groups={"rest": ("norm",), "blocks": ("layers.*",)}, exclude=("emb*",))
    assert pool.groups == (Group("rest", 1), Group("blocks", 50))
    assert pool.copied == ("embed",)
    assert pool.layout.starts == {"rest": 0, "blocks": 1}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"groups": {"a": ("layers.*",)}}, "'embed' is in no group"),
        ({"groups": {"a": ("*",), "b": ("norm",)}}, "'norm' is in the groups a and b"),
        ({"order": ("blocks.*",)}, r"pool\.order: the pattern 'blocks\.\*' fits no tensor; .*embed"),
        ({"exclude": ("head",)}, r"pool\.exclude: the pattern 'head'"),
        ({"groups": {"a": ("*",), "b": ("nope",)}}, r"pool\.groups\.b: the pattern 'nope'"),
        ({"exclude": ("*",)}, "no floating-point tensor is left"),
    ],
)
def test_patterns_that_do_not_fit_are_named(make_pool: MakePool, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(PoolError, match=words):
        make_pool(**settings)


def test_vector_and_spans_are_the_tensors_in_layout_order(make_pool: MakePool) -> None:
    pool = make_pool(groups={"rest": ("norm", "embed"), "blocks": ("layers.*",)})
    checkpoint = pool.checkpoints["m1"]
    whole = np.concatenate([checkpoint.floats(name) for name in names(pool)])
    assert np.array_equal(pool.vector("m1"), whole)
    for start in range(0, 50, 7):
        for stop in range(start + 1, 51, 6):
            assert np.array_equal(pool.span("m1", "blocks", start, stop), whole[45 + start : 45 + stop])


class TestBase:
    def save(self, folder: Path, *which: str) -> None:
        for name in which:
            save_checkpoint(folder / name / "model.safetensors", {"a": np.zeros(3, dtype=np.float32)})

    def test_is_a_source_but_no_member(self, tmp_path: Path) -> None:
        self.save(tmp_path, "origin", "x")
        pool = ModelPool.open(PoolSettings(members={"x": "x"}, base="origin"), tmp_path)
        assert (pool.members, pool.base, pool.sources, pool.reference) == (("x",), "base", ("x", "base"), "base")
        assert pool.reference_folder == tmp_path / "origin"

    def test_may_be_one_of_the_members(self, tmp_path: Path) -> None:
        self.save(tmp_path, "x", "y")
        pool = ModelPool.open(PoolSettings(members={"x": "x", "y": "y"}, base="./y"), tmp_path)
        assert (pool.base, pool.sources, pool.reference) == ("y", ("x", "y"), "y")

    def test_must_not_clash_with_a_member(self, tmp_path: Path) -> None:
        self.save(tmp_path, "x", "y")
        with pytest.raises(PoolError, match="called 'base'"):
            ModelPool.open(PoolSettings(members={"base": "x"}, base="y"), tmp_path)


def test_empty_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"pool\.members is empty"):
        ModelPool.open(PoolSettings(members={}), tmp_path)


def test_a_missing_member_is_named(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"pool member x: there is no checkpoint at .*nowhere"):
        ModelPool.open(PoolSettings(members={"x": "nowhere"}), tmp_path)


class TestDifferences:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        tensors = {"a": np.zeros((2, 2), dtype=np.float32), "b": np.zeros(3, dtype=np.float32), "n": np.arange(2)}
        for name in ("x", "y"):
            save_checkpoint(tmp_path / name / "model.safetensors", tensors)
        return tmp_path

    def open(self, folder: Path, **settings: Any) -> ModelPool:
        return ModelPool.open(PoolSettings(members={"x": "x", "y": "y"}, **settings), folder)

    def replace(self, folder: Path, tensors: dict[str, Any], bfloat16: bool = False) -> None:
        (folder / "y" / "model.safetensors").unlink()
        save_checkpoint(folder / "y" / "model.safetensors", tensors, bfloat16)

    def test_none(self, folder: Path) -> None:
        pool = self.open(folder)
        pool.check()
        assert pool.report().errors == pool.report().warnings == ()

    def test_every_tensor_is_named(self, folder: Path) -> None:
        self.replace(folder, {"a": np.zeros((4, 1), dtype=np.float32), "c": np.zeros(1), "n": np.arange(2)})
        with pytest.raises(PoolError) as caught:
            self.open(folder).check()
        for words in ("y: tensor 'a' has shape [4, 1] instead of [2, 2]", "no tensor 'b'", "extra tensor 'c'"):
            assert words in str(caught.value)

    def test_integers_cannot_be_merged(self, folder: Path) -> None:
        self.replace(folder, {"a": np.zeros((2, 2), dtype=np.int32), "b": np.zeros(3), "n": np.arange(2)})
        with pytest.raises(PoolError, match="'a' has dtype I32, which cannot be merged"):
            self.open(folder).check()

    def test_mixed_float_dtypes_only_warn(self, folder: Path) -> None:
        self.replace(folder, {"a": np.zeros((2, 2), dtype=np.float32), "b": np.zeros(3), "n": np.arange(2)}, True)
        pool = self.open(folder)
        pool.check()
        assert any("1 tensors are stored as BF16 instead of F32" in note for note in pool.report().warnings)
        assert any("as F64 instead of F32" in note for note in pool.report().warnings)

    def test_excluded_tensors_may_differ(self, folder: Path) -> None:
        self.replace(folder, {"a": np.zeros((2, 2), dtype=np.float32), "b": np.zeros(9, dtype=np.float32)})
        pool = self.open(folder, exclude=("b",))
        pool.check()
        assert pool.copied == ("b", "n")
        assert any("no tensor 'n'" in note for note in pool.report().warnings)

    def test_extra_tensors_may_be_excluded(self, folder: Path) -> None:
        tensors = {"a": np.zeros((2, 2), dtype=np.float32), "b": np.zeros(3, dtype=np.float32), "n": np.arange(2)}
        self.replace(folder, tensors | {"extra.1": np.zeros(2)})
        with pytest.raises(PoolError, match="extra tensor"):
            self.open(folder).check()
        self.open(folder, exclude=("extra.*",)).check()

    def test_architecture_is_an_error_and_other_config_a_warning(self, folder: Path) -> None:
        config = {"architectures": ["A"], "vocab_size": 5, "rope_theta": 1.0, "transformers_version": "4"}
        (folder / "x" / "config.json").write_text(json.dumps(config))
        (folder / "y" / "config.json").write_text(json.dumps(config | {"rope_theta": 2.0, "transformers_version": "5"}))
        assert self.open(folder).report().errors == ()
        assert self.open(folder).report().warnings == ("y: config.json has rope_theta 2.0 instead of 1.0",)
        (folder / "y" / "config.json").write_text(json.dumps(config | {"architectures": ["B"], "vocab_size": 6}))
        with pytest.raises(PoolError, match=r"architectures \['B'\] instead of \['A'\]\n.*vocab_size 6 instead of 5"):
            self.open(folder).check()

    def test_vocabularies_must_agree_but_their_spelling_need_not(self, folder: Path) -> None:
        tokenizer = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"content": "<s>", "id": 2}]}
        (folder / "x" / "tokenizer.json").write_text(json.dumps(tokenizer))
        (folder / "y" / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1))
        self.open(folder).check()
        tokenizer["model"] = {"vocab": {"b": 0, "a": 1}}
        (folder / "y" / "tokenizer.json").write_text(json.dumps(tokenizer))
        with pytest.raises(PoolError, match=r"another vocabulary \(2 tokens differ\)"):
            self.open(folder).check()

    def test_vocabulary_files_must_agree(self, folder: Path) -> None:
        for name, text in (("x", "a\nb"), ("y", "b\na")):
            (folder / name / "vocab.txt").write_text(text)
        with pytest.raises(PoolError, match=r"vocab\.txt differs"):
            self.open(folder).check()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(tmp_path: Path, bad: float) -> None:
    values = np.zeros((3, 4), dtype=np.float32)
    save_checkpoint(tmp_path / "x.safetensors", {"a": values})
    values[1, 2] = bad
    save_checkpoint(tmp_path / "y.safetensors", {"a": values})
    pool = ModelPool.open(PoolSettings(members={"x": "x.safetensors", "y": "y.safetensors"}), tmp_path)
    pool.vector("x")
    for read in (pool.check_finite, lambda: pool.vector("y")):
        with pytest.raises(PoolError, match=rf"y: tensor 'a' is {bad} at index \[1, 2\]"):
            read()


def test_values_beyond_float32_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", {"a": np.array([1e300])})
    pool = ModelPool.open(PoolSettings(members={"x": "x.safetensors"}), tmp_path)
    with pytest.raises(PoolError, match="too large for float32"):
        pool.vector("x")


def test_report_counts(make_pool: MakePool) -> None:
    report = make_pool(exclude=("embed",)).report()
    assert (report.parameters, report.vector_bytes, report.copied) == (51, 204, ("embed",))
    assert [(one.name, one.parameters, one.bytes, one.dtypes) for one in report.sources] == [
        (f"m{n}", 95, 380, (("F32", 4),)) for n in range(3)
    ]


def test_digests_follow_content(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool()
    assert len(set(pool.digests().values())) == 3
    shutil.copytree(tmp_path / "pool0", tmp_path / "copy")
    copy = ModelPool.open(PoolSettings(members={f"m{n}": f"{n}.safetensors" for n in range(3)}), tmp_path / "copy")
    assert copy.digests() == pool.digests()
    assert copy.identity != pool.identity


def test_identity_follows_the_layout(make_pool: MakePool) -> None:
    assert make_pool().identity == make_pool().identity != make_pool(order=("norm",)).identity


class TestStatistics:
    def open(self, make_pool: MakePool, **statistics: dict[str, str | float]) -> ModelPool:
        return make_pool(statistics=statistics)

    def test_numbers_and_files_are_at_hand(self, make_pool: MakePool, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "pool0" / "f.safetensors", {"embed": np.ones((11, 4), dtype=np.float32)})
        pool = self.open(make_pool, m1={"loss": 0.5, "fisher": "f.safetensors"})
        pool.check()
        assert pool.number("m1", "loss") == 0.5
        assert pool.attached("m1", "fisher").floats("embed").sum() == 44
        for kind in ("fisher", "step"):
            with pytest.raises(RecipeError, match=rf"m1 has no {kind}; give the number"):
                pool.number("m1", kind)
        with pytest.raises(RecipeError, match=r"m1 has no loss; give the file as pool\.statistics\.m1\.loss"):
            pool.attached("m1", "loss")

    def test_missing_files_and_unknown_models_are_found_at_once(self, make_pool: MakePool) -> None:
        with pytest.raises(
            PoolError, match=r"pool\.statistics\.m1\.fisher: there is no checkpoint at .*f\.safetensors"
        ):
            self.open(make_pool, m1={"fisher": "f.safetensors"}).check()
        with pytest.raises(PoolError, match=r"pool\.statistics names 'm9', but the pool has m0, m1, m2"):
            self.open(make_pool, m9={"loss": 1.0}).check()

    def test_their_content_is_told(self, make_pool: MakePool, tmp_path: Path) -> None:
        told = []
        for value in (1, 2):
            path = tmp_path / "pool0" / "f.safetensors"
            path.unlink(missing_ok=True)
            save_checkpoint(path, {"embed": np.full((11, 4), value, dtype=np.float32)})
            pool = self.open(make_pool, m1={"loss": 0.5, "fisher": "f.safetensors"})
            told.append(pool.statistics_digests())
        assert [list(one) for one in told] == [["pool.statistics.m1.fisher"]] * 2
        assert told[0] != told[1]


class TestRealModels:
    def test_a_real_llama_is_read_whole(self, shared: Path) -> None:
        pool = ModelPool.open(PoolSettings(members={"stories": "stories260K/hf"}), shared)
        pool.check()
        pool.check_finite()
        assert pool.size == 260_032
        assert names(pool)[0] == "model.embed_tokens.weight"
        assert pool.report().errors == ()

    def test_an_incompatible_one_is_named_tensor_by_tensor(self, shared: Path) -> None:
        members = {"stories": "stories260K/hf", "dreams": "aidreams260K/hf"}
        pool = ModelPool.open(PoolSettings(members=members), shared)
        with pytest.raises(PoolError) as caught:
            pool.check()
        for words in (
            "dreams: has 4 layers instead of 5; choose as many of its layers with pool.layers",
            f"dreams: has no tensor 'model.layers.4.mlp.up_proj.weight' ({shared / 'aidreams260K' / 'hf'})",
            "dreams: tensor 'model.layers.0.self_attn.k_proj.weight' has shape [64, 64] instead of [32, 64] "
            f"({shared / 'aidreams260K' / 'hf' / 'model.safetensors'})",
            "dreams: tokenizer.json has another vocabulary",
            "num_hidden_layers 4 instead of 5",
        ):
            assert words in str(caught.value)
