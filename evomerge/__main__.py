"""``python -m evomerge``."""

from evomerge.cli import main

main()
