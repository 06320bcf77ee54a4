"""No result of a worker that lost its claim is ever written, however late it comes back."""

import signal
from typing import Any

import pytest
from conftest import Database
from queues import until_waiting
from sandbox.server import Client
from waiting import until

from e2e.service import Orders, Service, Services

COUNT = 10
DEADLINE_S = 120

pytestmark = pytest.mark.timeout(300)

FREE = (
    "UPDATE orders_inbox SET status = 'Pending', claim_id = NULL, claimed_by = NULL, claimed_at = NULL"
    " WHERE status = 'Processing'"
)


@pytest.fixture(autouse=True)
def _one_batch_at_a_time(database: Database) -> None:
    configure(database, upload_batch_size=COUNT, upload_concurrency=1, operation_timeout=2, fast_polling_interval=1)


@pytest.mark.parametrize("late_s", [2, 60], ids=["a timeout", "a success"])
def test_a_stopped_process_writes_nothing_over_the_result_of_the_one_that_took_its_rows(
    late_s: int, listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    configure(database, operation_timeout=late_s)  # what the stopped one takes for its own time
    stopped = freeze_in_mid_handler(listeners, orders, api)
    configure(database, operation_timeout=2)
    other = listeners.start().wait_ready()
    orders.wait_uploaded(COUNT, DEADLINE_S)
    before = rows(database)
    assert {row["attempts"] for row in before} == {2}, "a handler that does not end costs an attempt"

    stopped.signal(signal.SIGCONT)
    until_claim_lost(stopped)

    assert rows(database) == before
    assert other.events("Rescued")
    assert not other.events("Claim lost")
    ends([stopped, other], api)


def test_a_stopped_process_leaves_alone_what_another_one_is_working_on(
    listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    configure(database, operation_timeout=60)
    stopped = freeze_in_mid_handler(listeners, orders, api)
    until(lambda: api.stats()["in_flight"] == 0, deadline_s=DEADLINE_S, what="the end of its call")
    api.fault({"latency_s": 8})
    other = listeners.start().wait_ready()
    database.execute(f"{FREE}; NOTIFY listener_wake, 'orders_inbox'")
    until(lambda: api.stats()["in_flight"], deadline_s=DEADLINE_S, what="the other one's call")
    before = rows(database)
    assert {row["status"] for row in before} == {"Processing"}

    stopped.signal(signal.SIGCONT)
    until_claim_lost(stopped)

    assert rows(database) == before, "the claim is the other one's"
    orders.wait_uploaded(COUNT, DEADLINE_S)
    assert not other.events("Claim lost")
    ends([stopped, other], api)


def test_a_settle_that_waited_while_its_rows_were_taken_writes_nothing(
    listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    """The fence is read again after the wait for the row, not only before."""
    api.fault({"latency_s": 0.2})
    service = listeners.start().wait_ready()
    orders.insert(COUNT)
    with database.connect(autocommit=False) as taker:
        taken = until(
            lambda: taker.execute("SELECT id FROM orders_inbox WHERE status = 'Processing' FOR UPDATE").fetchall(),
            deadline_s=DEADLINE_S,
            what="rows being worked on",
        )
        assert len(taken) == COUNT
        until_waiting(database, "order-listener upload settle")
        taker.execute("UPDATE orders_inbox SET claim_id = nextval('listener_claim_id'), attempts = 7")
        taker.commit()
        before = rows(database)
        until_claim_lost(service)
        assert rows(database) == before


def test_a_process_that_is_stopped_right_after_its_claim_does_not_start_on_it(
    listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    """It learns of its claim when the rows have long been somebody else's: it must not even call the API."""
    configure(database, fast_polling_interval=60)  # nothing but the claim comes upon the lock
    stopped = listeners.start().wait_ready()
    configure(database, fast_polling_interval=1)
    with database.connect(autocommit=False) as writer:
        writer.execute("LOCK TABLE orders_inbox IN SHARE MODE")
        Orders(writer).insert(COUNT)
        database.execute("NOTIFY listener_wake, 'orders_inbox'")
        until_waiting(database, "order-listener upload claim")
        stopped.signal(signal.SIGSTOP)
    other = listeners.start()
    orders.wait_uploaded(COUNT, DEADLINE_S)
    before, calls = rows(database), api.stats()["total"]
    known = len(stopped.log())

    stopped.signal(signal.SIGCONT)
    until(lambda: stopped.events("Trouble"), deadline_s=DEADLINE_S, what="the late claim to be noticed")
    ends([stopped, other], api)

    assert rows(database) == before
    assert api.stats()["total"] == calls, "it uploaded what another one had uploaded"
    assert not [line for line in stopped.log()[known:] if "Operation" in line["event"]]


def freeze_in_mid_handler(listeners: Services, orders: Orders, api: Client) -> Service:
    """A process stopped while its call is under way; the call ends without it."""
    api.fault({"latency_s": 0.5})
    service = listeners.start().wait_ready()
    orders.insert(COUNT)
    until(lambda: api.stats()["in_flight"] == 1, what="its call")
    service.signal(signal.SIGSTOP)
    assert not api.held(), "stopped too late"
    return service


def until_claim_lost(service: Service) -> None:
    lines = until(
        lambda: service.events("Claim lost"), deadline_s=DEADLINE_S, what=f"the fence; log: {service.log_text[-1500:]}"
    )
    assert sum(line["count"] for line in lines) == COUNT
    assert f'listener_claims_lost_total{{queue="upload"}} {COUNT}.0' in service.get("/metrics")[1]


def rows(database: Database) -> list[dict[str, Any]]:
    """All rows; xmin tells of any write, also of one that changed nothing."""
    found = database.execute("SELECT to_jsonb(o) || jsonb_build_object('xmin', o.xmin::text) FROM orders_inbox AS o")
    return sorted((row for (row,) in found), key=lambda row: row["id"])


def configure(database: Database, **values: int) -> None:
    for key, value in values.items():
        database.execute(
            "INSERT INTO configuration_params VALUES (%s, %s)"
            " ON CONFLICT (param_key) DO UPDATE SET param_value = EXCLUDED.param_value",
            [key, str(value)],
        )


def ends(running: list[Service], api: Client) -> None:
    assert len(api.held()) == COUNT
    assert api.stats()["overlaps"] == 0
    for service in running:
        assert service.stop() == 0
