"""Operators on the factors of adapters, one family a file."""
