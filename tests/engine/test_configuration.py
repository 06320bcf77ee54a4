"""The holder of the live configuration: one answer at a time, the newest last, and nobody sleeps past a change."""

import anyio
import anyio.lowlevel
import pytest
from waiting import until_async

from listener.config.live import KEYS, LiveConfig
from listener.core.errors import Unreachable
from listener.core.events import ConfigLoaded, Event, Trouble
from listener.db.configuration import Rows
from listener.engine.configuration import Configuration

pytestmark = pytest.mark.anyio

SEEDS = {key.name: key.default for key in KEYS.values()}


class Table:
    """The table, as somebody else writes it; a read may be held up or fail."""

    def __init__(self) -> None:
        self.version = 0
        self.values: dict[str, str | None] = dict(SEEDS)
        self.reads = 0
        self.failures = 0
        self.open = anyio.Event()
        self.open.set()

    def set(self, key: str, value: str | None) -> None:
        self.version += 1
        self.values[key] = value

    async def read(self) -> Rows:
        self.reads += 1
        if self.failures:
            self.failures -= 1
            raise Unreachable("away")
        rows = Rows(self.version, list(self.values.items()))
        await self.open.wait()
        return rows


class Held:
    """A holder, and what it published."""

    def __init__(self) -> None:
        self.table = Table()
        self.events: list[Event] = []
        self.configuration = Configuration(self.table.read, self.events.append)
        self.changes: list[tuple[LiveConfig, LiveConfig]] = []
        self.configuration.on_change(lambda before, after: self.changes.append((before, after)))

    @property
    def loaded(self) -> list[ConfigLoaded]:
        return [event for event in self.events if isinstance(event, ConfigLoaded)]


@pytest.fixture
def held() -> Held:
    return Held()


async def test_a_change_is_told_with_before_and_after(held: Held) -> None:
    await held.configuration.reload()
    held.table.set("upload_concurrency", "7")
    await held.configuration.reload()
    assert [after.upload_concurrency for _, after in held.changes] == [2, 7]
    assert [event.changes for event in held.loaded] == [{}, {"upload_concurrency": ("2", "7")}]
    assert (held.configuration.version, held.loaded[-1].version) == (1, 1)


async def test_a_figure_is_the_new_one_for_whoever_is_told_of_a_change_and_worked_out_once(held: Held) -> None:
    asked: list[int] = []
    figure = held.configuration.figure(
        lambda live: asked.append(live.upload_concurrency) or live.upload_concurrency * 10
    )
    seen: list[int] = []
    held.configuration.on_change(lambda _before, _after: seen.append(figure()))
    await held.configuration.reload()
    held.table.set("upload_concurrency", "7")
    await held.configuration.reload()
    assert (seen, figure(), figure()) == ([20, 70], 70, 70)
    assert asked == [2, 2, 7], "at once, and once for each configuration that was read"


async def test_a_read_that_brings_nothing_new_tells_nobody(held: Held) -> None:
    for _ in range(3):
        await held.configuration.reload()
    assert len(held.changes) == 1, "the first read, and no other"


async def test_an_older_answer_never_replaces_a_newer_one(held: Held) -> None:
    """A slow read at the safety poll, and a change that is read meanwhile."""
    await held.configuration.reload()
    held.table.open = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(held.configuration.reload)
        await until_async(lambda: held.table.reads == 2, what="the slow read")
        gate = held.table.open
        held.table.set("upload_concurrency", "9")
        held.table.open = anyio.Event()
        held.table.open.set()
        group.start_soon(held.configuration.reload)
        await anyio.lowlevel.checkpoint()
        gate.set()
    assert held.configuration.live.upload_concurrency == 9
    assert held.configuration.version == 1


async def test_what_a_survey_read_along_counts_unless_we_have_read_since_it_began(held: Held) -> None:
    await held.configuration.reload()
    began_at = anyio.current_time()
    old = await held.table.read()
    held.configuration.take(Rows(1, [*old.values, ("upload_concurrency", "7")]), read_at=began_at)
    assert held.configuration.live.upload_concurrency == 7, "nobody has read meanwhile"
    held.table.set("upload_concurrency", "9")
    await held.configuration.reload()
    held.configuration.take(old, read_at=began_at)
    assert held.configuration.live.upload_concurrency == 9, "an older answer"
    held.table.open = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(held.configuration.reload)
        await until_async(lambda: held.table.reads == 4, what="a read under way")
        held.configuration.take(old, read_at=anyio.current_time())
        assert held.configuration.live.upload_concurrency == 9, "ours is about to come"
        held.table.open.set()


async def test_what_changes_during_a_read_is_read_again(held: Held) -> None:
    held.table.open = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(held.configuration.follow)
        held.configuration.tell()
        await until_async(lambda: held.table.reads == 1, what="the first read")
        held.table.set("upload_concurrency", "8")
        for _ in range(10):
            held.configuration.tell()
        held.table.open.set()
        await until_async(lambda: held.configuration.live.upload_concurrency == 8, what="the second read")
        await until_async(lambda: held.table.reads == 2)
        group.cancel_scope.cancel()
    assert held.table.reads == 2, "ten calls are one more read"


async def test_while_the_table_cannot_be_read_the_last_configuration_stays_and_it_is_read_soon_after(
    held: Held,
) -> None:
    held.table.set("upload_concurrency", "6")
    await held.configuration.reload()
    held.table.failures = 3
    held.table.set("upload_concurrency", "5")
    async with anyio.create_task_group() as group:
        group.start_soon(held.configuration.follow)
        held.configuration.tell()
        await until_async(lambda: held.table.failures == 0, what="three failed reads")
        assert held.configuration.live.upload_concurrency == 6
        await until_async(lambda: held.configuration.live.upload_concurrency == 5, what="the read that succeeds")
        group.cancel_scope.cancel()
    troubles = [event for event in held.events if isinstance(event, Trouble)]
    assert {event.error for event in troubles} == {"away; the last one stays in force"}


async def test_a_failed_reload_raises_and_changes_nothing(held: Held) -> None:
    await held.configuration.reload()
    held.table.failures = 1
    held.table.set("upload_concurrency", "5")
    with pytest.raises(Unreachable):
        await held.configuration.reload()
    assert held.configuration.live == LiveConfig()
    assert len(held.loaded) == 1


async def test_a_bad_value_leaves_the_one_before_it(held: Held) -> None:
    held.table.set("upload_concurrency", "6")
    await held.configuration.reload()
    held.table.set("upload_concurrency", "many")
    await held.configuration.reload()
    assert held.configuration.live.upload_concurrency == 6
    assert list(held.configuration.invalid) == ["upload_concurrency"]
    del held.table.values["sync_interval"]
    await held.configuration.reload()
    assert held.configuration.live.sync_interval == 300
    assert list(held.configuration.missing) == ["sync_interval"]


@pytest.mark.parametrize("seconds", [0.0, 0.01])
async def test_a_pause_ends_by_itself(held: Held, seconds: float) -> None:
    with anyio.fail_after(10):
        await held.configuration.pause(lambda: seconds)


async def test_a_pause_follows_the_value_that_it_depends_on(held: Held) -> None:
    """Longer than before does not end it, shorter than the time slept does, something else does not."""
    held.table.set("fast_polling_interval", "3600")
    await held.configuration.reload()
    ended = anyio.Event()

    async def sleeper() -> None:
        await held.configuration.pause(lambda: held.configuration.live.fast_polling_interval - 5)
        ended.set()

    async def change(key: str, value: str) -> None:
        held.table.set(key, value)
        await held.configuration.reload()
        await _let_run()

    async with anyio.create_task_group() as group:
        group.start_soon(sleeper)
        await _let_run()
        await change("upload_concurrency", "3")
        await change("fast_polling_interval", "300")
        assert not ended.is_set()
        await change("fast_polling_interval", "4")
        with anyio.fail_after(10):
            await ended.wait()


async def _let_run(times: int = 5) -> None:
    for _ in range(times):
        await anyio.lowlevel.checkpoint()
