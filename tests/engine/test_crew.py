"""The crew: no call outlives it, none is forgotten, and a cancelled one ends."""

import anyio
import pytest
from waiting import until_async

from listener.engine.crew import Crew

pytestmark = pytest.mark.anyio


class Call:
    """A call that waits until it is let go. stubborn: so many times it swallows its cancellation."""

    def __init__(self, crew: Crew, *, stubborn: int = 0, deadline_s: float = float("inf")) -> None:
        self.scope = crew.scope(deadline_s)
        self.go = anyio.Event()
        self.cancellations = 0
        self.result = ""
        self._stubborn = stubborn
        crew.start(self._run(), self.scope)

    async def _run(self) -> None:
        with self.scope:
            while not self.result:
                try:
                    await self.go.wait()
                    self.result = "done"
                except anyio.get_cancelled_exc_class():
                    self.cancellations += 1
                    if self.cancellations > self._stubborn:
                        self.result = "cancelled"
                        raise


async def test_it_ends_when_the_last_call_has_ended() -> None:
    async with anyio.create_task_group() as group:
        async with Crew.gathered() as crew:
            calls = [Call(crew) for _ in range(3)]

            async def let_go() -> None:
                for call in calls:
                    call.go.set()

            group.start_soon(let_go)
        assert [call.result for call in calls] == ["done"] * 3
    async with Crew.gathered():
        pass  # without any call


@pytest.mark.parametrize("how", ["error", "cancelled", "cancelled at its end"])
async def test_left_early_it_cancels_its_calls_and_waits_for_them(how: str) -> None:
    """However stubborn they are: each await of theirs is cancelled anew."""
    calls: list[Call] = []

    async def body(scope: anyio.CancelScope) -> None:
        async with Crew.gathered() as crew:
            calls.extend(Call(crew, stubborn=stubborn) for stubborn in (0, 3))
            await anyio.wait_all_tasks_blocked()
            if how == "error":
                raise ValueError("gone")
            scope.cancel("gone")
            if how == "cancelled":
                await anyio.sleep_forever()

    with anyio.fail_after(30):
        with anyio.CancelScope() as scope:
            try:
                await body(scope)
            except ValueError:
                assert how == "error"
        assert scope.cancelled_caught == (how != "error")
    assert [call.result for call in calls] == ["cancelled", "cancelled"]
    assert [call.cancellations for call in calls] == [1, 4]


async def test_a_call_that_begins_in_a_cancelled_crew_is_cancelled() -> None:
    async with Crew.gathered() as crew:
        crew.cancel()
        call = Call(crew)
    assert call.result == "cancelled"


async def test_a_deadline_ends_its_own_call_alone() -> None:
    async with Crew.gathered() as crew:
        late, other = Call(crew, deadline_s=anyio.current_time()), Call(crew)
        await until_async(lambda: late.result == "cancelled", what="the late call to end")
        assert other.result == ""
        other.go.set()
    assert other.result == "done"


async def test_a_deadline_can_be_moved_either_way() -> None:
    """One timer serves them all: none that was set for another deadline may keep it from going off, or end a call."""
    now_s = anyio.current_time()
    async with Crew.gathered() as crew:
        first, second, third = (Call(crew, deadline_s=now_s + 600.0 + n) for n in range(3))
        first.scope.deadline = now_s + 900.0
        third.scope.deadline = now_s
        await until_async(lambda: third.result == "cancelled", what="the third call to end")
        assert (first.result, second.result) == ("", "")
        second.scope.deadline = now_s + 0.05
        second.scope.deadline = now_s + 300.0
        late = Call(crew, deadline_s=now_s + 0.1)
        await until_async(lambda: late.result == "cancelled", what="the last call to end")
        first.scope.deadline = now_s
        await until_async(lambda: first.result == "cancelled", what="the first call to end")
        assert second.result == ""
        second.go.set()
    assert second.result == "done"


async def test_an_error_of_our_own_ends_the_crew_and_is_raised() -> None:
    """A call keeps what its handler raises; what comes out of it is a fault of the engine, and must not be lost."""

    async def fault() -> None:
        raise RuntimeError("a fault")

    calls: list[Call] = []

    async def body() -> None:
        async with Crew.gathered() as crew:
            calls.append(Call(crew))
            crew.start(fault(), anyio.CancelScope())
            await anyio.sleep_forever()

    with anyio.fail_after(30), pytest.raises(RuntimeError, match="a fault"):
        await body()
    assert calls[0].result == "cancelled"
