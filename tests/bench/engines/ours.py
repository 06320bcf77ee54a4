"""The library as its users write it.

python -m bench.engines.ours URL MODE STAMPS QUEUE…
"""

import asyncio
import sys

from bench.engines import table
from bench.engines.base import Engine, Stamps
from listener import Job, Listener

ENGINE = Engine(
    name="ours",
    module="bench.engines.ours",
    install=table.install,
    insert=table.INSERT,
    fill=table.FILL,
    unfinished=table.UNFINISHED,
    begun=table.BEGUN,
)


def main(url: str, mode: str, path: str, *queues: str) -> None:
    app = Listener(database_url=url, http="127.0.0.1:0")
    for queue in queues:
        register(app, queue, mode, Stamps(path))
    app.run()


def register(app: Listener, queue: str, mode: str, stamps: Stamps) -> None:
    """Register the handler of a mode."""

    async def nothing(jobs: list[Job]) -> None:
        pass

    async def five_ms(job: Job) -> None:
        stamps.note(job.row["payload"])
        await asyncio.sleep(0.005)

    async def stamp(job: Job) -> None:
        stamps.note(job.row["payload"])

    async def hang(job: Job) -> None:
        stamps.note(job.row["payload"])
        await asyncio.Event().wait()

    if mode == "noop":
        app.queue(queue, batch_size=500, concurrency=4)(nothing)
    elif mode == "hang":
        app.queue(queue, concurrency=100, timeout=86_400)(hang)
    else:
        app.queue(queue, concurrency=100)({"sleep": five_ms, "stamp": stamp}[mode])


if __name__ == "__main__":
    main(*sys.argv[1:])
