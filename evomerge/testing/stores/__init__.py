"""The parts of `evomerge.testing.store.StoreContract`."""
