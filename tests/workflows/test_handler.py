"""The upload handler with the real client against the sandbox: one outcome per order, and no order pays for another."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from sandbox.server import Client, order, serving
from waiting import until_async

from listener.clients.shipstation.client import ShipStation
from listener.core.budget import Permit, RateHeaders, Refusal
from listener.core.job import Job
from listener.core.outcome import Done, Fail, Outcome, Retry
from listener.workflows.upload.handler import Upload

pytestmark = pytest.mark.anyio

PAYLOAD = {
    "order_date": "2026-11-20T14:03:00Z",
    "ship_to": {"name": "A Buyer", "street1": "1 Main St", "city": "Austin", "postal_code": "78701", "country": "US"},
    "items": [{"line_item_key": "1", "sku": "ABC", "name": "Thing", "quantity": 2, "unit_price": "9.99"}],
}


class Budget:
    """A budget without a limit, which remembers what it was told."""

    def __init__(self) -> None:
        self.out = 0
        self.told: list[str] = []

    async def take(self) -> Permit | Refusal:
        self.out += 1
        return Permit(window=1)

    async def give_back(self, permit: Permit) -> None:
        self.out -= 1

    async def report_ok(self, permit: Permit, headers: RateHeaders) -> None:
        self.told.append("ok")

    async def report_unavailable(self, permit: Permit, *, reason: str, message: str, wait_s: float | None) -> None:
        self.told.append(reason)


@pytest.fixture
def api() -> Iterator[Client]:
    with serving(seed=1) as api:
        yield api


@pytest.fixture
def budget() -> Budget:
    return Budget()


@pytest.fixture
async def client(api: Client, budget: Budget) -> AsyncIterator[ShipStation]:
    async with ShipStation(
        "http://{}:{}".format(*api.address),
        key="sandbox-key",
        secret="sandbox-secret",
        timeout_s=30.0,
        budget=budget,
        publish=lambda _event: None,
    ) as client:
        yield client


@pytest.fixture
def upload(client: ShipStation) -> Upload:
    return Upload(client, client.account)


def job(number: str | None, *, payload: Any = PAYLOAD, attempt: int = 1, **row: Any) -> Job:
    values = {"source": "shop", "order_number": number, "order_key": f"shop-{number}"}
    return Job(
        queue="upload", id=number, claim_id=1, attempt=attempt, revision=0, row={**values, "payload": payload, **row}
    )


def jobs(count: int, **options: Any) -> list[Job]:
    return [job(str(number), **options) for number in range(1, count + 1)]


def kinds(outcomes: list[Outcome]) -> list[str]:
    return [type(outcome).__name__ for outcome in outcomes]


def sizes(api: Client) -> list[int]:
    """How many orders each call to the API carried."""
    return [call["orders"] for call in api.control("GET", "requests?last=2000")["requests"]]


def keys(api: Client) -> set[str]:
    return set(api.held())


async def run(upload: Upload, batch: list[Job]) -> list[Outcome]:
    outcomes = list(await upload(batch))
    assert len(outcomes) == len(batch)
    return outcomes


async def test_a_hundred_orders_are_one_call(upload: Upload, api: Client) -> None:
    outcomes = await run(upload, jobs(100))

    held = api.held()
    assert sizes(api) == [100]
    assert [outcome.values for outcome in outcomes if isinstance(outcome, Done)] == [
        {
            "order_key": f"shop-{number}",
            "shipstation_order_id": str(held[f"shop-{number}"]["orderId"]),
            "uploaded_at": "now",
        }
        for number in range(1, 101)
    ]


@pytest.mark.parametrize(
    "fault",
    [{"shuffle": True}, {"unknown_fields": True}, {"shuffle": True, "unknown_fields": True, "big_ids": True}],
)
async def test_results_are_matched_by_key_whatever_else_is_in_them(
    upload: Upload, api: Client, fault: dict[str, Any]
) -> None:
    api.fault(fault)

    outcomes = await run(upload, jobs(20))

    for number, outcome in enumerate(outcomes, start=1):
        assert isinstance(outcome, Done)
        stored = api.held()[f"shop-{number}"]["orderId"]
        shift = 9_100_000_000_000_000 if fault.get("big_ids") else 0
        assert outcome.values["shipstation_order_id"] == str(stored + shift)


async def test_results_without_an_id_are_successes(upload: Upload, api: Client) -> None:
    api.fault({"null_fields": ["orderId"]})

    [outcome] = await run(upload, jobs(1))

    assert outcome == Done({"order_key": "shop-1", "uploaded_at": "now"})


async def test_an_order_without_a_result_is_tried_again(upload: Upload, api: Client) -> None:
    api.fault({"drop_result": True})

    outcomes = await run(upload, jobs(5))

    assert kinds(outcomes) == ["Done", "Done", "Retry", "Done", "Done"]
    assert outcomes[2] == Retry("ShipStation's reply has no result for orderKey shop-3")


async def test_errors_of_single_orders_are_theirs_alone(upload: Upload, api: Client) -> None:
    api.fault({"order_error": {"2": "'Ship Name' must not be empty.", "4": "Execution Timeout Expired."}})

    outcomes = await run(upload, jobs(5))

    assert kinds(outcomes) == ["Done", "Fail", "Done", "Retry", "Done"]
    assert outcomes[1] == Fail("ShipStation refused the order: 'Ship Name' must not be empty.")


@pytest.mark.parametrize("culprit", [1, 4, 7])
async def test_a_refused_call_is_halved_until_the_culprit_stands_alone(
    upload: Upload, api: Client, culprit: int
) -> None:
    api.fault({"reject_400": [str(culprit)], "message": "Path '[0].items' is wrong."})

    outcomes = await run(upload, jobs(7))

    assert outcomes[culprit - 1] == Fail("ShipStation answered 400: Path '[0].items' is wrong.")
    assert kinds(outcomes).count("Done") == 6
    assert keys(api) == {f"shop-{number}" for number in range(1, 8) if number != culprit}


async def test_one_poisoned_order_is_found_and_charged(upload: Upload, api: Client, budget: Budget) -> None:
    api.fault({"poison": ["3"]})

    for _ in range(20):  # sometimes it is drawn as the witness, and the API seems to be down
        outcomes = await run(upload, jobs(10))
        if "Done" in kinds(outcomes):
            break
        assert kinds(outcomes) == ["Release"] * 10

    assert kinds(outcomes) == ["Done"] * 2 + ["Retry"] + ["Done"] * 7
    assert keys(api) == {f"shop-{number}" for number in range(1, 11) if number != 3}
    assert budget.told[-1] != "outage"


async def test_a_poisoned_order_that_was_charged_before_costs_two_calls(upload: Upload, api: Client) -> None:
    api.fault({"poison": ["bad"]})

    outcomes = await run(upload, [job("bad", attempt=2), *jobs(99)])

    assert kinds(outcomes) == ["Retry"] + ["Done"] * 99
    assert sizes(api) == [100, 99, 1]


async def test_a_poisoned_order_alone_is_charged_and_pauses_nobody(upload: Upload, api: Client, budget: Budget) -> None:
    api.fault({"poison": ["1"]})

    for attempt in (1, 2):
        [outcome] = await run(upload, jobs(1, attempt=attempt))

        assert isinstance(outcome, Retry)
        assert outcome.error.startswith("ShipStation answered 500: An error has occurred.")
    assert "outage" not in budget.told


async def test_poisoned_orders_that_were_charged_before_pause_nobody(
    upload: Upload, api: Client, budget: Budget
) -> None:
    api.fault({"poison": ["1", "2"]})

    outcomes = await run(upload, jobs(2, attempt=2))

    assert kinds(outcomes) == ["Retry", "Retry"]
    assert "outage" not in budget.told


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 100])
async def test_a_500_for_everything_is_charged_to_nobody(
    upload: Upload, api: Client, budget: Budget, count: int, attempt: int
) -> None:
    api.fault({"status": 500})

    outcomes = await run(upload, jobs(count, attempt=attempt))

    assert kinds(outcomes) == ["Release"] * count
    assert budget.told == ["outage"]
    assert len(sizes(api)) == 2


async def test_a_poisoned_and_a_refused_order_in_one_batch(upload: Upload, api: Client) -> None:
    api.fault({"poison": ["2"]}, {"reject_400": ["5"]})

    for _ in range(20):
        outcomes = await run(upload, jobs(8))
        if "Done" in kinds(outcomes):
            break

    assert kinds(outcomes) == ["Done", "Retry", "Done", "Done", "Fail", "Done", "Done", "Done"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"status": 503}, "outage"),
        ({"status": 429}, "throttled"),
        ({"status": 401}, "credentials"),
        ({"html200": True}, "outage"),
        ({"cut_json": True}, "outage"),
        ({"reset_before": True}, "outage"),
        ({"reset_after": True}, "outage"),
        ({"reset_after": "mid"}, "outage"),
        ({"null_fields": ["results"]}, "outage"),
    ],
)
async def test_the_faults_of_the_api_are_charged_to_nobody(
    upload: Upload, api: Client, budget: Budget, fault: dict[str, Any], reason: str
) -> None:
    api.fault(fault)

    outcomes = await run(upload, jobs(10))

    assert kinds(outcomes) == ["Release"] * 10
    assert budget.told == [reason]


async def test_what_was_answered_before_the_api_went_down_stays_answered(upload: Upload, api: Client) -> None:
    """The call is refused, its first half goes through, and then the API is gone."""
    api.fault({"reject_400": ["8"], "count": 1})
    api.fault({"reject_400": ["8"]}, {"path": "/orders/createorders", "latency_s": 0.3})

    outcomes: list[Outcome] = []

    async def work() -> None:
        outcomes.extend(await run(upload, jobs(8)))

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await until_async(lambda: len(api.held()) >= 4, what="the first half")
        api.fault({"status": 503})

    assert kinds(outcomes)[:4] == ["Done"] * 4
    assert set(kinds(outcomes)[4:]) <= {"Done", "Release"}
    assert kinds(outcomes)[-1] == "Release"


async def test_bad_orders_cost_no_call_and_name_all_their_faults(upload: Upload, api: Client, budget: Budget) -> None:
    wrong = {**PAYLOAD, "order_date": "yesterday", "items": [{"name": "Thing", "quantity": 0}]}
    await upload._gate.admit()

    outcomes = await run(upload, [job("1", payload=wrong), job("2", payload="text"), job(" ", payload=wrong)])

    assert kinds(outcomes) == ["Fail"] * 3
    assert isinstance(outcomes[0], Fail)
    assert isinstance(outcomes[2], Fail)
    for path in ("order_date = 'yesterday'", "items[0].quantity = 0", "items[0].sku"):
        assert path in outcomes[0].error
        assert path in outcomes[2].error
    assert "order_number is missing" in outcomes[2].error
    assert outcomes[1] == Fail("payload = 'text': expected an object")
    assert sizes(api) == []
    assert budget.out == 0, "the reserved call was given back"


async def test_bad_orders_leave_their_neighbours_alone(upload: Upload, api: Client) -> None:
    outcomes = await run(upload, [job("1"), job("2", payload=None), job("3"), job(None)])

    assert kinds(outcomes) == ["Done", "Fail", "Done", "Fail"]
    assert sizes(api) == [2]


async def test_an_order_twice_in_an_adopted_table_is_sent_once(upload: Upload, api: Client) -> None:
    outcomes = await run(upload, [job("1"), job("1")])

    assert kinds(outcomes) == ["Done", "Fail"]
    assert outcomes[1] == Fail("order_key 'shop-1' is also that of row 1; change order_number")
    assert sizes(api) == [1]


async def test_a_row_without_a_key_gets_it_from_source_and_number(upload: Upload, api: Client) -> None:
    [outcome] = await run(upload, [job("N" * 45, order_key=None)])

    assert isinstance(outcome, Done)
    assert outcome.values["order_key"] == next(iter(keys(api)))


async def test_an_id_of_another_account_does_not_name_the_order(upload: Upload, api: Client) -> None:
    """The table was tried with a sandbox, or the account was changed: that id is some other order's there."""
    api.create(order("other"))
    [(key, held)] = api.held().items()
    await run(upload, [job("1", shipstation_order_id=str(held["orderId"]))])
    assert set(api.held()) == {key, "shop-1"}
    assert api.held()[key]["writes"] == 1


async def test_a_repeat_updates_and_an_edit_names_the_stored_order(upload: Upload, api: Client) -> None:
    [first] = await run(upload, jobs(1))
    assert isinstance(first, Done)

    await run(upload, jobs(1))
    edited = {**PAYLOAD, "customer_notes": "leave at the door"}
    await run(upload, [job("1", payload=edited)])

    [held] = api.held().values()
    assert held["writes"] == 3
    [shown] = api.get("/orders")["orders"]
    assert shown["customerNotes"] == "leave at the door"


async def test_a_closed_order_is_refused_for_good(upload: Upload, api: Client) -> None:
    api.create(order("1"))
    api.control("POST", "ship", {"orderKey": "shop-1"})

    [outcome] = await run(upload, jobs(1))

    assert isinstance(outcome, Fail)
    assert "shipped" in outcome.error
