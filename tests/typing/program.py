"""A program as a type checker sees it; the lines that are wrong say which error is expected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_type

from pydantic import BaseModel

from listener import Done, Fail, Job, Listener, Retry, Snooze


class Invoice(BaseModel):
    id: int
    amount: float


@dataclass
class Email:
    id: int
    address: str


app = Listener(database_url="postgresql://localhost/shop", http=False)


@app.queue("invoices", concurrency=20)
async def send(job: Job) -> None:
    assert_type(job.row, Mapping[str, Any])
    job.row["amount"]


@app.queue("typed", max_attempts=3, timeout=5, results=("sent_at",))
async def send_typed(job: Job[Invoice]) -> Done | Retry | Snooze | Fail | None:
    assert_type(job.row, Invoice)
    name = job.row.adress  # error: [attr-defined]
    return Done({"sent_at": name}) if job.row.amount else None


@app.queue("plain")
def send_plain(job: Job[Email]) -> Retry:
    assert_type(job.row, Email)
    return Retry("later")


@app.queue("batch", batch_size=100)
async def send_batch(jobs: list[Job]) -> list[Done | Retry]:
    return [Done() for _ in jobs]


@app.queue("typed_batch", batch_size=100)
def send_typed_batch(jobs: Sequence[Job[Email]]) -> None:
    assert_type(jobs[0].row, Email)


async def call(job: Job[Invoice], plain: Job[Email]) -> None:
    assert_type(await send_typed(job), Done | Retry | Snooze | Fail | None)
    assert_type(send_plain(plain), Retry)
    await send_typed(plain)  # error: [arg-type]


@app.queue("wrong_answer")  # error: [type-var]
async def wrong_answer(job: Job) -> int:
    return 1


@app.queue("wrong_list")  # error: [type-var]
async def wrong_list(jobs: list[Job]) -> None: ...


@app.queue("wrong_one", batch_size=5)  # error: [type-var]
async def wrong_one(job: Job) -> None: ...


@app.queue("wrong_answers", batch_size=5)  # error: [type-var]
async def wrong_answers(jobs: list[Job]) -> list[str]:
    return []


@app.queue("wrong_option", batchsize=5)  # error: [call-overload] [untyped-decorator]
async def wrong_option(job: Job) -> None: ...


async def inside() -> None:
    async with app as running:
        assert_type(running, Listener)
        running.stop()
    app.run(5)  # error: [call-arg]
