"""Operators and the engine that builds a model from a recipe.

From files upwards: `tensorfile` and `checkpoint` read, `layout` and `pool` make one parameter vector of many tensors,
`gram` knows all inner products; `table` and `dense` are the two kinds of vector, `rows` turns a recipe's values into
coefficients through `operators`, `build` composes ancestries, `bind` writes into a live model, `export` to a folder.
`adapters` merges low-rank adapters as factors, `adapter_export` writes an adapter instead of a model.
"""
