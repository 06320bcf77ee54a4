"""A program of somebody's: each row that it has handled is a row of `receipts`; an invoice over 0 is held for ever."""

import os
import sys
from pathlib import Path

import anyio
import psycopg

from listener import Job, Listener

app = Listener()
folder = Path(sys.argv[1])


def note(job: Job) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as conn:
        conn.execute("INSERT INTO receipts VALUES (%s, %s)", [job.queue, job.id])


@app.queue("invoices", concurrency=int(os.environ.get("SHOP_CONCURRENCY", "4")))
async def send(job: Job) -> None:
    if job.row["amount"]:
        (folder / f"begun-{os.getpid()}-{job.id}").touch()
        await anyio.Event().wait()
    note(job)


@app.queue("emails", concurrency=4)
def write(job: Job) -> None:
    note(job)


for name in filter(None, os.environ.get("SHOP_MORE", "").split(",")):
    app.queue(name)(write)

if __name__ == "__main__":
    app.run()
