import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from evomerge.candidate import Recipe, Segment
from evomerge.errors import PoolError
from evomerge.merge.build import Builder
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.export import export
from evomerge.merge.pool import ModelPool
from evomerge.merge.source import Source
from evomerge.merge.tokens import tokens_of
from evomerge.settings import PoolSettings, TokenSettings
from evomerge.testing.checkpoints import save_checkpoint
from tests.merge.mergekit.cases import POOLS, cases

Vocabularies = Mapping[str, Mapping[str, int]]
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TENSORS = (EMBED, HEAD)

GOLDEN = {case.name: case for case in cases()}


def rows(source: Source, name: str) -> np.ndarray[Any, Any]:
    return source.floats(name).reshape(source.entries[name].shape)


def tokenizer(tokens: Mapping[str, int], added: Mapping[str, int] | None = None) -> str:
    listed = [
        {"id": at, "content": one, "single_word": False, "lstrip": True, "rstrip": False, "normalized": False}
        | {"special": True}
        for one, at in (added or {}).items()
    ]
    model = {"type": "WordLevel", "vocab": dict(tokens), "unk_token": next(iter(tokens), "?")}
    return json.dumps({"version": "1.0", "added_tokens": listed, "model": model})


def save(folder: Path, tokens: Mapping[str, int], pad: int = 0, seed: int = 0, **config: Any) -> Path:
    """A model with random rows for its tokens, and some of padding."""
    count = len(tokens) + pad
    random = np.random.default_rng([seed, count])
    shapes = {EMBED: (count, 3), HEAD: (count, 3), "model.norm.weight": (3,)}
    path = folder / "model.safetensors"
    save_checkpoint(path, {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})
    (folder / "tokenizer.json").write_text(tokenizer(tokens))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": count} | config))
    return folder


def numbered(text: str) -> dict[str, int]:
    return {token: number for number, token in enumerate(text)}


class TestAsMergekit:
    """Tokens are compared, not their numbers: mergekit numbers new tokens in no particular order."""

    @pytest.mark.parametrize(
        ("case", "vocabulary", "members", "base", "values"),
        [
            ("vocabulary_union", "union", ("left", "right"), "left", (0.6, 0.4)),
            ("vocabulary_legacy", "union", ("left", "right"), "left", (0.6, 0.4)),
            ("vocabulary_base", "base", ("left", "right"), "left", (0.6, 0.4)),
            ("vocabulary_named", "right", ("left", "right"), "left", (0.6, 0.4)),
            ("vocabulary_without_base", "union", ("left", "right"), None, (0.6, 0.4)),
            ("vocabulary_union_three", "union", ("right", "third"), "left", (0.6, 0.3)),
        ],
    )
    def test_every_token_has_the_same_row(
        self, case: str, vocabulary: str, members: tuple[str, ...], base: str | None, values: tuple[float, ...]
    ) -> None:
        told = PoolSettings({one: f"vocabulary/{one}" for one in members}, base and f"vocabulary/{base}")
        pool = ModelPool.open(PoolSettings(told.members, told.base, vocabulary=vocabulary), POOLS)
        pool.check()
        operator = "linear" if base in (None, *members) else "task_arithmetic"
        sources = members if operator == "linear" else ("base", *members)
        recipe = Recipe(operator, tuple(f"pool:{one}" for one in sources), (Segment("all", 0, pool.size, values),))
        builder = Builder(pool)
        vector = builder.resolve(recipe)
        golden = GOLDEN[case]
        tokens = pool.checkpoints[pool.reference].vocabulary.tokens  # type: ignore[attr-defined]
        assert tokens.keys() == golden.vocabulary.keys()
        assert pool.checkpoints[pool.reference].config()["vocab_size"] == golden.config["vocab_size"]
        for slot in pool.layout.slots:
            found = builder.read(vector, slot, 0, slot.size).reshape(slot.shape)
            expected = golden.tensors[slot.name]
            if slot.name in TENSORS:
                found = found[list(tokens.values())]
                expected = expected[[golden.vocabulary[token] for token in tokens]]
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def expected_rows(
    name: str, sources: Mapping[str, Source], own: Vocabularies, tokens: Mapping[str, int], base: str | None
) -> Mapping[str, np.ndarray[Any, Any]]:
    """The row of each token in one source, written as the rule is said."""
    found = {}
    for token in tokens:
        holders = [
            member for member in sources if own[member].get(token, 10**9) < sources[member].entries[EMBED].shape[0]
        ]
        for tensor in TENSORS:
            if not holders:
                continue
            chosen = [name] if name in holders else [base] if base in holders else holders
            values = [rows(sources[one], tensor)[own[one][token]].astype(np.float64) for one in chosen if one]
            found[f"{tensor} {token}"] = np.mean(values, axis=0)
    return found


words = st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True).map(lambda word: numbered("".join(word)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(words, min_size=2, max_size=3), st.lists(st.integers(0, 3), min_size=3, max_size=3), st.data())
def test_every_token_has_the_row_that_the_rule_gives(
    tmp_path_factory: pytest.TempPathFactory, vocabularies: list[dict[str, int]], pads: list[int], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("pool")
    own = dict(zip(("x", "y", "z"), vocabularies, strict=False))
    for seed, (name, tokens) in enumerate(own.items()):
        save(folder / name, tokens, pads[seed], seed)
    base = data.draw(st.sampled_from([None, "x"]))
    chosen = data.draw(st.sampled_from(["union", "base", *own]))
    multiple = data.draw(st.sampled_from([1, 5]))
    told = PoolSettings({name: name for name in own}, base, vocabulary=chosen, pad_vocabulary=multiple)
    pool = ModelPool.open(told, folder)
    pool.check()
    before = {name: Checkpoint(folder / name) for name in own}
    tokens = pool.checkpoints["x"].vocabulary.tokens  # type: ignore[attr-defined]
    kept = own["x"] if chosen in ("union", "base") else own[chosen]
    assert {token: tokens[token] for token in kept} == kept
    assert set(tokens) == (set().union(*own.values()) if chosen == "union" else set(kept))
    assert sorted(tokens.values()) == list(range(len(tokens)))
    for name, source in pool.checkpoints.items():
        size = -(-len(tokens) // multiple) * multiple
        for tensor in TENSORS:
            assert source.entries[tensor].shape == (size, 3)
        expected = expected_rows(name, before, own, tokens, base)
        for key, row in expected.items():
            tensor, token = key.split(" ")
            np.testing.assert_allclose(rows(source, tensor)[tokens[token]], row, rtol=1e-6)
        whole = rows(source, EMBED)
        if expected and size > len(tokens):
            held = [tokens[token] for token in tokens if f"{EMBED} {token}" in expected]
            np.testing.assert_allclose(
                whole[len(tokens) :], whole[held].mean(axis=0)[None].repeat(size - len(tokens), 0), rtol=1e-5, atol=1e-6
            )
        cuts = sorted({0, whole.size, *data.draw(st.lists(st.integers(0, whole.size), max_size=4))})
        pieces = [source.floats(EMBED, start, stop) for start, stop in pairwise(cuts)]
        assert np.concatenate(pieces).tobytes() == whole.tobytes()
        assert np.array_equal(rows(source, "model.norm.weight"), rows(before[name], "model.norm.weight"))


def open_pool(folder: Path, *names: str, **settings: Any) -> ModelPool:
    return ModelPool.open(PoolSettings(members={name: name for name in names}, **settings), folder)


class TestPadding:
    """Models of the same tokens may have other numbers of rows."""

    @pytest.mark.parametrize("base", [None, "y"])
    def test_rows_are_cut_or_taken_from_the_reference(self, tmp_path: Path, base: str | None) -> None:
        save(tmp_path / "x", numbered("abcde"), 3)
        save(tmp_path / "y", numbered("abcde"), 1, seed=1)
        pool = open_pool(tmp_path, "x", "y", base=base)
        pool.check()
        size, other, home = (6, "x", "y") if base else (8, "y", "x")
        found = rows(pool.checkpoints[other], EMBED)
        own, reference = rows(Checkpoint(tmp_path / other), EMBED), rows(Checkpoint(tmp_path / home), EMBED)
        assert found.shape == (size, 3)
        assert np.array_equal(found[: min(6, size)], own[: min(6, size)])
        assert np.array_equal(found[6:], reference[6:])
        assert pool.checkpoints[other].config()["vocab_size"] == size
        assert isinstance(pool.checkpoints[home], Checkpoint)
        assert pool.reference_folder == tmp_path / home

    def test_may_be_asked_for(self, tmp_path: Path) -> None:
        for seed, name in enumerate(("x", "y")):
            save(tmp_path / name, numbered("abcde"), seed=seed)
        pool = open_pool(tmp_path, "x", "y", pad_vocabulary=4)
        pool.check()
        found = rows(pool.checkpoints["y"], HEAD)
        np.testing.assert_allclose(found[5:], found[:5].mean(axis=0)[None].repeat(3, 0), rtol=1e-6)

    def test_never_stands_in_for_another_tokenizer(self, tmp_path: Path) -> None:
        save(tmp_path / "x", numbered("abcde"))
        save(tmp_path / "y", numbered("abcdef"), seed=1)
        with pytest.raises(PoolError) as caught:
            open_pool(tmp_path, "x", "y").check()
        assert "(1 tokens differ), so its token numbers mean other words; set pool.vocabulary to" in str(caught.value)
        assert "has shape [6, 3] instead of [5, 3]" in str(caught.value)

    def test_tokens_beyond_the_rows_ask_for_a_vocabulary(self, tmp_path: Path) -> None:
        """As when a padding token was added to a tokenizer, and only one model was resized for it."""
        for name, rows_ in (("x", "abcde"), ("y", "abcdef")):
            save(tmp_path / name, numbered(rows_))
            (tmp_path / name / "tokenizer.json").write_text(tokenizer(numbered("abcde"), {"f": 5}))
        with pytest.raises(PoolError, match=r"has shape \[6, 3\] instead of \[5, 3\]"):
            open_pool(tmp_path, "x", "y").check()
        pool = open_pool(tmp_path, "x", "y", vocabulary="base")
        pool.check()
        found = {name: rows(pool.checkpoints[name], EMBED) for name in "xy"}
        assert np.array_equal(found["x"][5], found["y"][5])


class TestFiles:
    """The files of what is exported."""

    def exported(self, folder: Path, pool: ModelPool) -> Path:
        recipe = Recipe("linear", ("pool:x",), (Segment("all", 0, pool.size, (1.0,)),))
        export(Builder(pool), recipe, (), folder / "out", card="")
        return folder / "out"

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        save(tmp_path / "x", numbered("abc"), pad=2, bos_token_id=1, pad_token_id=None, eos_token_id=[0, 2])
        save(tmp_path / "y", numbered("cbd"), eos_token_id=1)
        (tmp_path / "y" / "tokenizer.json").write_text(tokenizer(numbered("cbd"), {"<new>": 3, "c": 0}))
        generation = {"eos_token_id": [1, 2], "bos_token_id": 0, "top_k": 1}
        (tmp_path / "x" / "generation_config.json").write_text(json.dumps(generation))
        (tmp_path / "x" / "vocab.txt").write_text("a\nb\nc")
        for name in "xy":
            told = {"tokenizer_class": "PreTrainedTokenizerFast", "of": name}
            (tmp_path / name / "tokenizer_config.json").write_text(json.dumps(told))
        return tmp_path

    def test_a_union_is_the_bases_tokenizer_with_more_tokens(self, folder: Path) -> None:
        out = self.exported(folder, open_pool(folder, "x", "y", vocabulary="union"))
        expected = {"a": 0, "b": 1, "c": 2, "d": 3, "<new>": 4}
        assert tokens_of(out) == expected
        found = AutoTokenizer.from_pretrained(out)
        assert found.get_vocab() == expected
        assert found.convert_ids_to_tokens(found("d")["input_ids"]) == ["d"]
        assert json.loads((out / "config.json").read_text())["vocab_size"] == 5
        assert json.loads((out / "tokenizer_config.json").read_text())["of"] == "x"
        assert not (out / "vocab.txt").exists()

    def test_added_tokens_stay_as_they_are(self, folder: Path) -> None:
        embed = {EMBED: np.zeros((4, 3), dtype=np.float32), HEAD: np.zeros((4, 3), dtype=np.float32)}
        (folder / "y" / "model.safetensors").unlink()
        save_checkpoint(folder / "y" / "model.safetensors", embed | {"model.norm.weight": np.zeros(3, dtype="f4")})
        out = self.exported(folder, open_pool(folder, "x", "y", vocabulary="union"))
        assert tokens_of(out) == {"a": 0, "b": 1, "c": 2, "d": 3, "<new>": 4}
        added = {one["content"]: one for one in json.loads((out / "tokenizer.json").read_text())["added_tokens"]}
        assert added["<new>"]["special"]
        assert added["<new>"]["lstrip"]
        assert not added["d"]["special"]
        assert AutoTokenizer.from_pretrained(out)("<new>")["input_ids"] == [4]

    def test_another_members_tokenizer_replaces_all_files(self, folder: Path) -> None:
        (folder / "y" / "tokenizer.json").write_text(tokenizer(numbered("cbd")))
        out = self.exported(folder, open_pool(folder, "x", "y", vocabulary="y"))
        assert tokens_of(out) == {"c": 0, "b": 1, "d": 2}
        assert json.loads((out / "tokenizer_config.json").read_text())["of"] == "y"
        assert not (out / "vocab.txt").exists()

    def test_special_tokens_keep_their_meaning(self, folder: Path) -> None:
        (folder / "y" / "tokenizer.json").write_text(tokenizer({"b": 0, "c": 1, "d": 2}))
        out = self.exported(folder, open_pool(folder, "x", "y", vocabulary="y"))
        config = json.loads((out / "config.json").read_text())
        assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (0, [1], None)
        generation = json.loads((out / "generation_config.json").read_text())
        assert generation == {"eos_token_id": [0, 1], "top_k": 1}  # and a is gone

    def test_a_folder_may_give_the_tokenizer(self, folder: Path) -> None:
        (folder / "z").mkdir()
        (folder / "z" / "tokenizer.json").write_text(tokenizer(numbered("dcbaz")))
        pool = open_pool(folder, "x", "y", vocabulary="z")
        out = self.exported(folder, pool)
        assert tokens_of(out) == numbered("dcbaz")
        found, x, y = (
            rows(Checkpoint(out), EMBED),
            rows(Checkpoint(folder / "x"), EMBED),
            rows(Checkpoint(folder / "y"), EMBED),
        )
        assert np.array_equal(found[1:4], x[[2, 1, 0]])
        assert np.array_equal(found[0], y[2])
        np.testing.assert_allclose(found[4], found[:4].mean(axis=0), rtol=1e-6)

    def test_the_report_says_how_many_tokens_differ(self, folder: Path) -> None:
        pool = open_pool(folder, "x", "y", vocabulary="union")
        assert [text for text in pool.report().warnings if "of the pool" in text] == [
            "x: lacks 2 of the pool's 5 tokens, whose rows are filled in",
            "x: 2 of its 5 rows of embeddings stand for no token of the pool",
            "y: lacks 2 of the pool's 5 tokens, whose rows are filled in",
        ]


RULES = {
    "a": TokenSettings("y", force=True),
    "b": TokenSettings("x", "c"),
    "d": TokenSettings(None, force=True),
    "e": TokenSettings("base", 1),
    "!": TokenSettings("y", "b"),
}
"""``a`` and ``b`` are in x and in y, ``d`` is in x, ``e`` in y, and ``!`` nowhere."""
EXPECTED = {
    "x": {"a": ("y", "a"), "b": ("x", "b"), "c": ("x", "c"), "d": None, "e": ("x", "b"), "!": ("y", "b")},
    "y": {"a": ("y", "a"), "b": ("y", "b"), "c": ("x", "c"), "d": None, "e": ("y", "e"), "!": ("y", "b")},
}
OWN = {"x": numbered("abcd"), "y": numbered("bae")}


class TestTokens:
    """Single tokens may have rules of their own."""

    def opened(self, folder: Path, vocabulary: str = "union", **settings: Any) -> ModelPool:
        for seed, (name, tokens) in enumerate(OWN.items()):
            if not (folder / name).exists():
                save(folder / name, tokens, seed=seed)
        return open_pool(folder, "x", "y", **{"base": "x", "vocabulary": vocabulary, "tokens": RULES} | settings)

    @pytest.mark.parametrize("vocabulary", ["union", "base", "y"])
    @pytest.mark.parametrize("multiple", [1, 8])
    def test_each_takes_its_row(self, tmp_path: Path, vocabulary: str, multiple: int) -> None:
        pool = self.opened(tmp_path, vocabulary, pad_vocabulary=multiple)
        pool.check()
        tokens = pool.checkpoints["x"].vocabulary.tokens  # type: ignore[attr-defined]
        before = {name: rows(Checkpoint(tmp_path / name), HEAD) for name in OWN}
        assert {"!", *RULES} <= tokens.keys()
        for name, expected in EXPECTED.items():
            found = rows(pool.checkpoints[name], HEAD)
            assert len(found) == -(-len(tokens) // multiple) * multiple
            for token, number in tokens.items():
                whose = expected[token]
                row = np.zeros(3, np.float32) if whose is None else before[whose[0]][OWN[whose[0]][whose[1]]]
                assert np.array_equal(found[number], row), (name, token)
            mean = found[: len(tokens)].astype(np.float64).mean(axis=0)
            for padding in found[len(tokens) :]:
                np.testing.assert_allclose(padding, mean, rtol=1e-5)

    def test_a_rule_may_change_one_row_of_models_that_are_alike(self, tmp_path: Path) -> None:
        for seed, name in enumerate(("x", "y")):
            save(tmp_path / name, numbered("abc"), seed=seed)
        pool = open_pool(tmp_path, "x", "y", vocabulary="x", tokens={"b": TokenSettings("y", 2, force=True)})
        x, y = (rows(Checkpoint(tmp_path / name), EMBED) for name in ("x", "y"))
        assert np.array_equal(rows(pool.checkpoints["x"], EMBED), np.stack([x[0], y[2], x[2]]))
        assert np.array_equal(rows(pool.checkpoints["y"], EMBED), np.stack([y[0], y[2], y[2]]))

    def test_new_tokens_are_in_the_tokenizer(self, tmp_path: Path) -> None:
        tokens = self.opened(tmp_path, tokens={"<new>": TokenSettings("y", "b")}).reference_folder
        assert tokens_of(tokens) == {**numbered("abcd"), "e": 4, "<new>": 5}

    def test_identity_and_digest_follow_the_rules(self, tmp_path: Path) -> None:
        rules = [{"a": TokenSettings(*rule)} for rule in (("y", None, True), ("y", 2, True), (None, None, True))]
        pools = [self.opened(tmp_path, tokens=tokens) for tokens in (*rules, {"a": TokenSettings("y")}, {})]
        told = [(pool.checkpoints["x"].digest(), pool.checkpoints["x"].identity()) for pool in pools]
        assert len({one for pair in told for one in pair}) == 8
        assert told[3] == told[4]

    @pytest.mark.parametrize(
        ("rule", "words"),
        [
            (TokenSettings("z"), "pool.tokens.a: the pool has no 'z', but x, y"),
            (TokenSettings("y", "c"), "pool.tokens.a: y has no token 'c'"),
            (TokenSettings("y", 3), "pool.tokens.a: y has no row 3, but 3 rows"),
            (TokenSettings(None, "b"), "pool.tokens.a names 'b' of no source"),
        ],
    )
    def test_a_row_that_is_not_there_is_named(self, tmp_path: Path, rule: TokenSettings, words: str) -> None:
        with pytest.raises(PoolError, match=words):
            self.opened(tmp_path, tokens={"a": rule})

    def test_rules_need_one_vocabulary(self, tmp_path: Path) -> None:
        with pytest.raises(PoolError, match=r"set pool\.vocabulary to union"):
            self.opened(tmp_path, "same")


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [
        ("nowhere", "pool.vocabulary is 'nowhere', which is no folder; give same, union, base"),
        ("empty", "empty has no tokenizer.json"),
        ("gaps", "gaps leave"),
    ],
)
def test_what_cannot_be_a_vocabulary_is_named(tmp_path: Path, vocabulary: str, words: str) -> None:
    save(tmp_path / "x", numbered("ab"))
    save(tmp_path / "y", numbered("cd"), seed=1)
    (tmp_path / "empty").mkdir()
    if vocabulary == "gaps":
        (tmp_path / "x" / "tokenizer.json").write_text(tokenizer({"a": 0, "b": 2}))
        vocabulary, words = "union", "its numbers leave gaps or repeat"
    with pytest.raises(PoolError, match=words):
        open_pool(tmp_path, "x", "y", vocabulary=vocabulary)


def test_models_without_a_readable_tokenizer_are_named(tmp_path: Path) -> None:
    for name in ("x", "y"):
        save(tmp_path / name, numbered("ab"))
    (tmp_path / "y" / "tokenizer.json").rename(tmp_path / "y" / "tokenizer.model")
    with pytest.raises(PoolError, match=r"y has no tokenizer\.json .*save_pretrained"):
        open_pool(tmp_path, "x", "y", vocabulary="union")
    with pytest.raises(PoolError, match=r"y has no tokenizer\.json, to which the other"):
        open_pool(tmp_path, "y", "x", vocabulary="union")


def test_other_embeddings_are_named(tmp_path: Path) -> None:
    save(tmp_path / "x", numbered("ab"))
    save(tmp_path / "y", numbered("cd"))
    (tmp_path / "y" / "model.safetensors").unlink()
    save_checkpoint(tmp_path / "y" / "model.safetensors", {EMBED: np.zeros((2, 4), dtype=np.float32)})
    with pytest.raises(PoolError, match=r"y: its embeddings and head .*\[4\].* are not those of x .*lm_head"):
        open_pool(tmp_path, "x", "y", vocabulary="union")


def test_identity_and_digest_follow_the_vocabulary(tmp_path: Path) -> None:
    save(tmp_path / "x", numbered("ab"))
    save(tmp_path / "y", numbered("ba"), seed=1)

    def told() -> dict[str, tuple[str, str]]:
        pool = open_pool(tmp_path, "x", "y", vocabulary="x")
        return {name: (source.digest(), source.identity()) for name, source in pool.checkpoints.items()}

    before = told()
    assert told() == before
    (tmp_path / "y" / "tokenizer.json").write_text(tokenizer(numbered("ab")))
    after = told()
    assert before["x"] == after["x"]
    assert not set(before["y"]) & set(after["y"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_mutation_of_a_tokenizer_gives_anything_but_a_clear_error_or_tokens(
    tmp_path: Path, data: st.DataObject
) -> None:
    table = json.loads(tokenizer(numbered("ab"), {"c": 2}))
    value = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    )
    where = data.draw(st.sampled_from([table, table["model"], table["added_tokens"][0], table["model"]["vocab"]]))
    where[data.draw(st.sampled_from(sorted(where)))] = data.draw(value)
    text = bytearray(json.dumps(table).encode())
    if data.draw(st.booleans()):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "tokenizer.json").write_bytes(text)
    try:
        found = tokens_of(tmp_path) or {}
    except PoolError:
        return
    assert all(isinstance(token, str) and isinstance(number, int) for token, number in found.items())


class TestTied:
    def save(self, folder: Path, head: str, ties: bool | None, seed: int = 0) -> None:
        arrays = {EMBED: np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32)}
        if head:
            arrays[HEAD] = arrays[EMBED] + (head == "own")
        save_checkpoint(folder / "model.safetensors", arrays)
        (folder / "config.json").write_text(json.dumps({} if ties is None else {"tie_word_embeddings": ties}))

    def pool(self, folder: Path) -> ModelPool:
        pool = open_pool(folder, "x", "y")
        pool.check()
        return pool

    @pytest.mark.parametrize("ties", [True, None])
    def test_a_head_that_says_nothing_is_left_out(self, tmp_path: Path, ties: bool | None) -> None:
        self.save(tmp_path / "x", "", True)
        self.save(tmp_path / "y", "copy", ties)
        pool = self.pool(tmp_path)
        assert [slot.name for slot in pool.layout.slots] == [EMBED]
        assert any("stores 'lm_head.weight', which is tied" in text for text in pool.report().warnings)

    @pytest.mark.parametrize("order", ["xy", "yx"])
    def test_a_head_of_its_own_unties_the_others(self, tmp_path: Path, order: str) -> None:
        self.save(tmp_path / order[0], "", True)
        self.save(tmp_path / order[1], "own", False, seed=1)
        pool = self.pool(tmp_path)
        tied = pool.checkpoints[order[0]]
        assert [slot.name for slot in pool.layout.slots] == [HEAD, EMBED]
        assert np.array_equal(tied.floats(HEAD), tied.floats(EMBED))
        assert not pool.checkpoints["x"].config()["tie_word_embeddings"]
        assert any("is tied to model.embed_tokens.weight, and is merged" in text for text in pool.report().warnings)

    def test_as_mergekit_merges_the_two(self) -> None:
        members = {"tied": "tied/base", "math": "float32/math"}
        pool = ModelPool.open(PoolSettings(members=members), POOLS)
        pool.check()
        builder = Builder(pool)
        segments = (Segment("all", 0, pool.size, (0.6, 0.4)),)
        vector = builder.resolve(Recipe("linear", ("pool:tied", "pool:math"), segments))
        expected = GOLDEN["linear_tied_with_untied"].tensors
        assert {slot.name for slot in pool.layout.slots} == expected.keys()
        for slot in pool.layout.slots:
            found = builder.read(vector, slot, 0, slot.size).reshape(slot.shape)
            np.testing.assert_allclose(found, expected[slot.name], rtol=1e-5, atol=1e-6)

    def test_a_head_is_missed_where_the_config_says_that_it_is_apart(self, tmp_path: Path) -> None:
        self.save(tmp_path / "x", "own", False)
        self.save(tmp_path / "y", "", False)
        with pytest.raises(PoolError, match=r"y: has no tensor 'lm_head\.weight'"):
            self.pool(tmp_path)
