"""What cannot work is refused where it is declared, with a sentence that says what to do."""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial, wraps
from typing import Any

import pytest
from library.models import Parcel
from pydantic import AliasChoices, BaseModel, Field

from listener import ConfigError, Job, Listener


class Either(BaseModel):
    number: int = Field(validation_alias=AliasChoices("number", "id"))


async def one(job: Job) -> None: ...
async def many(jobs: list[Job]) -> None: ...
async def nothing() -> None: ...
async def two(job: Job, other: Job) -> None: ...
async def stream(job: Job) -> AsyncIterator[None]:
    yield


async def mapping(job: dict[str, Any]) -> None: ...
async def number(job: Job[int]) -> None: ...
async def either(job: Job[Either]) -> None: ...
async def unknown(job: "Job[Nowhere]") -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def plain(job): ...
async def typed(job: Job[Parcel]) -> None: ...
async def untyped(job: Job[dict[str, Any]]) -> None: ...
async def defaulted(job: Job, log: object = None) -> None: ...
async def sequence(jobs: Sequence[Job[Parcel]]) -> None: ...


class Sender:
    async def __call__(self, job: Job[Parcel]) -> None: ...
    async def send(self, job: Job[Parcel]) -> None: ...


@wraps(one)
def wrapper(*arguments: Any) -> Any:
    return one(*arguments)


@pytest.mark.parametrize(
    ("function", "options", "text"),
    [
        (None, {}, "@queue('parcels') None: None is no function"),
        (nothing, {}, "it takes () -> None; expected one parameter: Job, because batch_size is not given"),
        (two, {}, "expected one parameter: Job, because batch_size is not given"),
        (two, {"batch_size": 2}, "expected one parameter: list[Job], because batch_size is given"),
        (many, {}, "its parameter is list[listener.core.job.Job]; expected Job, because batch_size is not given"),
        (one, {"batch_size": 2}, "its parameter is listener.core.job.Job; expected list[Job], because batch_size is"),
        (mapping, {}, "its parameter is dict[str, typing.Any]; expected Job, because batch_size is not given"),
        (stream, {}, "it yields; a handler returns its outcome"),
        (number, {}, "Job[int]: expected a pydantic model or a dataclass"),
        (either, {}, "Either: a field is read from one column; AliasChoices(choices=['number', 'id']) names several"),
        (unknown, {}, "an annotation cannot be read (name 'Nowhere' is not defined); import or define the name"),
        (one, {"concurrency": 0}, "concurrency=0: expected a whole number from 1"),
        (one, {"concurrency": True}, "concurrency=True: expected a whole number from 1"),
        (one, {"max_attempts": 1.5}, "max_attempts=1.5: expected a whole number from 1"),
        (many, {"batch_size": -1}, "batch_size=-1: expected a whole number from 1"),
        (one, {"timeout": 0}, "timeout=0: expected a number of seconds above 0"),
        (one, {"timeout": float("inf")}, "timeout=inf: expected a number of seconds above 0"),
        (one, {"timeout": "3s"}, "timeout='3s': expected a number of seconds above 0"),
        (one, {"results": "sent_at"}, "results='sent_at': expected names of columns, such as ('sent_at',)"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(function: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Listener().queue("parcels", **options)(function)
    assert text in str(caught.value)
    assert str(caught.value).startswith("@queue('parcels') ")


@pytest.mark.parametrize(
    ("function", "is_batch"),
    [
        *((each, False) for each in (one, plain, typed, untyped, defaulted, wrapper, Sender(), Sender().send)),
        (partial(two, other=None), False),
        *((each, True) for each in (many, plain, sequence)),
    ],
)
def test_what_can_work_is_taken_and_given_back(function: Callable[..., Any], is_batch: bool) -> None:
    decorate: Any = Listener().queue("parcels", batch_size=5 if is_batch else None)
    assert decorate(function) is function


def test_a_queue_has_one_handler() -> None:
    app = Listener()
    app.queue("parcels")(one)
    with pytest.raises(ConfigError, match="stands there twice"):
        app.queue("parcels")(plain)


def test_a_queue_has_a_name() -> None:
    with pytest.raises(ConfigError, match="expected the name of an attached table"):
        Listener().queue("")(one)


@pytest.mark.parametrize(("name", "queue"), [("orders_inbox", "upload"), ("sync_runs", "sync"), ("import", "import")])
def test_a_queue_of_the_service_has_its_handler(name: str, queue: str) -> None:
    """Attach refuses it, so nobody may be sent there."""
    with pytest.raises(ConfigError, match=f"is the service's own queue {queue}, which `listener run` works on; attach"):
        Listener().queue(name)(one)


def test_a_decorator_without_a_table_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r'takes the name of a table: @app\.queue\("one"\)'):
        Listener().queue(one)  # type: ignore[call-overload]
