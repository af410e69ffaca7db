"""evomerge merge: from a recipe file to a folder."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from evomerge.testing.checkpoints import save_checkpoint

POOL = "pool: {base: models/base, members: {math: models/math, code: models/code}}\n"
MERGE = """\
merge:
  operator: task_arithmetic
  parameters:
    lambda:
      math: [{filter: "*.mlp", value: [0.2, 0.8]}, {value: 0.5}]
      code: 0.25
"""
SHAPES = {"embed": (6, 4), **{f"layers.{layer}.{name}": (4, 4) for layer in range(2) for name in ("mlp", "attn")}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with recipe.yml and three models of two layers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    random = np.random.default_rng(3)
    for name in ("base", "math", "code"):
        tensors = {name: random.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
        save_checkpoint(tmp_path / "models" / name / "model.safetensors", tensors)
    Path("recipe.yml").write_text(POOL + MERGE)
    return tmp_path


def expected() -> dict[str, np.ndarray]:
    base, math, code = (load_file(f"models/{name}/model.safetensors") for name in ("base", "math", "code"))
    share = dict.fromkeys(SHAPES, 0.5) | {"layers.0.mlp": 0.2, "layers.1.mlp": 0.8}
    return {n: base[n] + share[n] * (math[n] - base[n]) + 0.25 * (code[n] - base[n]) for n in SHAPES}


def test_a_merge_is_what_the_recipe_says(evomerge: Any, folder: Path) -> None:
    ended = evomerge("merge", "recipe.yml", "--out", "out")
    assert (ended.code, ended.out.startswith("wrote out: recipe ")) == (0, True)
    assert "/s)" in ended.err
    for name, tensor in load_file("out/model.safetensors").items():
        np.testing.assert_allclose(tensor, expected()[name], rtol=1e-5, atol=1e-6)
    card = Path("out/README.md").read_text()
    assert "task_arithmetic of math, code over base" in card
    assert "| merge | lambda | math | 0.2, 0.8 | layers.\\*.mlp |" in card
    assert "| all | 0.2500 | 0.2500 |" not in card
    assert MERGE.strip() in card
    assert json.loads(Path("out/recipe.json").read_text())["digest"] in ended.out


def test_the_dtype_is_the_options_or_else_the_files(evomerge: Any, folder: Path) -> None:
    Path("recipe.yml").write_text(POOL + MERGE + "dtype: float16\n")
    assert evomerge("merge", "recipe.yml", "--out", "a").code == 0
    assert evomerge("merge", "recipe.yml", "--out", "b", "--dtype", "float64").code == 0
    kinds = {name: {tensor.dtype for tensor in load_file(f"{name}/model.safetensors").values()} for name in "ab"}
    assert kinds == {"a": {np.dtype(np.float16)}, "b": {np.dtype(np.float64)}}


def test_shards(evomerge: Any, folder: Path) -> None:
    assert evomerge("merge", "recipe.yml", "--out", "out", "--shard-size", "0.2kB").code == 0
    assert len(list(Path("out").glob("*.safetensors"))) > 1
    whole = {name: tensor for file in Path("out").glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert whole.keys() == SHAPES.keys()


def test_several_recipes_each_in_a_folder_of_its_name(evomerge: Any, folder: Path) -> None:
    Path("half.yml").write_text(POOL + "merge: {operator: linear}")
    ended = evomerge("merge", "recipe.yml", "half.yml", "--out", "out", "--json")
    document = json.loads(ended.out)
    assert [Path(one["folder"]).name for one in document["merges"]] == ["recipe", "half"]
    mean = (
        load_file("models/math/model.safetensors")["embed"] + load_file("models/code/model.safetensors")["embed"]
    ) / 2
    np.testing.assert_allclose(load_file("out/half/model.safetensors")["embed"], mean, rtol=1e-6, atol=1e-7)
    evomerge("merge", "recipe.yml", "--out", "alone")
    assert Path("alone/model.safetensors").read_bytes() == Path("out/recipe/model.safetensors").read_bytes()


def test_a_stored_recipe_is_built_again(evomerge: Any, folder: Path) -> None:
    Path("recipe.yml").write_text(
        POOL + "recipes: {mean: {operator: slerp}}\nmerge: {operator: nearswap, sources: [mean], parameters: {t: 0.1}}"
    )
    evomerge("merge", "recipe.yml", "--out", "out")
    ended = evomerge("merge", "out/recipe.json", "--pool", "recipe.yml", "--out", "again")
    assert ended.code == 0
    assert Path("again/model.safetensors").read_bytes() == Path("out/model.safetensors").read_bytes()
    assert json.loads(Path("again/recipe.json").read_text()) == json.loads(Path("out/recipe.json").read_text())


def test_a_candidate_of_a_study_is_built_again(evomerge: Any, finished: Path) -> None:
    assert evomerge("export", "digits", "out").code == 0
    assert evomerge("merge", "out/recipe.json", "--pool", "study.yaml", "--out", "again").code == 0
    ours, theirs = load_file("again/model.safetensors"), load_file("out/model.safetensors")
    for name, tensor in theirs.items():
        np.testing.assert_allclose(ours[name], tensor, rtol=1e-4, atol=1e-6)


def test_a_dry_run_says_everything_and_writes_nothing(evomerge: Any, folder: Path) -> None:
    before = sorted(Path().rglob("*"))
    ended = evomerge("merge", "recipe.yml", "--out", "out", "--dry-run")
    assert ended.code == 0
    assert sorted(Path().rglob("*")) == before
    for text in ("lambda math = 0.2, 0.8: layers.*.mlp", "88 parameters in 5 tensors", "reads", "writes", "digest"):
        assert text in ended.out
    document = json.loads(evomerge("merge", "recipe.yml", "--dry-run", "--json").out)
    assert document["bytes_written"] == 4 * 88
    assert document["bytes_read"] == 3 * 4 * 88


def test_patterns_without_a_tensor_are_told(evomerge: Any, folder: Path) -> None:
    Path("recipe.yml").write_text((POOL + MERGE).replace("*.mlp", "*.mpl"))
    ended = evomerge("merge", "recipe.yml", "--dry-run")
    assert ended.code == 0
    assert "recipe.yml: line 6: merge.parameters.lambda.math: the pattern '*.mpl' fits no merged tensor" in ended.err


def test_threads_change_no_byte(evomerge: Any, folder: Path) -> None:
    Path("recipe.yml").write_text(POOL + "merge: {operator: ties, parameters: {density: 0.3}}")
    for threads in (1, 3):
        assert evomerge("merge", "recipe.yml", "--threads", threads, "--out", threads).code == 0
    assert Path("1/model.safetensors").read_bytes() == Path("3/model.safetensors").read_bytes()


@pytest.mark.parametrize("further", [["--dry-run"], ["--out", "out"]])
def test_impossible_combinations_are_bad_input(evomerge: Any, folder: Path, further: list[str]) -> None:
    weights = "{math: 0.5, code: -0.5}"
    Path("recipe.yml").write_text(
        POOL + f"merge: {{operator: linear, options: {{normalize: true}}, parameters: {{weight: {weights}}}}}"
    )
    ended = evomerge("merge", "recipe.yml", *further)
    assert (ended.code, "linear cannot normalize the weights (0.5, -0.5): they sum to zero" in ended.err) == (2, True)
    assert not Path("out").exists()


def test_other_pools_and_dtypes_are_built_apart(evomerge: Any, folder: Path) -> None:
    Path("half.yml").write_text(POOL + "merge: {operator: linear}\ndtype: float16")
    Path("further").mkdir()
    Path("further/same.yml").write_text(POOL.replace("models/", "../models/") + "merge: {operator: linear}")
    Path("further/other.yml").write_text("pool: {members: {a: ../models/code}}\nmerge: {operator: passthrough}")
    files = ["recipe.yml", "half.yml", "further/same.yml", "further/other.yml"]
    assert evomerge("merge", *files, "--out", "out").code == 0
    for file in files:
        name = Path(file).stem
        assert evomerge("merge", file, "--out", f"alone/{name}").code == 0
        alone, together = (Path(f"{where}/{name}/model.safetensors").read_bytes() for where in ("alone", "out"))
        assert alone == together


def no_model() -> None:
    Path("models/code/model.safetensors").unlink()


def another_shape() -> None:
    Path("models/code/model.safetensors").unlink()
    shapes = SHAPES | {"embed": (5, 4)}
    save_checkpoint(
        Path("models/code/model.safetensors"), {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    )


def occupied() -> None:
    Path("out").mkdir()
    Path("out/file").write_text("mine")


def typo() -> None:
    Path("recipe.yml").write_text(POOL + MERGE.replace("operator: task_arithmetic", "operator: task_arithmetics"))


def nothing() -> None:
    """All is well but the arguments."""


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (nothing, ["nowhere.yml", "--out", "out"], "there is no recipe file nowhere.yml; docs/merging.md"),
        (nothing, ["recipe.yml"], "nothing says where to write; give a folder with --out"),
        (nothing, ["recipe.yml", "recipe.yml", "--out", "out"], "two recipes are called recipe"),
        (nothing, ["recipe.yml", "--out", "out", "--dtype", "float12"], "unknown dtype 'float12'; choose one of"),
        (
            nothing,
            ["recipe.yml", "--out", "out", "--shard-size", "much"],
            "--shard-size is 'much'; give a size such as",
        ),
        (occupied, ["recipe.yml", "--out", "out"], "out exists and is not empty; choose another folder or remove it"),
        (
            typo,
            ["recipe.yml", "--out", "out"],
            "recipe.yml:3: merge: unknown operator 'task_arithmetics'; did you mean",
        ),
        (no_model, ["recipe.yml", "--out", "out"], "models/code"),
        (another_shape, ["recipe.yml", "--out", "out"], "code: tensor 'embed' has shape [5, 4] instead of [6, 4]"),
        (nothing, ["models/base/model.safetensors", "--out", "out"], "model.safetensors"),
    ],
)
def test_wrong_input(
    evomerge: Any, folder: Path, spoil: Callable[[], None], arguments: list[str], message: str
) -> None:
    spoil()
    before = sorted(Path().rglob("*"))
    ended = evomerge("merge", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert sorted(Path().rglob("*")) == before


def test_wrong_stored_recipes(evomerge: Any, folder: Path) -> None:
    evomerge("merge", "recipe.yml", "--out", "out")
    stored = Path("out/recipe.json")
    text = stored.read_text()
    ended = evomerge("merge", stored, "--out", "again")
    assert (ended.code, "name a study or recipe file with --pool" in ended.err) == (2, True)
    Path("changed.json").write_text(text.replace("0.25", "0.75"))
    ended = evomerge("merge", "changed.json", "--pool", "recipe.yml", "--out", "again")
    assert (ended.code, "was changed: its recipe has the digest" in ended.err) == (2, True)
    Path("other.json").write_text("{}")
    ended = evomerge("merge", "other.json", "--pool", "recipe.yml", "--out", "again")
    assert (ended.code, "is no recipe.json of an export" in ended.err) == (2, True)
    ordered = Path("ordered.yml")
    ordered.write_text(POOL.replace("code}}", "code}, order: ['layers*']}") + MERGE)
    ended = evomerge("merge", stored, "--pool", ordered, "--out", "again")
    assert (ended.code, "another order than the recipe was made for" in ended.err) == (5, True)
    Path("models/math/model.safetensors").unlink()
    save_checkpoint(
        Path("models/math/model.safetensors"), {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    )
    ended = evomerge("merge", stored, "--pool", "recipe.yml", "--out", "again")
    assert (ended.code, "pool content of math is not what the recipe was made with" in ended.err) == (5, True)
    assert not Path("again").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(start: Any, folder: Path, number: int) -> None:
    random = np.random.default_rng(0)
    for name in ("base", "math", "code"):
        tensors = {f"layers.{layer}.mlp": random.random((1024, 1024), np.float32) for layer in range(24)}
        save_checkpoint(Path(f"large/{name}/model.safetensors"), tensors)
    Path("large.yml").write_text(POOL.replace("models/", "large/") + "merge: {operator: linear}")
    running = start("merge", "large.yml", "--out", "out")
    running.wait_until(lambda: any(Path().glob(".out.*.partial/*.safetensors")))
    running.signal(number)
    ended = running.end()
    assert ended.code == 130
    assert "interrupted; nothing was left behind" in ended.err
    assert not list(Path().glob("*out*"))


def test_a_plain_merge_imports_nothing_heavy(folder: Path) -> None:
    code = """
import sys
from evomerge import cli
sys.argv = ["evomerge", "merge", "recipe.yml", "--out", "out"]
try:
    cli.main()
except SystemExit as end:
    assert not end.code
heavy = {"torch", "transformers", "safetensors", "huggingface_hub", "ray", "sqlalchemy", "cma"}
print(heavy & set(sys.modules) or "none")
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"}
    )
    assert result.stdout.splitlines()[-1] == "none"


MERGEKIT = """\
merge_method: task_arithmetic
base_model: models/base
models:
  - {model: models/math, parameters: {weight: [{filter: mlp, value: [0.2, 0.8]}, {value: 0.5}]}}
  - {model: models/code, parameters: {weight: 0.25, densty: 1}}
"""


def test_a_mergekit_yaml_is_merged(evomerge: Any, folder: Path) -> None:
    Path("mk.yml").write_text(MERGEKIT)
    ended = evomerge("merge", "mk.yml", "--out", "out")
    assert ended.code == 0
    assert "mk.yml: line 5: densty is left out: task_arithmetic has no such parameter in mergekit" in ended.err
    for name, tensor in load_file("out/model.safetensors").items():
        np.testing.assert_allclose(tensor, expected()[name], rtol=1e-5, atol=1e-6)


def test_a_mergekit_yaml_is_imported(evomerge: Any, folder: Path) -> None:
    Path("mk.yml").write_text(MERGEKIT)
    printed = evomerge("import-mergekit", "mk.yml")
    assert (printed.code, "densty is left out" in printed.err) == (0, True)
    Path("further").mkdir()
    assert evomerge("import-mergekit", "mk.yml", "--out", "further/recipe.yml").code == 0
    assert "base: ../models/base" in Path("further/recipe.yml").read_text()
    evomerge("merge", "further/recipe.yml", "--out", "a")
    evomerge("merge", "mk.yml", "--out", "b")
    assert Path("a/model.safetensors").read_bytes() == Path("b/model.safetensors").read_bytes()
    Path("printed.yml").write_text(printed.out)
    evomerge("merge", "printed.yml", "--out", "c")
    assert Path("c/model.safetensors").read_bytes() == Path("b/model.safetensors").read_bytes()
    again = evomerge("import-mergekit", "mk.yml", "--out", "further/recipe.yml")
    assert (again.code, "further/recipe.yml exists and is not overwritten" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MERGEKIT.replace("task_arithmetic", "task_arithmetik"), "mk.yml:1: the merge method 'task_arithmetik'"),
        (MERGEKIT.replace("weight: 0.25", "weight: lots"), "mk.yml:5: weight is 'lots'; give a number"),
        (
            MERGEKIT.replace("task_arithmetic", "ties").replace("0.25", "0.25, density: 2"),
            "merge.parameters.density.code: density = 2.0 is impossible",
        ),
    ],
)
def test_wrong_mergekit_yamls(evomerge: Any, folder: Path, text: str, message: str) -> None:
    Path("mk.yml").write_text(text)
    ended = evomerge("merge", "mk.yml", "--out", "out")
    assert (ended.code, message in " ".join(ended.err.split())) == (2, True)
    assert not Path("out").exists()


def test_a_recipe_as_a_mergekit_yaml(evomerge: Any, folder: Path) -> None:
    assert evomerge("merge", "recipe.yml", "--mergekit", "--out", "mk.yml").code == 0
    written = Path("mk.yml").read_text()
    assert "merge_method: task_arithmetic" in written
    evomerge("merge", "mk.yml", "--out", "a")
    evomerge("merge", "recipe.yml", "--out", "b")
    ours, again = (json.loads(Path(f"{name}/recipe.json").read_text())["digest"] for name in "ba")
    assert ours == again
    Path("swap.yml").write_text(POOL + "merge: {operator: linear}")
    ended = evomerge("merge", "recipe.yml", "swap.yml", "--mergekit", "--out", "both")
    assert ended.code == 0
    assert sorted(path.name for path in Path("both").iterdir()) == ["recipe.yml", "swap.yml"]


def test_what_mergekit_cannot_say(evomerge: Any, folder: Path) -> None:
    Path("widen.yml").write_text(POOL + "merge: {operator: widen}")
    ended = evomerge("merge", "recipe.yml", "widen.yml", "--mergekit", "--out", "out")
    assert ended.code == 2
    assert "the recipe cannot be written for mergekit: mergekit has no method like widen" in ended.err
    assert not Path("out").exists()


def test_a_candidate_as_a_mergekit_yaml(evomerge: Any, finished: Path) -> None:
    ended = evomerge("export", "digits", "seed.yml", "--candidate", 0, "--mergekit", "--dtype", "bfloat16")
    assert ended.code == 0
    assert "out_dtype: bfloat16" in Path("seed.yml").read_text()
    document = json.loads(evomerge("export", "digits", "again.yml", "-c", 0, "--mergekit", "--json").out)
    assert document["file"].endswith("again.yml")
    split = evomerge("export", "digits", "winner.yml", "--mergekit")
    assert split.code == 2
    assert "its values change within the tensor" in split.err
    assert not Path("winner.yml").exists()
