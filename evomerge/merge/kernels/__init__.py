"""Loops that numpy is too slow for, compiled by numba when they are first used. They release the GIL.

Imported lazily: numba takes a third of a second. Every kernel gives the bytes that a plain numpy expression would.
"""
