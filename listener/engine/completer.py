"""Writes outcomes. What arrives while a write is under way goes into the next one: many jobs, one UPDATE, one flush,
and no waiting when there is nothing to coalesce with."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from listener.core.errors import DatabaseError, Unreachable
from listener.core.events import JobFailed, Publish, Trouble
from listener.core.events import Settled as SettledEvent
from listener.core.job import Settle, Settlement
from listener.db.queue import QueueTable

# 1,000 rows per UPDATE: the per-statement cost is already divided by far more than it matters; bounds its memory.
MOST_ROWS = 1000
_RETRY_CAP_S = 2.0
# While outcomes keep coming in, seconds between two writes: each costs the server and us as much as ten rows do.
_GATHER_S = 0.004


@dataclass(slots=True)
class _Parcel:
    settlements: Sequence[Settlement]
    written: Callable[[], None]


class Completer:
    """The writer of one queue.

    on_reopened: told when rows are due again right away (edited in flight, released).
    on_delayed: told the shortest delay, in seconds, of rows that were put off.
    on_room: told when it is not behind any more.
    """

    def __init__(
        self,
        table: QueueTable,
        publish: Publish,
        *,
        on_reopened: Callable[[], None],
        on_delayed: Callable[[float], None],
        on_room: Callable[[], None],
    ) -> None:
        self._table = table
        self._publish = publish
        self._on_reopened = on_reopened
        self._on_delayed = on_delayed
        self._on_room = on_room
        self._parcels: list[_Parcel] = []
        self._waiting = self._under_way = 0
        self._arrived = anyio.Event()
        self._emptied = anyio.Event()

    @property
    def is_behind(self) -> bool:
        """More waits than the next statement takes: claiming more would only make it wait longer."""
        return self._waiting - self._under_way >= MOST_ROWS

    def put(self, settlements: Sequence[Settlement], written: Callable[[], None]) -> None:
        """Hand over outcomes; `written` is told when they are written, or known to have lost their claim."""
        if not settlements:
            written()
            return
        self._parcels.append(_Parcel(settlements, written))
        self._waiting += len(settlements)
        self._arrived.set()

    async def flush(self) -> None:
        """Wait until all that was handed over is written."""
        while self._parcels:
            if self._emptied.is_set():  # several may wait, for the same one
                self._emptied = anyio.Event()
            await self._emptied.wait()

    async def run(self) -> None:
        """Write until cancelled; what was not written by then is written by the next run, if the claims still hold."""
        while True:
            self._arrived = anyio.Event()
            while self._parcels:
                parcels = self._parcels[: self._count()]
                settlements = [s for parcel in parcels for s in parcel.settlements]
                with self._writing(len(settlements)):
                    await self._write_surely(settlements)
                self._forget(parcels)
                if len(parcels) > 1 and self._waiting < MOST_ROWS // 10:
                    await anyio.sleep(_GATHER_S)
            self._emptied.set()
            await self._arrived.wait()

    @contextmanager
    def _writing(self, rows: int) -> Iterator[None]:
        """What is being written does not wait: claims go on meanwhile."""
        was_behind, self._under_way = self.is_behind, rows
        if was_behind and not self.is_behind:
            self._on_room()
        try:
            yield
        finally:
            self._under_way = 0

    def _forget(self, parcels: Sequence[_Parcel]) -> None:
        del self._parcels[: len(parcels)]
        for parcel in parcels:
            self._waiting -= len(parcel.settlements)
            parcel.written()

    def _count(self) -> int:
        count, rows = 0, 0
        for parcel in self._parcels:
            rows += len(parcel.settlements)
            if count and rows > MOST_ROWS:
                break
            count += 1
        return count

    async def _write_surely(self, settlements: list[Settlement]) -> None:
        """Write, trying again while the database is away; a value that it refuses costs only its own job."""
        wait_s = 0.05
        while True:
            try:
                await self._write(settlements)
            except Unreachable as error:
                self._publish(Trouble(where=f"{self._table.queue.name} settle", error=str(error)))
                await anyio.sleep(wait_s)
                wait_s = min(wait_s * 2, _RETRY_CAP_S)
            except DatabaseError as error:
                await self._isolate(settlements, error)
                return
            else:
                return

    async def _isolate(self, settlements: list[Settlement], error: DatabaseError) -> None:
        if len(settlements) > 1:
            middle = len(settlements) // 2
            await self._write_surely(settlements[:middle])
            await self._write_surely(settlements[middle:])
            return
        refused = settlements[0]
        self._publish(Trouble(where=f"{self._table.queue.name} settle", error=str(error)))
        if refused.kind is Settle.FAIL and not refused.values:
            return  # even the plain failure is refused: the stray check gives the row back
        text = f"The result could not be written: {error}"
        await self._write_surely([Settlement(job=refused.job, kind=Settle.FAIL, error=text)])

    async def _write(self, settlements: list[Settlement]) -> None:
        started = time.perf_counter()
        settled = await self._table.settle(settlements)
        lost = {(job.id, job.claim_id) for job in settled.lost}
        written = [s for s in settlements if (s.job.id, s.job.claim_id) not in lost] if lost else settlements
        unusual = [s for s in written if s.kind is not Settle.COMPLETE]
        outcomes = Counter(str(s.kind) for s in unusual)
        if completed := len(written) - len(unusual):
            outcomes[Settle.COMPLETE.value] = completed
        self._publish(
            SettledEvent(
                queue=self._table.queue.name,
                outcomes=dict(outcomes),
                lost=len(lost),
                duration_s=time.perf_counter() - started,
            )
        )
        for s in unusual:
            if s.kind in (Settle.FAIL, Settle.RETRY):
                self._publish(
                    JobFailed(
                        queue=s.job.queue,
                        id=str(s.job.id),
                        label=s.job.label,
                        outcome=str(s.kind),
                        attempt=s.job.attempt,
                        error=s.error or "",
                    )
                )
        if settled.reopened:
            self._on_reopened()
        delays = [s.delay_s for s in unusual if s.delay_s > 0]
        if delays:
            self._on_delayed(min(delays))
