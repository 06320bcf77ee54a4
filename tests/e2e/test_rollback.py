"""The rollback statements of the older plans, word for word, on a service at work: what polls from then on, what
notifications do no more, and the way back."""

from typing import Any

import pytest
from waiting import until

from e2e.service import Service
from e2e.world import World

#: No sleep between safety polls ends within the deadline by itself, neither before the rollback nor after it.
BEFORE_S, LONG_S = 120, 300
DEADLINE_S = 60

V3 = """
UPDATE configuration_params SET param_value = 'false' WHERE param_key = 'fast_polling_enabled';
UPDATE configuration_params SET param_value = '300' WHERE param_key = 'fast_polling_interval';
UPDATE configuration_params SET param_value = '300' WHERE param_key = 'sync_interval';
"""
V2 = """
UPDATE configuration_params SET param_value = 'false' WHERE param_key = 'ENABLE_FAST_UPLOAD_POLLING';
UPDATE configuration_params SET param_value = 'false' WHERE param_key = 'ENABLE_FAST_XML_POLLING';
UPDATE configuration_params SET param_value = '300' WHERE param_key = 'UNIFIED_SYNC_INTERVAL';
UPDATE configuration_params SET param_value = '300' WHERE param_key = 'FAST_POLLING_INTERVAL';
"""
V3_CHECK = (
    "SELECT param_key, param_value FROM configuration_params"
    " WHERE param_key LIKE '%polling%' OR param_key = 'sync_interval'"
)
V2_CHECK = "SELECT param_key, param_value FROM configuration_params WHERE param_key LIKE '%POLLING%'"
#: Rollback statements, the switch among them, the check, and what the check shows then.
PLANS = {
    "v3": (V3, "fast_polling_enabled", V3_CHECK, {"fast_polling_enabled": "false", "fast_polling_interval": "300"}),
    "v2": (V2, "ENABLE_FAST_UPLOAD_POLLING", V2_CHECK, {
        "ENABLE_FAST_UPLOAD_POLLING": "false", "ENABLE_FAST_XML_POLLING": "false", "FAST_POLLING_INTERVAL": "300",
    }),
}  # fmt: skip


@pytest.mark.parametrize(("block", "switch", "check", "shown"), PLANS.values(), ids=PLANS)
def test_rollback_and_the_way_back_under_load(
    block: str, switch: str, check: str, shown: dict[str, str], town: World
) -> None:
    town.configure(upload_batch_size=5, fast_polling_interval=BEFORE_S)
    service = town.start()
    town.api.fault({"latency_s": 0.1})
    town.orders.insert(40)
    town.api.until_in_flight(2)

    town.database.execute(block)

    until_changed(service, fast_polling=False)
    assert dict(town.database.execute(check)).items() >= shown.items()
    assert mode(service) == (0, LONG_S)
    town.orders.wait_uploaded(40)  # what was announced before is done
    ignored = until_ignored(town, service)
    assert ignored == 3

    town.database.execute(f"UPDATE configuration_params SET param_value = 'true' WHERE param_key = '{switch}'")

    until_changed(service, fast_polling=True)
    assert mode(service) == (1, LONG_S)
    town.orders.wait_uploaded(40 + ignored, DEADLINE_S)
    assert town.api.stats()["overlaps"] == 0
    assert {each["writes"] for each in town.api.held().values()} == {1}
    assert service.stop() == 0


@pytest.mark.parametrize("switch", ["fast_polling_enabled", "ENABLE_FAST_UPLOAD_POLLING"])
def test_a_long_sleep_ends_with_the_switch_alone(switch: str, town: World) -> None:
    """Rolled back and fast polling have the same interval here: what changes is only whom the queue listens to."""
    town.configure(**{"fast_polling_interval": LONG_S, switch: False})
    service = town.start()
    assert service.events(f"Upload workflow started (fast_polling=False, interval={LONG_S}s)")
    ignored = until_ignored(town, service)

    town.configure(**{switch: True})

    town.orders.wait_uploaded(ignored, DEADLINE_S)
    town.orders.insert(1, prefix="heard")
    town.orders.wait_uploaded(ignored + 1, DEADLINE_S)
    assert service.metric("listener_wakes_total", queue="upload", reason="notify") >= 1
    assert not service.metric("listener_wakes_total", queue="upload", reason="poll")


def test_a_shorter_interval_ends_the_long_sleep(town: World) -> None:
    town.configure(fast_polling_interval=LONG_S)
    service = town.start()
    town.configure(fast_polling_interval=1)
    until(
        lambda: service.metric("listener_wakes_total", queue="upload", reason="poll"),
        deadline_s=DEADLINE_S,
        what="a poll",
    )


def until_changed(service: Service, *, fast_polling: bool) -> None:
    """What the plans' `grep "interval="` finds."""
    line = f"Upload workflow changed (fast_polling={fast_polling}, interval={LONG_S}s)"
    until(lambda: service.events(line), deadline_s=DEADLINE_S, what=f"{line!r}; log: {service.log_text[-2000:]}")


def until_ignored(town: World, service: Service) -> int:
    """Insert orders, wait until their notifications have gone by; returns how many they are."""

    def wakes() -> Any:
        return service.metric("listener_wakes_total", queue="upload", reason="notify")

    before = wakes()
    for number in range(3):
        town.orders.insert(1, prefix=f"ignored{number}")
    town.until_heard(service)
    assert wakes() == before
    assert town.orders.counts()["Pending"] == 3
    return 3


def mode(service: Service) -> tuple[Any, Any]:
    """Fast polling, and seconds between two polls, as the metrics tell them."""
    return (
        service.metric("listener_fast_polling_enabled", queue="upload"),
        service.metric("listener_poll_interval_seconds", queue="upload"),
    )
