"""Low-rank adapters: their factors, the operators that merge them as factors, and the models that result."""
