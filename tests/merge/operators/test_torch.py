"""What runs on numpy arrays runs on torch tensors, as on an accelerator, and gives the same to rounding."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.merge import merged
from evomerge.merge.operators.port import Grain
from evomerge.testing.operator import OperatorContract
from tests.merge.operators import (
    test_aim,
    test_arcee,
    test_breadcrumbs,
    test_compeft,
    test_consensus,
    test_dare,
    test_della,
    test_doge,
    test_fisher,
    test_lines,
    test_model_stock,
    test_opcm,
    test_pcb,
    test_ram,
    test_sce,
    test_ties,
    test_tsv,
    test_twin,
    test_widen,
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
    test_ties.TestTies,
    test_ties.TestTiesMax,
    test_dare.TestDareLinear,
    test_dare.TestDareTiesMeanByCount,
    test_breadcrumbs.TestBreadcrumbsTies,
    test_della.TestDella,
    test_sce.TestSce,
    test_arcee.TestArceeFusion,
    test_ram.TestRamPlus,
    test_aim.TestAIM,
    test_compeft.TestComPEFT,
    test_consensus.TestConsensus,
    test_consensus.TestConsensusTies,
    test_fisher.TestFisher,
    test_pcb.TestPCB,
    test_widen.TestWiden,
]


class OnTorch(merged.MergedPiece):
    """A piece whose arrays are torch's."""

    @cached_property
    def theta(self) -> Any:
        import torch

        return torch.from_numpy(super().theta)

    @property
    def stored(self) -> None:  # type: ignore[override] # which only kernels on a CPU read
        return None

    def source(self, at: int) -> Any:
        return self.theta[at]

    def bits(self, seed: int, source: int) -> Any:
        import torch

        return torch.from_numpy(super().bits(seed, source).astype("int32"))

    def attached(self, kind: str) -> Any:
        import torch

        return torch.from_numpy(super().attached(kind))


@pytest.mark.parametrize("kind", CONTRACTS, ids=lambda kind: kind.__name__)
def test_torch_tensors_are_merged_like_arrays(
    kind: type[OperatorContract], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = kind()
    pool = contract.make_pool(tmp_path, contract.vectors(1))
    recipe = contract.recipe(contract.values(1))
    expected = contract.build(pool, recipe, "table")
    on_cpu = merged.MergedPiece

    def pieces(tensor: merged.MergedTensor, grain: Grain = "element") -> Iterator[merged.MergedPiece]:
        for start, stop in merged.cuts(tensor.slot, grain):
            yield on_cpu(tensor, grain, start, stop)

    monkeypatch.setattr(merged.MergedTensor, "pieces", pieces)  # what is prepared is prepared on the CPU
    monkeypatch.setattr(merged, "MergedPiece", OnTorch)
    np.testing.assert_allclose(contract.build(pool, recipe, "table"), expected, rtol=1e-5, atol=1e-5)
