"""How far the first stage reaches: a fifth of N experts should be kept whole (1), the others dropped (0).

python experiments/evo_merging/reach.py
"""

from __future__ import annotations

import numpy as np

from evomerge.candidate import Evaluated, Score
from evomerge.plugins import load
from evomerge.strategy import Group, Objective, Problem
from evomerge_strategies.evo_merging import EvoMerging
from evomerge_strategies.evo_settings import EvoMergingSettings, Preset, StageSettings

SEEDS = range(1, 6)


def best_alpha(preset: Preset, members: int, seed: int, wanted: np.ndarray) -> np.ndarray:
    """The best of 400 evaluations of mean((alpha - wanted)^2)."""
    names = tuple(f"m{at}" for at in range(members))
    declared = load("operators", "factor_fusion").declaration("factor_fusion")
    objectives = (Objective("loss", "minimize"),)
    problem = Problem(seed, names, (Group("all", 1),), objectives, base="base", operators=(declared,))
    settings = EvoMergingSettings(preset, denoise=StageSettings(penalty=0.0), score_members=False)
    strategy = EvoMerging(settings, problem)
    state, alphas = strategy.start(), []
    while state.told < 400:
        state, asked = strategy.ask(state, 20)
        for candidate in asked:
            alphas.append(np.array(candidate.recipe.segments[0].values[:members]))
            loss = float(((alphas[-1] - wanted) ** 2).mean())
            state = strategy.tell(state, Evaluated(candidate, Score((("loss", loss),))))
    return alphas[strategy.finalists(state)[0]]


def main() -> None:
    print("| N | preset | keep (want 1) | drop (want 0) |\n|---|---|---|---|")
    for members in (20, 100):
        wanted = np.arange(members) < members // 5
        for preset in ("faithful", "improved"):
            found = [best_alpha(preset, members, seed, wanted) for seed in SEEDS]
            keep, drop = (float(np.mean([alpha[mask].mean() for alpha in found])) for mask in (wanted, ~wanted))
            print(f"| {members} | {preset} | {keep:.2f} | {drop:.2f} |", flush=True)


if __name__ == "__main__":
    main()
