"""Contracts to inherit: what every strategy, store, executor, fitness and operator must hold.

Register assertion rewriting before the import, or failures say nothing::

    pytest.register_assert_rewrite("evomerge.testing")
"""
