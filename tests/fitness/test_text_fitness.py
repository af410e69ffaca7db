import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers, processors

from evomerge.errors import ConfigError
from evomerge.fitness import Fitness, Splits
from evomerge.testing.fitness import FitnessContract
from evomerge_fitness.text import TextClassification, TextSettings
from evomerge_fitness.textfile import read_examples

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = ["the", "a", "good", "bad", "film", "was", "very", "not", "fun", "dull"]
LABELS = ["dull", "fine", "great"]


def write_tokenizer(folder: Path, pad: bool = True, length: int = 12) -> None:
    vocabulary = {word: number for number, word in enumerate(SPECIAL + WORDS)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    padding = {"pad_token": "[PAD]"} if pad else {}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", model_max_length=length, **padding
    ).save_pretrained(folder)


def write_model(folder: Path, vocabulary: int = len(SPECIAL + WORDS), **tokenizer: Any) -> Path:
    config = transformers.DistilBertConfig(
        vocab_size=vocabulary, dim=8, n_layers=1, n_heads=2, hidden_dim=8, max_position_embeddings=16,
        id2label=dict(enumerate(LABELS)), label2id={label: number for number, label in enumerate(LABELS)},
    )  # fmt: skip
    config.architectures = ["DistilBertForSequenceClassification"]
    config.save_pretrained(folder)
    write_tokenizer(folder, **tokenizer)
    return folder


def texts(number: int = 15) -> list[dict[str, Any]]:
    random = np.random.default_rng(3)
    sizes = random.integers(1, 10, number)
    labels: list[Any] = [[0, "fine", "2"][kind] for kind in random.integers(0, 3, number)]
    return [
        {"text": " ".join(random.choice(WORDS, size)), "label": label}
        for size, label in zip(sizes, labels, strict=True)
    ]


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(path: Path, rows: list[Any]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    return path


class TestTextContract(FitnessContract):
    def make(self, splits: Splits, folder: Path) -> Fitness:
        return TextClassification(TextSettings(str(write_lines(folder / "data.jsonl", texts())), batch=4), splits)

    def checkpoint(self, folder: Path) -> Path:
        return write_model(folder)


def filled(fitness: TextClassification, folder: Path) -> Any:
    model = fitness.skeleton(folder)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("write", [write_lines, write_csv])
def test_equals_one_text_at_a_time(tmp_path: Path, write: Any) -> None:
    rows = texts()
    suffix = {write_lines: "jsonl", write_csv: "csv"}[write]
    path = write(tmp_path / f"data.{suffix}", rows)
    fitness = TextClassification(TextSettings(path.name, batch=4), Splits(((0, 15),)))
    fitness.root = tmp_path
    model = filled(fitness, write_model(tmp_path / "model"))
    score = fitness.score(model, "search")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    for item, row in enumerate(rows):
        logits = model(**tokenizer(row["text"], return_tensors="pt")).logits
        label = LABELS.index(row["label"]) if row["label"] in LABELS else int(row["label"])
        assert score.items is not None
        assert score.losses is not None
        assert score.items[item] == (int(logits.argmax()) == label)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([label]))
        assert score.losses[item] == pytest.approx(float(loss), rel=1e-4, abs=1e-5)


def test_long_texts_are_an_error_or_cut(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "data.jsonl", [{"text": "good film", "label": 1}, {"text": "bad " * 20, "label": 1}])
    model = write_model(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"data\.jsonl:2: the text has 22 tokens, but the model's context is 12"):
        TextClassification(TextSettings(str(path)), Splits(((0, 2),))).check(model)
    cutting = TextClassification(TextSettings(str(path), truncate=True), Splits(((0, 2),)))
    cutting.check(model)
    assert max(batch["input_ids"].shape[1] for batch in cutting._prepare("search").batches) == 12


def test_without_padding_token_texts_go_one_by_one(tmp_path: Path) -> None:
    path, model = write_lines(tmp_path / "data.jsonl", texts()), write_model(tmp_path / "model", pad=False)
    with pytest.raises(ConfigError, match="no padding token; set batch: 1"):
        TextClassification(TextSettings(str(path)), Splits(((0, 15),))).check(model)
    fitness = TextClassification(TextSettings(str(path), batch=1), Splits(((0, 15),)))
    assert fitness.score(filled(fitness, model), "search").items is not None


def test_a_foreign_or_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "data.jsonl", texts())
    fitness = TextClassification(TextSettings(str(path)), Splits(((0, 15),)))
    with pytest.raises(ConfigError, match="beyond the model's vocabulary of 6"):
        fitness.check(write_model(tmp_path / "small", vocabulary=6))
    model = write_model(tmp_path / "model")
    (model / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match="has no tokenizer"):
        fitness.check(model)


@pytest.mark.parametrize(
    ("label", "message"),
    [("fin", r"data\.jsonl:1: label 'fin' .* \(dull, fine, great\)"), (3, "label 3 at item 0"), (-1, "label -1"),
     (True, "True is neither"), (1.5, "1.5 is neither")],
)  # fmt: skip
def test_labels_the_model_lacks_are_refused(tmp_path: Path, label: Any, message: str) -> None:
    path = write_lines(tmp_path / "data.jsonl", [{"text": "good film", "label": label}])
    with pytest.raises(ConfigError, match=message):
        TextClassification(TextSettings(str(path)), Splits(((0, 1),))).check(write_model(tmp_path / "model"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x", "label": 1}\n\n{"text": ', r"a\.jsonl:3: not JSON"),
        ("a.jsonl", "[1]\n", r"a\.jsonl:1: not an object"),
        ("a.jsonl", '{"text": "x"}\n', r"a\.jsonl:1: no field 'label', only text"),
        ("a.jsonl", '{"text": 3, "label": 1}\n', "'text' is 3, not text"),
        ("a.jsonl", "\n", "is empty"),
        ("a.csv", "text,label\nx,1\ny\n", r"a\.csv:3: the row has not the header's 2 columns"),
        ("a.csv", "text,label\nx,1,2\n", r"a\.csv:2: the row has not"),
        ("a.csv", 'text,label\n"x"y,1\n', "not CSV"),
        ("a.csv", "words,label\nx,1\n", "no field 'text', only words, label"),
        ("a.csv", "text,label\n", "is empty"),
        ("a.txt", "x", "neither .jsonl nor .csv"),
        ("a.csv", b"text,label\n\xff,1\n", "not UTF-8"),
        ("a.csv", None, "no data file"),
    ],
)
def test_malformed_files_are_refused_by_line(tmp_path: Path, name: str, content: Any, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message):
        read_examples(tmp_path / name)


def test_scoring_before_skeleton_says_so(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "data.jsonl", texts())
    with pytest.raises(ConfigError, match="before skeleton"):
        TextClassification(TextSettings(str(path)), Splits(((0, 15),))).score(None, "search")
