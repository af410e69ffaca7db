"""Model cards: the README.md that goes with merged weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np

from evomerge.candidate import Recipe
from evomerge.merge.build import Builder
from evomerge.merge.table import Table
from evomerge.recipes import describe
from evomerge.recipes.file import HUB
from evomerge.recipes.job import Job

Shares = Mapping[str, Mapping[str, float]]
"""Mean coefficient of each model in each parameter group."""


def front(*lines: str) -> str:
    """The metadata that the Hugging Face hub reads."""
    return "\n".join(["---", *lines, "tags:", "- merge", "- evomerge", "---"])


def shares(builder: Builder, recipe: Recipe, ancestors: Sequence[Recipe]) -> Shares | None:
    """Mean coefficients; ``None`` where the model is no linear combination of the pool."""
    if any(one.noise is not None for one in (recipe, *ancestors)):
        return None
    table = builder.resolve(recipe, ancestors)
    if not isinstance(table, Table):
        return None
    return {
        group: dict(zip(builder.pool.sources, (np.diff(bounds) @ rows / bounds[-1]).tolist(), strict=True))
        for group, (bounds, rows) in table.parts.items()
    }


def coefficients(found: Shares | None) -> str:
    """A table of mean coefficients."""
    if found is None:
        return (
            "It is not a linear combination of the pool alone: there is noise in it, or an operator that is not linear."
        )
    members = list(next(iter(found.values())))
    lines = [f"| group | {' | '.join(members)} |", f"|---|{'---|' * len(members)}"]
    lines += [f"| {group} | {' | '.join(f'{row[name]:.4f}' for name in members)} |" for group, row in found.items()]
    return "Mean weight of each member over the group's parameters.\n\n" + "\n".join(lines)


def listed(pairs: Mapping[str, str]) -> str:
    """A list of names and values."""
    return "\n".join(f"- {name}: `{value}`" for name, value in pairs.items())


def card(job: Job, builder: Builder, title: str, library: str | None = None) -> str:
    """The model card of a merge that was said by hand: what it is, and how to make it again.

    ``library`` is what loads it, where the hub would guess another.
    """
    resolved = job.resolved
    hub = [path.removeprefix(HUB).partition("@")[0] for path in job.places.values() if path.startswith(HUB)]
    steps = [
        f"{at}. {name}: {describe.headline(one, resolved.names)}" for at, (name, one) in enumerate(resolved.parts, 1)
    ]
    sections = [
        front(
            *([f"library_name: {library}"] if library else []),
            *(["base_model:", *(f"- {name}" for name in hub)] if hub else []),
        ),
        f"# {title}",
        f"A merge of {', '.join(job.places)}, made by evomerge. No training took place. `recipe.json` holds the exact "
        "recipe, from which `evomerge merge` builds the model again.",
        "## Merge\n\n" + "\n".join(steps),
        f"## Parameters\n\n{_parameters(job)}",
        f"## Coefficients\n\n{coefficients(shares(builder, resolved.recipe, resolved.ancestors))}",
        f"## Pool\n\n{listed(job.places)}",
        f"## Versions\n\n{listed({name: version(name) for name in ('evomerge', 'numpy')})}",
        f"## Recipe\n\nDigest `{resolved.recipe.digest}`, from `{job.source.path.name}`:\n\n{_quoted(job)}",
    ]
    return "\n\n".join(sections) + "\n"


def _parameters(job: Job) -> str:
    rows = [
        f"| {name} | {line.parameter} | {line.model} | {line.value} | {line.where.replace('*', chr(92) + '*')} |"
        for name, recipe in job.resolved.parts
        for line in describe.lines(recipe, job.resolved, job.pool)
    ]
    if not rows:
        return "None."
    head = ["| recipe | parameter | model | value, first layer to last | where |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _quoted(job: Job) -> str:
    if job.source.path.suffix == ".json":
        return "See `recipe.json`."
    return f"```yaml\n{job.source.text.strip()}\n```"
