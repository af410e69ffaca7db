"""A family as plain text: one line a candidate, parents below their child."""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.lineage.family import Family, Relative


def tree_text(family: Family, *, lines: int = 200) -> str:
    """The family tree. A candidate met before is marked and not unfolded again; ``lines`` bounds the length."""
    rows: list[str] = []
    told: set[int] = set()
    for row, number in _walk(family):
        if len(rows) == lines:
            rows.append(f"... and {len(family.relatives.keys() - told):,} more candidates")
            break
        rows.append(row)
        told.add(number)
    return "\n".join(rows)


def _walk(family: Family) -> Iterator[tuple[str, int]]:
    """Rows in depth-first order, without recursion: a stack of (number, prefix of its row, prefix below it)."""
    stack = [(family.root, "", "")]
    shown: set[int] = set()
    while stack:
        number, here, below = stack.pop()
        if number in shown:
            yield f"{here}#{number} (above)", number
            continue
        if number not in family.relatives:
            yield f"{here}#{number} (further back)", number
            continue
        shown.add(number)
        relative = family.relatives[number]
        yield here + describe(relative, family.objective if number == family.root else ""), number
        parents = tuple(dict.fromkeys(relative.candidate.parents))
        for place in range(len(parents) - 1, -1, -1):
            last = place == len(parents) - 1
            stack.append((parents[place], below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))


def describe(relative: Relative, objective: str = "") -> str:
    """One candidate in one line, such as ``#812 crossover, generation 14, accuracy 0.684``."""
    candidate = relative.candidate
    value = "no score" if relative.value is None else f"{objective} {relative.value:.6g}".strip()
    parts = [f"#{candidate.number} {candidate.origin}".strip(), f"generation {candidate.generation}", value]
    if relative.members:
        parts.append("from " + ", ".join(relative.members))
    return ", ".join(parts)
