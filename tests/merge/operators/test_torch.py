"""What runs on numpy arrays runs on torch tensors, as on an accelerator, and gives the same to rounding."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.merge import merged
from evomerge.testing.operator import OperatorContract
from tests.merge.operators import (
    test_doge,
    test_lines,
    test_model_stock,
    test_opcm,
    test_tsv,
    test_twin,
    test_wudi,
)

CONTRACTS: list[type[OperatorContract]] = [
    test_lines.TestRows,
    test_lines.TestColumnsOfTaskVectors,
    test_model_stock.TestModelStockRows,
    test_wudi.TestWudi,
    test_wudi.TestFromTheSum,
    test_wudi.TestWithPreferences,
    test_tsv.TestTsvMerge,
    test_opcm.TestOpcm,
    test_doge.TestDoge,
    test_twin.TestTwin,
]


class OnTorch(merged.MergedPiece):
    """A piece whose arrays are torch's."""

    @cached_property
    def theta(self) -> Any:
        import torch

        return torch.from_numpy(super().theta)

    def source(self, at: int) -> Any:
        return self.theta[at]


@pytest.mark.parametrize("kind", CONTRACTS, ids=lambda kind: kind.__name__)
def test_torch_tensors_are_merged_like_arrays(
    kind: type[OperatorContract], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = kind()
    pool = contract.make_pool(tmp_path, contract.vectors(1))
    recipe = contract.recipe(contract.values(1))
    expected = contract.build(pool, recipe, "table")
    monkeypatch.setattr(merged, "MergedPiece", OnTorch)
    np.testing.assert_allclose(contract.build(pool, recipe, "table"), expected, rtol=1e-5, atol=1e-5)
