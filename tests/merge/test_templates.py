import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from evomerge.candidate import Recipe, Segment
from evomerge.errors import PoolError
from evomerge.merge.build import Builder
from evomerge.merge.export import export
from evomerge.merge.pool import ModelPool
from evomerge.merge.templates import template_of
from evomerge.settings import PoolSettings
from evomerge.testing.checkpoints import save_checkpoint

ONE, TWO = ("{% for m in messages %}" + mark + "{{ m.content }}{% endfor %}" for mark in "<>")
TALK = [{"role": "user", "content": "ab"}]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def model(folder: Path, template: Any = None, text: str | None = None) -> str:
    """A model whose tokenizer has a template in its config, or in a file of its own."""
    save_checkpoint(folder / "model.safetensors", {"w": np.zeros((2, 3), dtype=np.float32)})
    vocabulary = {"type": "WordLevel", "vocab": {"?": 0, "ab": 1}, "unk_token": "?"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": vocabulary}))
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} | ({"chat_template": template} if template else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    if text:
        (folder / "chat_template.jinja").write_text(text)
    return str(folder)


def spoken(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder).apply_chat_template(TALK, tokenize=False)


def opened(tmp_path: Path, *models: str, **settings: Any) -> ModelPool:
    return ModelPool.open(PoolSettings({f"m{at}": one for at, one in enumerate(models)}, **settings), tmp_path)


@pytest.mark.parametrize("own", [{}, {"template": TWO}, {"text": TWO}, {"template": TWO, "text": TWO}])
def test_an_export_speaks_by_the_given_template(tmp_path: Path, own: dict[str, str]) -> None:
    pool = opened(tmp_path, model(tmp_path / "m", **own), chat_template=ONE)
    recipe = Recipe("linear", ("pool:m0",), (Segment("all", 0, 6, (1.0,)),))
    export(Builder(pool), recipe, (), tmp_path / "out", card="")
    assert spoken(tmp_path / "out") == "<ab"
    assert template_of(tmp_path / "out") == ONE


def test_auto_is_the_one_that_most_models_have(tmp_path: Path) -> None:
    named = [{"name": "tools", "template": ONE}, {"name": "default", "template": TWO}]
    models = [
        model(tmp_path / "a", ONE),
        model(tmp_path / "b"),
        model(tmp_path / "c", f"{TWO}\n"),
        model(tmp_path / "d", named),
        model(tmp_path / "e", ONE, text=f"\n{TWO}"),
    ]
    assert spoken(opened(tmp_path, *models, chat_template="auto").reference_folder) == ">ab"
    assert spoken(opened(tmp_path, *models[:3], chat_template="auto").reference_folder) == "<ab"
    assert opened(tmp_path, models[1], chat_template="auto").reference_folder == tmp_path / "b"
    assert opened(tmp_path, *models).reference_folder == tmp_path / "a"


def test_what_is_no_template_is_refused(tmp_path: Path) -> None:
    pool = opened(tmp_path, model(tmp_path / "m"), chat_template="chatml")
    with pytest.raises(PoolError, match=r"pool\.chat_template is 'chatml', which is no Jinja template; give its text"):
        _ = pool.reference_folder


@pytest.mark.parametrize(("name", "content"), [("tokenizer_config.json", b"{"), ("chat_template.jinja", b"\xff{")])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    model(tmp_path / "m")
    (tmp_path / "m" / name).write_bytes(content)
    for template in ("auto", ONE) if name == "tokenizer_config.json" else ("auto",):
        with pytest.raises(PoolError, match=f"{name}.*download the tokenizer again|cannot read .*{name}"):
            _ = opened(tmp_path, str(tmp_path / "m"), chat_template=template).reference_folder
