"""procrastinate as its documentation has it; needs the group `bench`.

python -m bench.engines.procrastinate URL MODE STAMPS QUEUE…
"""

import asyncio
import sys
from typing import Any

import psycopg

from bench.engines.base import FILLING, Engine, Stamps

_ARGS = f"jsonb_build_object('payload', jsonb_build_object('seq', {{seq}}, 'text', '{FILLING}'))"
_DEFER = """SELECT procrastinate_defer_jobs_v1(ARRAY[
    ROW('orders', 'handle', 0, NULL, NULL, {args}, NULL)::procrastinate_job_to_defer_v1])"""
_TODO = "EXISTS (SELECT FROM procrastinate_jobs WHERE status = 'todo')"
_DOING = "EXISTS (SELECT FROM procrastinate_jobs WHERE status = 'doing')"


def install(url: str, _queues: tuple[str, ...]) -> None:
    from procrastinate.schema import SchemaManager

    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(SchemaManager.get_schema().encode())


ENGINE = Engine(
    name="procrastinate",
    module="bench.engines.procrastinate",
    install=install,
    insert=_DEFER.format(args=_ARGS.format(seq="%(seq)s::bigint")),
    fill=f"{_DEFER.format(args=_ARGS.format(seq='n'))} FROM generate_series(0, %(rows)s - 1) AS n",
    unfinished=f"SELECT {_TODO} OR {_DOING}",
    begun=f"SELECT {_DOING}",
    needs=("procrastinate",),
    scale=0.05,
)


def main(url: str, mode: str, path: str, *queues: str) -> None:
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=url))
    stamps = Stamps(path)

    async def handle(payload: dict[str, Any]) -> None:
        stamps.note(payload)
        if mode == "sleep":
            await asyncio.sleep(0.005)
        elif mode == "hang":
            await asyncio.Event().wait()

    app.task(handle, name="handle")
    app.run_worker(queues=list(queues), concurrency=100)


if __name__ == "__main__":
    main(*sys.argv[1:])
