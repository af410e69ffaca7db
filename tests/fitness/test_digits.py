from pathlib import Path

import pytest
import torch

from evomerge.errors import ConfigError
from evomerge_fitness.digits import main, train_seeds
from evomerge_fitness.mlp import load_mlp


def test_each_seed_knows_its_own_digits_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    assert "of its own digits" in capsys.readouterr().out
    for seed in train_seeds(tmp_path / "again"):
        assert 0.93 < seed.own < 0.995
        assert seed.others == 0
        first, again = load_mlp(tmp_path / seed.folder.name), load_mlp(seed.folder)
        for name, tensor in first.state_dict().items():
            torch.testing.assert_close(tensor, again.state_dict()[name], rtol=0, atol=0)


def test_seeds_learn_from_the_search_items_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, part = train_seeds(tmp_path / "whole"), train_seeds(tmp_path / "part", search=((0, 600), (700, 1237)))
    for one, two in zip(whole, part, strict=True):
        assert not torch.equal(load_mlp(one.folder).affines()[0].weight, load_mlp(two.folder).affines()[0].weight)
    with pytest.raises(ConfigError, match="no digit 5 to 9"):
        train_seeds(tmp_path / "few", search=((0, 4),))
    assert main([str(tmp_path), "--search", "0:5000"]) == 2
    assert "1797" in capsys.readouterr().err
