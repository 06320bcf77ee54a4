"""Wakes coalesce, alarms are kept, and nobody sleeps through either."""

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest
from waiting import until_async

from listener.engine.wake import Wake

pytestmark = pytest.mark.anyio

#: A safety poll that no test waits for.
NEVER_S = 3_600.0


def never() -> float:
    return NEVER_S


async def asleep(wake: Wake, before: Callable[[], object], poll_s: float = NEVER_S) -> frozenset[str]:
    """Fall asleep, then let *before* happen; why it woke."""
    found: list[frozenset[str]] = []

    async def doze() -> None:
        found.append(await wake.wait(lambda: poll_s))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(doze)
            await anyio.wait_all_tasks_blocked()
            before()
    return found[0]


async def is_asleep(wake: Wake, *, poll_s: float = NEVER_S) -> bool:
    """Whether a look now would have to wait."""
    with anyio.move_on_after(0.02) as scope:
        await wake.wait(lambda: poll_s)
    return scope.cancelled_caught


async def test_a_shorter_interval_counts_for_who_sleeps_already() -> None:
    """From its start: what has passed is not waited for again. A longer one does not wake it."""
    wake = Wake()
    interval_s = [300.0]

    async def change() -> None:
        for value in (3_600.0, 0.0):
            await anyio.wait_all_tasks_blocked()
            assert not found
            interval_s[0] = value
            wake.retime()

    found: list[frozenset[str]] = []
    async with anyio.create_task_group() as group:
        group.start_soon(change)
        with anyio.fail_after(10):
            found.append(await wake.wait(lambda: interval_s[0]))
    assert found == [{"poll"}]


async def test_a_ring_wakes_a_sleeper() -> None:
    wake = Wake()
    assert await asleep(wake, lambda: wake.ring("notify")) == {"notify"}


async def test_rings_while_nobody_looks_are_one_look() -> None:
    wake = Wake()
    for reason in ("notify", "slot", "notify", "notify", "config"):
        wake.ring(reason)

    assert await wake.wait(never) == {"notify", "slot", "config"}
    assert await is_asleep(wake)


async def test_a_ring_between_two_sleeps_is_not_lost() -> None:
    """Neither before the sleep, nor when it comes at the same turn as its end."""
    wake = Wake()

    def twice() -> None:
        wake.ring("one")
        wake.ring("two")

    assert await asleep(wake, twice) == {"one", "two"}
    wake.ring("three")
    assert await wake.wait(never) == {"three"}


async def test_the_poll_comes_even_if_nobody_rings() -> None:
    assert await Wake().wait(lambda: 0.01) == {"poll"}


async def test_an_alarm_comes_before_the_poll() -> None:
    wake = Wake()
    wake.ring_in(0.01)
    assert await wake.wait(never) == {"due"}


async def test_an_alarm_set_while_asleep_shortens_the_sleep() -> None:
    wake = Wake()
    assert await asleep(wake, lambda: wake.ring_in(0.01)) == {"due"}


async def test_a_later_alarm_does_not_replace_an_earlier_one() -> None:
    wake = Wake()
    wake.ring_in(0.01)
    wake.ring_in(NEVER_S)
    assert await wake.wait(never) == {"due"}


async def test_an_alarm_goes_off_once() -> None:
    """A look that cannot claim (no slot, a closed gate) would otherwise be repeated without a pause."""
    wake = Wake()
    wake.ring_in(0.0)
    assert await wake.wait(never) == {"due"}
    assert await is_asleep(wake)


async def test_an_alarm_in_the_past_does_not_hide_the_next_one() -> None:
    wake = Wake()
    wake.ring_in(-5.0)
    assert await wake.wait(never) == {"due"}
    wake.ring_in(0.05)
    assert await wake.wait(never) == {"due"}


async def test_an_alarm_outlives_other_wakes() -> None:
    """Only the look forgets it, because the claim tells the next due time."""
    wake = Wake()
    wake.ring_in(0.05)
    wake.ring("notify")
    assert await wake.wait(never) == {"notify"}
    assert await wake.wait(never) == {"due"}

    wake.ring_in(0.01)
    wake.forget_alarm()
    assert await is_asleep(wake)


async def test_an_alarm_without_end_is_none() -> None:
    wake = Wake()
    wake.ring_in(float("inf"))
    assert await is_asleep(wake)


async def test_a_sleeper_that_is_cancelled_loses_no_ring() -> None:
    wake = Wake()

    async def cancel_and_ring(step: Callable[[], Awaitable[object]]) -> None:
        with anyio.CancelScope() as scope:
            wake.ring("notify")
            scope.cancel()
            await step()

    await cancel_and_ring(anyio.lowlevel.checkpoint)
    assert await wake.wait(never) == {"notify"}


async def test_any_order_of_rings_and_alarms_ends_in_a_wake() -> None:
    """Ten ringers against one sleeper that takes its time: the last ring is always seen."""
    wake = Wake()
    seen: set[str] = set()

    async def ring(number: int) -> None:
        for turn in range(20):
            wake.ring(f"{number}-{turn}")
            wake.ring_in(0.001)
            await anyio.lowlevel.checkpoint()

    async def look() -> None:
        while True:
            seen.update(await wake.wait(never))
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        for number in range(10):
            group.start_soon(ring, number)
        await until_async(lambda: {f"{n}-{t}" for n in range(10) for t in range(20)} <= seen, what="all rings")
        group.cancel_scope.cancel("seen")
