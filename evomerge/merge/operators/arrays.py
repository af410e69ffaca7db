"""What lets one text of an operator run on numpy arrays and on torch tensors: the Python array API standard."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def namespace(array: Any) -> Any:
    """The functions that go with an array: numpy itself, or torch under the standard's names."""
    if isinstance(array, np.ndarray):
        return np
    import array_api_compat

    return array_api_compat.array_namespace(array)


def beside(values: NDArray[Any], array: Any) -> Any:
    """``values`` where ``array`` is: themselves beside a numpy array, a copy on its device beside a torch tensor."""
    if isinstance(array, np.ndarray):
        return values
    return namespace(array).asarray(np.array(values), device=array.device)
