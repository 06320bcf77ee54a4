"""pgqueuer with asyncpg, as its documentation has it; needs the group `bench`.

python -m bench.engines.pgqueuer URL MODE STAMPS QUEUE…
"""

import asyncio
import json
import sys

from bench.engines.base import FILLING, Engine, Stamps

# What its `enqueue` sends: the row and its line in the log.
_ROW = f"""
WITH inserted AS (
    INSERT INTO pgqueuer (priority, entrypoint, payload, execute_after, status)
    SELECT 0, 'orders', convert_to(json_build_object('seq', {{seq}}, 'text', '{FILLING}')::text, 'UTF8'), now(),
           'queued'
    {{source}}
    RETURNING id, entrypoint, priority
) INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority)
SELECT id, 'queued', entrypoint, priority FROM inserted
"""


def install(url: str, _queues: tuple[str, ...]) -> None:
    import asyncpg
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.queries import Queries

    async def make() -> None:
        conn = await asyncpg.connect(url)
        await Queries(AsyncpgDriver(conn)).install()
        await conn.close()

    asyncio.run(make())


ENGINE = Engine(
    name="pgqueuer",
    module="bench.engines.pgqueuer",
    install=install,
    insert=_ROW.format(seq="%(seq)s::bigint", source=""),
    fill=_ROW.format(seq="n", source="FROM generate_series(0, %(rows)s - 1) AS n"),
    unfinished="SELECT EXISTS (SELECT FROM pgqueuer)",
    begun="SELECT EXISTS (SELECT FROM pgqueuer WHERE status = 'picked')",
    needs=("pgqueuer", "asyncpg"),
    scale=0.3,
)


async def main(url: str, mode: str, path: str, *queues: str) -> None:
    import asyncpg
    from pgqueuer import PgQueuer
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.models import Job

    app = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))
    stamps = Stamps(path)

    async def handle(job: Job) -> None:
        stamps.note(json.loads(job.payload or b"{}"))
        if mode == "sleep":
            await asyncio.sleep(0.005)
        elif mode == "hang":
            await asyncio.Event().wait()

    for queue in queues:
        app.entrypoint(queue)(handle)
    if mode == "noop":
        await app.run(batch_size=500)
    elif mode in ("sleep", "hang"):
        await app.run(batch_size=50, max_concurrent_tasks=100)
    else:
        await app.run()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(*sys.argv[1:]))
