"""A study to start from: merging two specialised digit classifiers. `evomerge init` writes it."""

from __future__ import annotations

from pathlib import Path

SEARCH, SELECTION, REPORT = (0, 1437), (1437, 1617), (1617, 1797)

STUDY = f"""\
# Two small networks each know half of scikit-learn's digits; M2N2 looks for one network that knows all ten.
#   evomerge check study.yaml    what would run, and how long it takes
#   evomerge run study.yaml      run it (some seconds); Ctrl-C stops it
#   evomerge resume study.yaml   go on exactly where it stopped, however it stopped

study: digits          # its name in the database, which is study.db beside this file
seed: 42               # the same seed gives the same study

pool:                  # the models to merge: checkpoint folders, relative to this file
  members:
    low: models/low    # knows 0 to 4
    high: models/high  # knows 5 to 9

fitness:               # what makes a model good
  name: arrays         # right or wrong, and the loss, on every item
  data: digits         # or the path of a .npz file with x and y

splits:                # which items are used for what; no item twice
  search: "{SEARCH[0]}:{SEARCH[1]}"       # what the strategy sees
  selection: "{SELECTION[0]}:{SELECTION[1]}" # chooses the final candidate among the best of the search
  report: "{REPORT[0]}:{REPORT[1]}"    # looked at once, by the final candidate, at the end

strategy:              # how to search: m2n2, gauss_newton, cma, stages and more
  name: m2n2
  population: 20

budget:
  evaluations: 2000

# More, with its defaults:
# window: 8            # candidates out at once; part of the search
# finalists: 10        # how many of the best are compared on the selection split
# executor:
#   kind: inline       # or ray, with more workers; the results are the same
#   threads: 1         # torch threads per worker
# store:
#   url: study.db      # or postgresql://user@host/database
"""


def digits(folder: Path, seed: int) -> str:
    """Train the two networks into ``folder/models`` and return the text of a study file about them."""
    from evomerge_fitness.digits import train_seeds

    train_seeds(folder / "models", seed, (SEARCH,))
    return STUDY
