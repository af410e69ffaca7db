"""Fitness functions, one kind a file."""
