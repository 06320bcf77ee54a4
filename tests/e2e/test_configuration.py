"""Whatever happens to the table, the connections or the session: work goes on with the last good values, the log and
`/readyz` say what is wrong, and what was committed last is in force in the end."""

from typing import Any

import pytest
from waiting import until

from e2e.service import Service
from e2e.world import World

#: No safety poll comes to the help of a change that nobody noticed.
LONG_S = 300
DEADLINE_S = 60
#: Of the value that these tests watch, as it was before.
BEFORE_S = 120


@pytest.fixture(autouse=True)
def _no_safety_polls(town: World) -> None:
    town.configure(fast_polling_interval=BEFORE_S)


@pytest.mark.parametrize("statement", ["DELETE FROM configuration_params", "TRUNCATE configuration_params"])
def test_an_emptied_table_means_the_defaults_and_slow_polls(statement: str, town: World) -> None:
    town.configure(upload_enabled=False)
    service = town.start()
    town.orders.insert(3)
    [(moment,)] = town.database.execute("SELECT clock_timestamp()")

    town.database.execute(statement)

    until_interval(service, LONG_S)
    town.orders.wait_uploaded(3, DEADLINE_S)
    status, parts = service.get("/readyz")
    assert status == 200
    assert (
        parts["configuration"]["missing"]["fast_polling_interval"]
        == "fast_polling_interval has no row; 300 is in force"
    )
    assert parts["configuration"]["status"] == "ok"
    assert "fast_polling_interval" in {line["key"] for line in service.events("Configuration row missing")}

    town.database.execute("SELECT config_restore(%s)", [moment])

    until_interval(service, 60)  # a workflow that is off looks at its switch that often
    assert not service.get("/readyz")[1]["configuration"]["missing"]
    town.orders.insert(1, prefix="waiting")
    town.configure(upload_enabled=True)
    town.orders.wait_uploaded(4, DEADLINE_S)
    assert interval(service) == BEFORE_S


def test_a_bad_value_behind_the_triggers_leaves_the_one_before_it(town: World) -> None:
    town.configure(upload_batch_size=7, upload_concurrency=1)
    service = town.start()
    town.configure(fast_polling_interval=1)  # the long sleep before the safety poll ends too
    town.until_heard(service)

    town.smuggle("upload_batch_size", "lots")

    until(lambda: service.metric("listener_config_invalid") == 1, deadline_s=DEADLINE_S, what="the safety poll")
    status, parts = service.get("/readyz")
    assert (status, parts["configuration"]["status"]) == (200, "not as written")
    sentence = "upload_batch_size must be a whole number of orders from 1 to 100, got 'lots'; 7 stays in force"
    assert parts["configuration"]["invalid"] == {"upload_batch_size": sentence}
    assert [line["problem"] for line in service.events("Configuration value not in force")] == [sentence]
    town.orders.insert(21)
    town.orders.wait_uploaded(21, DEADLINE_S)
    assert town.api.stats()["batches"]["sizes"] == [7, 7, 7]

    town.configure(upload_batch_size=20)

    until(lambda: service.metric("listener_config_invalid") == 0, deadline_s=DEADLINE_S, what="the good value")
    assert service.get("/readyz")[1]["configuration"]["status"] == "ok"


def test_a_locked_table_stops_nothing_and_is_read_when_it_is_free(town: World) -> None:
    """Longer than a statement may take, so that the reading fails too."""
    service = town.start()
    with town.database.connect(autocommit=False) as locker:
        locker.execute("LOCK TABLE configuration_params IN ACCESS EXCLUSIVE MODE")
        town.database.execute("NOTIFY config_changed")
        town.orders.insert(5)
        town.orders.wait_uploaded(5, DEADLINE_S)
        until_troubled(service)
        assert service.get("/readyz")[0] == 200
        locker.execute("UPDATE configuration_params SET param_value = '99' WHERE param_key = 'fast_polling_interval'")
        assert interval(service) == BEFORE_S
    until_interval(service, 99)


def test_a_table_that_is_away_for_a_while_is_read_when_it_is_back(town: World) -> None:
    service = town.start()
    town.database.execute("ALTER TABLE configuration_params RENAME TO put_aside; NOTIFY config_changed")
    until_troubled(service)
    assert service.get("/readyz")[0] == 200
    assert interval(service) == BEFORE_S
    town.orders.insert(5)
    town.orders.wait_uploaded(5, DEADLINE_S)
    town.database.execute(
        "SET session_replication_role = replica;"  # nobody is told: it must be asked for again
        "UPDATE put_aside SET param_value = '99' WHERE param_key IN ('fast_polling_interval', 'FAST_POLLING_INTERVAL');"
        "ALTER TABLE put_aside RENAME TO configuration_params; RESET session_replication_role"
    )
    until_interval(service, 99)


def test_connections_that_end_during_a_reading_do_not_lose_the_change(town: World) -> None:
    service = town.start()
    for seconds in (91, 92, 93):
        with town.database.connect(autocommit=False) as locker:
            locker.execute("LOCK TABLE configuration_params IN ACCESS EXCLUSIVE MODE")
            town.database.execute("NOTIFY config_changed")
            reading = "application_name = 'order-listener configuration' AND wait_event_type = 'Lock'"
            until(lambda where=reading: backends(town, where), deadline_s=DEADLINE_S, what="the reading")
            assert terminate(town, "application_name LIKE 'order-listener%' AND NOT application_name LIKE '%session%'")
            locker.execute(
                "UPDATE configuration_params SET param_value = %s WHERE param_key = 'fast_polling_interval'", [seconds]
            )
        until_interval(service, seconds)
    assert service.events("Trouble, going on")
    assert len(service.events("Session opened")) == 1


def test_a_session_that_ends_with_a_change_does_not_lose_it(town: World) -> None:
    """Its notification is lost for certain: the session's backend ends before the commit."""
    service = town.start()
    for lost, seconds in enumerate((91, 92, 93), start=1):
        with town.database.connect(autocommit=False) as writer:
            writer.execute(
                "UPDATE configuration_params SET param_value = %s WHERE param_key = 'fast_polling_interval'", [seconds]
            )
            assert terminate(town, "application_name LIKE 'order-listener session%'")
        until_interval(service, seconds)
        until(lambda n=lost: len(service.events("Session opened")) == n + 1, deadline_s=DEADLINE_S, what="a session")
    assert len(service.events("No database session")) == 3
    town.orders.insert(1)
    town.orders.wait_uploaded(1, DEADLINE_S)


def test_two_schemas_of_one_database_have_their_own_configuration(town: World) -> None:
    town.database.install("second")
    first, second = town.start(), town.start(LISTENER_SCHEMA="second")
    update = "UPDATE {}configuration_params SET param_value = %s WHERE param_key = 'fast_polling_interval'"

    with town.database.connect(autocommit=False) as writer:
        writer.execute(update.format("second."), ["77"])
        town.database.execute("SET lock_timeout = '10s'")  # it waits for nobody's turn but that of its own schema
        town.database.execute(update.format("public."), ["88"])
        until_interval(first, 88)
    until_interval(second, 77)
    assert interval(first) == 88

    town.database.execute(
        "UPDATE second.configuration_params SET param_value = 'false' WHERE param_key = 'fast_polling_enabled'"
    )
    until_interval(second, LONG_S)
    town.orders.insert(3)
    town.orders.wait_uploaded(3, DEADLINE_S)
    town.until_heard(first)
    assert first.metric("listener_fast_polling_enabled", queue="upload") == 1
    assert len(first.events("Configuration changed")) == 1
    assert len(second.events("Configuration changed")) == 2
    assert not second.metric("listener_jobs_claimed_total", queue="upload")


def interval(service: Service) -> float | None:
    return service.metric("listener_poll_interval_seconds", queue="upload")


def until_interval(service: Service, seconds: int) -> None:
    until(
        lambda: interval(service) == seconds,
        deadline_s=DEADLINE_S,
        what=f"an interval of {seconds} s, not {interval(service)}; log: {service.log_text[-2000:]}",
    )


def until_troubled(service: Service) -> None:
    """Wait until the log says that the configuration could not be read."""
    until(
        lambda: [line for line in service.events("Trouble, going on") if line["where"] == "configuration"],
        deadline_s=DEADLINE_S,
        what="the trouble in the log",
    )


def backends(town: World, where: str) -> list[tuple[Any, ...]]:
    return town.database.execute(f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {where}")


def terminate(town: World, where: str) -> list[tuple[Any, ...]]:
    """End these backends; returns whom."""
    return [town.database.execute("SELECT pg_terminate_backend(%s)", [pid]) for (pid,) in backends(town, where)]
