"""Many people and programs change the configuration at once, while several replicas work by it."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from conftest import Database
from waiting import until

from e2e.service import Orders, Service
from e2e.world import World
from listener.config.live import LiveConfig, field_of, read_live_config

WRITERS, CHANGES, REPLICAS = 20, 15, 4
ORDERS = WRITERS * CHANGES
DEADLINE_S = 60

#: Some under two names, which are two rows that follow each other.
VALUES: dict[str, tuple[str, ...]] = {
    "fast_polling_enabled": ("true", "false"),
    "ENABLE_FAST_UPLOAD_POLLING": ("true", "FALSE", "on"),
    "upload_enabled": ("true", "false"),
    "fast_polling_interval": ("200", "300", "400"),
    "FAST_POLLING_INTERVAL": ("250", "350"),
    "sync_interval": ("60", "120"),
    "UNIFIED_SYNC_INTERVAL": ("90", "300"),
    "upload_batch_size": ("3", "10", "100"),
    "UPLOAD_BATCH_SIZE": ("5", "20"),
    "upload_concurrency": ("1", "3"),
    "max_concurrent_operations": ("2", "15"),
    "read_by_nobody": ("1", "2"),
}
UPDATE = "UPDATE configuration_params SET param_value = %(value)s WHERE param_key = %(key)s"
UPSERT = (
    "INSERT INTO configuration_params (param_key, param_value) VALUES (%(key)s, %(value)s)"
    " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value"
)
DELETE = "DELETE FROM configuration_params WHERE param_key = %(key)s"
SET = "SELECT * FROM config_set(%(key)s, %(value)s)"


def test_twenty_writers_and_four_replicas_agree_in_the_end(town: World) -> None:
    replicas = [town.start() for _ in range(REPLICAS)]
    town.api.fault({"latency_s": 0.02})

    assert write_all(town) == [], "no writer is refused, none is a deadlock's victim"

    agree(town, replicas)
    town.configure(fast_polling_enabled=True, enable_fast_upload_polling=True, upload_enabled=True)
    town.orders.wait_uploaded(ORDERS, DEADLINE_S)
    agree(town, replicas)
    held = town.api.held()
    assert len(held) == ORDERS
    assert {each["writes"] for each in held.values()} == {1}
    assert town.api.stats()["overlaps"] == 0
    assert [service.stop() for service in replicas] == [0] * REPLICAS


@pytest.mark.parametrize("statement", ["config_set('upload_enabled', 'true')", "config_restore(now())"])
def test_a_function_and_a_transaction_that_replaces_the_table_take_turns(statement: str, database: Database) -> None:
    """The one that has the table does not wait for a turn that was given to the one that waits for the table."""
    with database.connect() as caller, database.connect() as writer, ThreadPoolExecutor() as threads:
        with writer.transaction():
            writer.execute("TRUNCATE configuration_params")
            called = threads.submit(caller.execute, f"SELECT * FROM {statement}")
            waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = %s"
            until(lambda: database.execute(waits, [caller.info.backend_pid]), what="the caller's wait")
            writer.execute("INSERT INTO configuration_params VALUES ('fast_polling_enabled', 'false')")
        assert called.result(DEADLINE_S)


def write_all(town: World) -> list[BaseException]:
    """Change the configuration in many sessions at once, an order after each change; returns what was refused."""
    faults: list[BaseException] = []

    def write(seed: int) -> None:
        rng = random.Random(seed)
        try:
            with town.database.connect() as conn:
                for number in range(CHANGES):
                    change(conn, rng)
                    Orders(conn).insert(1, prefix=f"W{seed}-{number}")
        except BaseException as error:  # noqa: BLE001 - it is the test's to judge
            faults.append(error)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "a writer still waits for its turn"
    return faults


def change(conn: psycopg.Connection[Any], rng: random.Random) -> None:
    """One transaction: some keys, in any order, by any statement; now and then it is taken back."""
    with conn.transaction(force_rollback=rng.random() < 0.1):
        for key in rng.sample(sorted(VALUES), k=rng.choice([1, 1, 2, 4])):
            by_function = UPSERT if key == "read_by_nobody" else SET  # it takes our keys only
            statement = rng.choice([UPDATE, UPDATE, UPSERT, UPSERT, by_function, DELETE])
            conn.execute(statement, {"key": key, "value": rng.choice(VALUES[key])})


def agree(town: World, replicas: list[Service]) -> None:
    """All have the newest change, and the values that the table has; its spellings of one key are equal."""
    [(newest,)] = town.database.execute("SELECT max(id) FROM configuration_history")
    for service in replicas:
        until(
            lambda each=service: each.metric("listener_config_version") == newest,
            deadline_s=DEADLINE_S,
            what=f"configuration {newest}; log: {service.log_text[-2000:]}",
        )
    rows = town.database.execute("SELECT param_key, param_value FROM configuration_params")
    assert len({(field_of(key), value) for key, value in rows}) == len({field_of(key) for key, _ in rows})
    live = read_live_config(rows, LiveConfig()).config
    for service in replicas:
        assert (
            service.metric("listener_queue_enabled", queue="upload"),
            service.metric("listener_fast_polling_enabled", queue="upload"),
            service.metric("listener_poll_interval_seconds", queue="upload"),
        ) == (live.upload_enabled, live.notifications_enabled("upload"), live.poll_interval_s("upload"))
        assert told(service, live) == {}, "the log tells another value than the table"


def told(service: Service, live: LiveConfig) -> dict[str, tuple[str, str]]:
    """Key → what the log said last, and what is written; of the keys where they differ."""
    last = {line["key"].lower(): line["after"] for line in service.events("Configuration changed")}
    written = {key: str(value).lower() for key, value in live.model_dump().items()}
    return {key: (value, written[key]) for key, value in last.items() if value != written[key]}
