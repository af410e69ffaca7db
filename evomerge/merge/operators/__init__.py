"""Merge operators: pure functions, one family a file."""
