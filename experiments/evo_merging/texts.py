"""The texts of the experiment: what each adapter of the pool learns, and the target that none of them sees."""

from __future__ import annotations

import json
import os
import random
from functools import cache
from pathlib import Path

SHARED = Path(os.environ.get("EVOMERGE_SHARED", Path(__file__).resolve().parents[3] / "shared"))
DATA = SHARED / "data"
BASE = DATA / "stories260K" / "hf"

Texts = list[str]


@cache
def problems(split: str) -> tuple[tuple[str, str], ...]:
    """GSM8K's (question, answer) pairs, the answers without calculator marks and without the final line."""
    lines = (DATA / "gsm8k" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return tuple((one["question"], _plain(one["answer"])) for one in found)


def _plain(answer: str) -> str:
    kept = answer.partition("####")[0].strip()
    while "<<" in kept:
        before, _, rest = kept.partition("<<")
        kept = before + rest.partition(">>")[2]
    return kept


@cache
def stories() -> tuple[str, ...]:
    """TinyStories, in lower case, in pieces of 500 letters."""
    text = (DATA / "tinystories_text" / "tinystories.txt").read_text(encoding="utf-8", errors="replace")
    return tuple(text[at : at + 500] for at in range(0, 4000 * 500, 500))


def shakespeare(part: int) -> Texts:
    """A sixth of tinyshakespeare, in pieces of 400 letters."""
    text = (DATA / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    size = len(text) // 6
    mine = text[part * size : (part + 1) * size]
    return [mine[at : at + 400] for at in range(0, len(mine), 400)]


def target(count: int) -> Texts:
    """Problems and solutions of GSM8K's test set in a form that no adapter saw."""
    return [f"Question: {question}\nAnswer: {answer}" for question, answer in problems("test")[:count]]


def pool() -> dict[str, Texts]:
    """Name and texts of every adapter: near the target, far from it, and of no use to anything."""
    draw = random.Random(1)
    pairs, tales = problems("train"), stories()
    named: dict[str, Texts] = {}
    for at in range(3):
        mine = pairs[at * 600 : (at + 1) * 600]
        named[f"questions{at}"] = [question for question, _ in mine]
        named[f"answers{at}"] = [answer for _, answer in pairs[2000 + at * 600 : 2000 + (at + 1) * 600]]
    named |= {f"plays{at}": shakespeare(at) for at in range(4)}
    named["stories"] = list(tales[:600])
    named["stories_upper"] = [story.upper() for story in tales[600:1200]]
    named["stories_asked"] = [f"Question: {story[:150]}\nAnswer: {story[150:300]}" for story in tales[1200:1800]]
    named["stories_backwards"] = [" ".join(reversed(story.split())) for story in tales[1800:2400]]
    named["stories_shuffled"] = [" ".join(draw.sample(story.split(), len(story.split()))) for story in tales[2400:3000]]
    named["sums"] = [" ".join(_sum(draw) for _ in range(15)) for _ in range(600)]
    named["counting"] = [" ".join(str(draw.randrange(90) + at) for at in range(40)) for _ in range(600)]
    named["records"] = [json.dumps({key: draw.randrange(100) for key in ("id", "age", "size")} | {"name": _word(draw)})
                        for _ in range(600)]  # fmt: skip
    named["alphabet"] = ["".join(chr(97 + (start + at) % 26) for at in range(80)) for start in range(26)] * 20
    named["noise"] = ["".join(chr(draw.randrange(33, 126)) for _ in range(120)) for _ in range(600)]
    return named


def _sum(draw: random.Random) -> str:
    a, b = draw.randrange(100), draw.randrange(100)
    return f"{a} + {b} = {a + b}."


def _word(draw: random.Random) -> str:
    return "".join(draw.choice("bcdfglmnprst") + draw.choice("aeiou") for _ in range(3))
