from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from evomerge.errors import ConfigError
from evomerge.fitness import Fitness, Splits
from evomerge.testing.fitness import FitnessContract
from evomerge_fitness.image import ImageClassification, ImageSettings

RANDOM = np.random.default_rng(5)
PIXELS = RANDOM.integers(0, 256, (15, 8, 8, 3), dtype=np.uint8)
NUMBERS = RANDOM.integers(0, 3, 15)
NAMED = {"cat": 0, "ape": 1, "dog": 2}


def write_model(folder: Path, processor: bool = False, names: dict[str, int] | None = None) -> Path:
    labels = names or {f"LABEL_{number}": number for number in range(3)}
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4,
        label2id=labels, id2label={number: name for name, number in labels.items()},
    )  # fmt: skip
    config.architectures = ["ViTForImageClassification"]
    config.save_pretrained(folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(
            '{"image_processor_type": "ViTImageProcessor", "do_normalize": true, "do_rescale": true, "do_resize": true,'
            ' "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "resample": 2,'
            ' "rescale_factor": 0.00392156862745098, "size": {"height": 8, "width": 8}}'
        )
    return folder


def write_arrays(path: Path, **arrays: Any) -> Path:
    np.savez(path, **({"images": PIXELS, "labels": NUMBERS} | arrays))
    return path


def write_folders(folder: Path, names: list[str], size: int = 8) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng([len(name), ord(name[0]), number]).integers(0, 256, (size, size), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


class TestImageContract(FitnessContract):
    def make(self, splits: Splits, folder: Path) -> Fitness:
        return ImageClassification(ImageSettings(str(write_arrays(folder / "data.npz")), batch=4), splits)

    def checkpoint(self, folder: Path) -> Path:
        return write_model(folder, processor=True)


class TestImageFoldersContract(TestImageContract):
    splits = Splits(search=((0, 4), (5, 6)), selection=((6, 8),), report=((4, 5), (8, 9)))

    def make(self, splits: Splits, folder: Path) -> Fitness:
        if not (folder / "images").exists():
            write_folders(folder / "images", ["a", "b", "c"], size=11)
        return ImageClassification(ImageSettings(str(folder / "images"), batch=2), splits)


def filled(fitness: ImageClassification, folder: Path) -> Any:
    model = fitness.skeleton(folder)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("processor", [False, True])
def test_equals_the_definition(tmp_path: Path, processor: bool) -> None:
    path = write_arrays(tmp_path / "data.npz")
    fitness = ImageClassification(ImageSettings(path.name, batch=4), Splits(((0, 15),)))
    fitness.root = tmp_path
    model = filled(fitness, write_model(tmp_path / "model", processor))
    score = fitness.score(model, "search")
    x = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255
    logits = model(pixel_values=(x - 0.5) / 0.25 if processor else x).logits
    losses = torch.nn.functional.cross_entropy(logits, torch.from_numpy(NUMBERS), reduction="none")
    assert score.losses is not None
    np.testing.assert_allclose(score.losses, losses.numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(score.items, (logits.argmax(1).numpy() == NUMBERS))


def test_grey_images_become_three_channels(tmp_path: Path) -> None:
    path = write_arrays(tmp_path / "data.npz", images=PIXELS[..., 0])
    fitness = ImageClassification(ImageSettings(str(path)), Splits(((0, 15),)))
    fitness.check(write_model(tmp_path / "model"))
    assert fitness._prepare("search").batches[0]["pixel_values"].shape == (15, 3, 8, 8)


@pytest.mark.parametrize(
    ("folders", "names", "labels"),
    [
        (["ape", "cat", "dog"], NAMED, [1, 0, 2]),
        (["0", "2"], NAMED, [0, 2]),
        (["x", "y"], None, [0, 1]),
        (["LABEL_2", "LABEL_1"], None, [1, 2]),
    ],
)
def test_folder_names_are_labels(tmp_path: Path, folders: list[str], names: Any, labels: list[int]) -> None:
    write_folders(tmp_path / "images", folders)
    fitness = ImageClassification(ImageSettings(str(tmp_path / "images")), Splits(((0, 6),)))
    fitness.check(write_model(tmp_path / "model", names=names))
    assert fitness.labels().tolist() == [label for label in labels for _ in range(3)]


def refuse(data: Path, message: str, model: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageClassification(ImageSettings(str(data)), Splits(((0, 3),))).check(model)


def test_bad_images_are_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", names=NAMED)
    refuse(write_folders(tmp_path / "unknown", ["ape", "cow"]), "unknown/cow: label 'cow'.*cat, ape, dog", model)
    refuse(tmp_path / "model", "has no folders", model)
    (tmp_path / "empty" / "ape").mkdir(parents=True)
    refuse(tmp_path / "empty", "no image files", model)
    broken = write_folders(tmp_path / "broken", ["ape"])
    (broken / "ape" / "1.png").write_text("no image")
    refuse(broken, "cannot read the image .*1.png", model)
    mixed = write_folders(tmp_path / "mixed", ["ape"])
    Image.fromarray(PIXELS[0][:5]).save(mixed / "ape" / "0.png")
    refuse(mixed, "several sizes", model)
    refuse(tmp_path / "none.npz", "no data file", model)
    refuse(write_arrays(tmp_path / "float.npz", images=PIXELS / 255), "must be uint8", model)
    refuse(write_arrays(tmp_path / "few.npz", labels=NUMBERS[:4]), "15 images and 4 labels", model)
    refuse(write_arrays(tmp_path / "high.npz", labels=NUMBERS + 3), "classes are 0 to 2", model)
    (model / "preprocessor_config.json").write_text("{")
    refuse(write_arrays(tmp_path / "data.npz"), "cannot use .*preprocessor_config.json", model)


def test_fingerprint_follows_the_images(tmp_path: Path) -> None:
    def digest(path: Path) -> object:
        return next(iter(ImageClassification(ImageSettings(str(path)), Splits(((0, 3),))).fingerprint().values()))

    folder = write_folders(tmp_path / "images", ["ape"])
    first = digest(folder)
    assert first == digest(folder)
    Image.fromarray(PIXELS[0]).save(folder / "ape" / "1.png")
    assert first != digest(folder)
    assert digest(write_arrays(tmp_path / "a.npz")) != digest(write_arrays(tmp_path / "b.npz", images=255 - PIXELS))
