from collections.abc import Iterator

import pytest
import torch

pytest.register_assert_rewrite("evomerge.testing")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads on two busy cores wait for one another most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
