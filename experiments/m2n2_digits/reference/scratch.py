"""How often does M2N2 from scratch get stuck? A check in JAX that shares no code with evomerge.

Runs in the environment that `make_reference.py` describes::

    reference-env/bin/python experiments/m2n2_digits/reference/scratch.py --first 60 --last 89

and prints, for each key, the best training accuracy after 1,000, 2,000, 5,000 and 10,000 children.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
from make_reference import IMAGES, LABELS, PARAMETERS, TRAIN, cross, logits, loser, payouts, roulette

SLOTS = 20
SPREAD = 0.01
REPORTED = (1000, 2000, 5000, 10_000)


def solved(parameters: jax.Array) -> jax.Array:
    """Which training items a model gets right, as 0 or 1."""
    return (jnp.argmax(logits(parameters, IMAGES[:TRAIN]), axis=1) == LABELS[:TRAIN]).astype(jnp.float32)


@jax.jit
def step(models: jax.Array, rows: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One child: chosen parents, split and mixed, mutated, scored, and put in the place of the least paid."""
    parents, crossover, mutation, key = jax.random.split(key, 4)
    for_a, for_b = jax.random.split(parents)
    for_split, for_w = jax.random.split(crossover)
    shares = payouts(rows)
    a = roulette(jax.random.uniform(for_a, ()), shares.sum(axis=1))
    gains = jnp.maximum(shares - shares[a], 0).sum(axis=1)
    b = jnp.where(gains.sum() > 0, roulette(jax.random.uniform(for_b, ()), gains), 0)
    split, w = jax.random.randint(for_split, (), 0, PARAMETERS), jax.random.uniform(for_w, ())
    child = cross(models[a], models[b], split, w) + SPREAD * jax.random.normal(mutation, (PARAMETERS,))
    row = solved(child)
    slot = loser(rows, row)
    place = jnp.minimum(slot, SLOTS - 1)
    taken = slot < SLOTS
    models = jnp.where(taken, models.at[place].set(child), models)
    return models, jnp.where(taken, rows.at[place].set(row), rows), key


def run(seed: int) -> list[float]:
    """Best training accuracy at the reported steps."""
    key, *starts = jax.random.split(jax.random.PRNGKey(seed), 3)
    models, rows = jnp.zeros((SLOTS, PARAMETERS)), jnp.zeros((SLOTS, TRAIN))
    for slot, start in enumerate(starts):
        model = SPREAD * jax.random.normal(start, (PARAMETERS,))
        models, rows = models.at[slot].set(model), rows.at[slot].set(solved(model))
    found = []
    for children in range(1, REPORTED[-1] + 1):
        models, rows, key = step(models, rows, key)
        if children in REPORTED:
            found.append(round(float(rows.sum(axis=1).max()) / TRAIN, 3))
    return found


def main() -> None:
    """Print one line a key."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=60)
    parser.add_argument("--last", type=int, default=89)
    given = parser.parse_args()
    for seed in range(given.first, given.last + 1):
        print(seed, *run(seed), flush=True)


if __name__ == "__main__":
    main()
