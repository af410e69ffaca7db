"""A stand-in for a pool server that takes 100 ms for every answer, any number of them at once.

It speaks just enough HTTP to keep its own cost out of what is measured: python slow_server.py SECONDS ITEMS
"""

from __future__ import annotations

import asyncio
import sys

from evomerge.candidate import Recipe
from evomerge.fitness import Splits
from evomerge.strategy import Group, Objective
from evomerge.wire import PROTOCOL, Answer, Limits, Numbers, Offer, Question, dump, load

SECONDS, ITEMS = float(sys.argv[1]), int(sys.argv[2])
OFFER = Offer(
    protocol=PROTOCOL,
    members=("a", "b"),
    base=None,
    groups=(Group("all", 100),),
    operators=("linear",),
    objectives=(Objective("loss", "minimize"),),
    splits=Splits(((0, ITEMS),)),
    items={"search": ITEMS},
    losses=True,
    parts=False,
    noisy=False,
    digest="0" * 32,
    workers=64,
    versions={},
    limits=Limits(1 << 20, 100, 1000, 100, None, None),
)


def answer(body: bytes) -> bytes:
    question = load(Question, body)
    if not isinstance(question.recipe, Recipe):
        raise ValueError("no recipe")
    loss = sum(value * value for value in question.recipe.segments[0].values)
    numbers = Numbers("float64", (loss,) * ITEMS)
    score = (("loss", loss),)
    return dump(Answer(question.recipe.digest, question.split, score, tuple(range(ITEMS)), numbers, numbers))


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        _, announced, rest = head.partition(b"content-length:")
        if announced:
            length = int(rest.split(b"\r\n")[0])
            body = answer(await reader.readexactly(length))
            await asyncio.sleep(SECONDS)
        else:
            body = dump(OFFER)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
