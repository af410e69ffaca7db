"""Operators and the engine that builds a model from a recipe."""
