"""What every store must hold; inherit `StoreContract` and say how to open a fresh one.

``factory`` must open the *same*, at first empty database at each call, as another driver would::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def factory(self, tmp_path):
            return lambda **options: MyStore(tmp_path, **options)
"""

from __future__ import annotations

from evomerge.testing.stores.base import Factory
from evomerge.testing.stores.driving import DrivingContract
from evomerge.testing.stores.studies import StudyContract
from evomerge.testing.stores.values import ValueContract

__all__ = ["Factory", "StoreContract"]


class StoreContract(StudyContract, ValueContract, DrivingContract):
    """Inherit, override ``factory``."""
