"""Structured logs: what the engine's events say to a person and to grep."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Literal, TextIO

import structlog

from listener.core import events as e
from listener.core.tally import Tally

# At most one METRICS line per queue and second: an idle hour stays 240 lines, a busy one 3,600.
CHECK_LINE_EVERY_S = 1.0
_level = logging.INFO
_BORROWED = logging.getLogger("listener")
_NAMES = {"upload": "Upload", "import": "XML import", "sync": "Unified sync"}


def set_up(*, format: Literal["json", "console"], level: str = "info", stream: TextIO | None = None) -> None:  # noqa: A002
    """Configure structlog for the process. Secrets never come here: settings hold them as SecretStr."""
    # chosen once: a closed stdout must not take the service down with it, hence PrintLogger on a fixed stream
    target = stream or sys.stderr
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if format == "json"
        else structlog.dev.ConsoleRenderer(colors=target.isatty())
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _without_nothing,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S.%fZ", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    set_level(level)
    _adopt_libraries(shared, renderer, target)


def _without_nothing(_: Any, __: str, line: Any) -> Any:
    """Leave out what is None: a field that says nothing is only in the way."""
    return {name: value for name, value in line.items() if value is not None}


def own() -> Any:
    """Return a logger of the process whose logging `set_up` has configured."""
    return structlog.get_logger()


def borrowed() -> Any:
    """Return a logger for somebody else's program: it writes to `logging.getLogger("listener")`, as set up there."""
    return structlog.wrap_logger(
        _BORROWED,
        processors=[
            structlog.stdlib.filter_by_level,
            _without_nothing,
            _as_text,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _as_text(_: Any, __: str, line: Any) -> Any:
    """Give what the standard library's loggers take; a traceback is written by their own formatters."""
    event, trace = line.pop("event"), line.pop("exc_info", None)
    return (" ".join([event, *(f"{name}={value!r}" for name, value in line.items())]),), {"exc_info": trace}


def set_level(level: str) -> None:
    """Log what is at least this loud, from now on; loggers that exist obey too."""
    global _level  # noqa: PLW0603 - as structlog's own configuration is
    _level = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_level))


def tells_debug() -> bool:
    """Whether our own logging shows debug lines."""
    return _level <= logging.DEBUG


def borrowed_tells_debug() -> bool:
    """Whether the program's logging shows our debug lines."""
    return _BORROWED.isEnabledFor(logging.DEBUG)


def _adopt_libraries(shared: list[Any], renderer: Any, target: TextIO) -> None:
    """Write the warnings of libraries (a garbled HTTP request, say) as lines like ours: the log stays parseable."""
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # the supervisor reports connection trouble once, in words; the pool would repeat it for every attempt
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


class EventLog:
    """Writes a line for the events that a person would look for. nouns: queue → what its rows are called.

    tells_operations: at level info, as the service does; a program's queue may have thousands a second. tells_debug:
    asked before a debug line is made, as structlog makes a logger for each line, also for one that it drops (40 µs).
    """

    def __init__(
        self,
        nouns: dict[str, str],
        log: Any,
        *,
        tells_operations: bool = True,
        tells_debug: Callable[[], bool] = tells_debug,
    ) -> None:
        self._nouns = nouns
        self._log = log
        self._tells_operations = tells_operations
        self._tells_debug = tells_debug
        self._checks: dict[str, Tally] = {}
        self._last_line_s: dict[str, float] = {}
        self._last_count: dict[str, int] = {}
        self._complaints: dict[str, str] = {}
        # counted here, line by line: a slot is taken a moment before its operation begins
        self._active = 0

    def on_event(self, event: e.Event) -> None:
        """Write the event's line; never raises."""
        log = self._log
        match event:
            case e.OperationStarted():
                self._started(event)
            case e.OperationEnded():
                self._ended(event)
            case e.Checked():
                self._checked(event)
            case e.Settled(queue=queue, outcomes=outcomes, lost=lost, duration_s=duration_s):
                if self._tells_debug():
                    log.debug("Settled", queue=queue, outcomes=outcomes, duration_ms=_ms(duration_s))
                if lost:
                    log.warning("Claim lost, result dropped", queue=queue, count=lost)
            case e.JobFailed(queue=queue, id=id_, label=label, outcome=outcome, attempt=attempt, error=text):
                tell = log.error if outcome == "fail" else log.warning
                tell(
                    "Job failed" if outcome == "fail" else "Job will be retried",
                    queue=queue,
                    id=id_,
                    label=label,
                    attempt=attempt,
                    error=text,
                )
            case e.Rescued(queue=queue, count=count):
                log.warning(
                    f"Rescued {count} {self._nouns.get(queue, 'rows')} of a session that is gone",
                    queue=queue,
                    count=count,
                )
            case e.QueueMode():
                self._mode(event)
            case e.FileImported(name=name, found=found, inserted=new, updated=changed, rejected=bad):
                (log.warning if bad else log.info)(
                    f"Imported {name}", found=found, inserted=new, updated=changed, rejected=bad
                )
            case e.Woke(queue=queue, reason=reason) if self._tells_debug():
                log.debug("Woke", queue=queue, reason=reason)
            case e.LookSkipped(queue=queue, interval_s=interval_s):
                log.debug(f"Workflow disabled - sleeping {interval_s:g}s", queue=queue)
            case _:
                self._beyond_queues(event)

    def _beyond_queues(self, event: e.Event) -> None:
        log = self._log
        match event:
            case e.PeerGone(session=session):
                log.info(f"Session {session} has ended", session=session)
            case e.SessionOpened(key=session, backend_pid=pid, recovered_s=recovered_s):
                log.info("Session opened", session=session, backend_pid=pid, recovered_s=_rounded(recovered_s))
            case e.SessionClosed(reason=reason, retry_s=retry_s):
                log.error("No database session", reason=reason, retry_in_s=_rounded(retry_s))
            case e.ApiCalled(
                connector=connector, method=method, path=path, status=status, duration_s=duration_s, account=account
            ):
                name = {"shipstation": "ShipStation"}.get(connector, connector)
                log.info(f"{name} API {method} {path}", status=status, account=account, duration_ms=_ms(duration_s))
            case e.ConnectorPaused(connector=connector, account=account, reason=reason, message=message, for_s=for_s):
                log.error(
                    "Connector paused",
                    connector=connector,
                    account=account,
                    reason=reason,
                    message=message,
                    for_s=round(for_s, 2),
                )
            case e.ConnectorResumed(connector=connector, account=account):
                log.info("Connector resumed", connector=connector, account=account)
            case e.ConfigLoaded():
                self._config_loaded(event)
            case e.MetricsCleaned(count=count):
                log.info(f"Cleaned up {count} old polling metrics", count=count)
            case e.Scheduled(queue=queue, interval_s=interval_s, is_start=is_start):
                name, how = _NAMES.get(queue, queue), "off" if interval_s is None else f"interval={interval_s:g}s"
                log.info(f"{name} {'started' if is_start else 'changed'} ({how})", queue=queue)
            case e.CycleEnded(connector=connector, account=account, reason=reason, stats=stats):
                log.info("Sync cycle completed", connector=connector, account=account, reason=reason, **stats)
            case e.Stopping(stage=stage, active=active):
                doing = "waiting for running handlers" if stage == 1 else "cancelling what still runs"
                log.info(f"Stopping: {doing}", active=active)
            case e.Trouble(where=where, error=text, is_minor=is_minor):
                (log.debug if is_minor else log.warning)("Trouble, going on", where=where, error=text)

    def close(self) -> None:
        """Write the METRICS lines that were held back."""
        for queue in list(self._checks):
            self._write_checks(queue)

    def _started(self, event: e.OperationStarted) -> None:
        self._active += 1
        if self._tells_operations or self._tells_debug():
            tell = self._log.info if self._tells_operations else self._log.debug
            text = f"Operation {event.operation} started - Active operations: {self._active}"
            rows = [str(job.id if job.label is None else job.label) for job in event.jobs]
            tell(text, queue=event.queue, jobs=len(rows), rows=rows)

    def _ended(self, event: e.OperationEnded) -> None:
        self._active -= 1
        is_well = event.result == "completed"
        if self._tells_operations or self._tells_debug() or not is_well:
            tell = self._log.info if self._tells_operations else self._log.debug
            text = f"Operation {event.operation} {event.result} - Active operations: {self._active}"
            (tell if is_well else self._log.warning)(text, error=event.error, duration_ms=_ms(event.duration_s))

    def _mode(self, event: e.QueueMode) -> None:
        name, verb = _NAMES.get(event.queue, event.queue), "started" if event.is_start else "changed"
        mode = f"fast_polling={event.fast_polling}, interval={event.interval_s:g}s"
        self._log.info(
            f"{name} workflow {verb} ({mode}{'' if event.is_enabled else ', enabled=False'})", queue=event.queue
        )

    def _config_loaded(self, event: e.ConfigLoaded) -> None:
        """It is read at each safety poll: a line for what is new only."""
        for key, (before, after) in event.changes.items():
            self._log.info(
                f"Configuration changed: {key} {before} -> {after}",
                key=key,
                before=before,
                after=after,
                version=event.version,
            )
        for problems, text, tell in (
            (event.invalid, "Configuration value not in force", self._log.error),
            (event.missing, "Configuration row missing", self._log.warning),
            (event.unknown, "Configuration row without effect", self._log.warning),
        ):
            for key, problem in problems.items() - self._complaints.items():
                tell(text, key=key, problem=problem)
        self._complaints = event.unknown | event.missing | event.invalid

    def _checked(self, event: e.Checked) -> None:
        if self._tells_debug():
            self._log.debug("Looked", queue=event.queue, claimed=event.claimed, duration_ms=_ms(event.duration_s))
        self._checks.setdefault(event.queue, Tally()).add(event)
        if time.monotonic() - self._last_line_s.get(event.queue, float("-inf")) >= CHECK_LINE_EVERY_S:
            self._write_checks(event.queue)
        if event.waiting is not None:
            self._count_changed(event.queue, event.waiting)

    def _write_checks(self, queue: str) -> None:
        tally = self._checks.pop(queue)
        action = "skip" if tally.skipped == tally.checks else "process"
        self._log.info(
            f"METRICS: workflow={queue} count={tally.claimed} duration_ms={_ms(tally.duration_s)} action={action}",
            checks=tally.checks,
            skipped=tally.skipped,
        )
        self._last_line_s[queue] = time.monotonic()

    def _count_changed(self, queue: str, count: int) -> None:
        """One line per change of the pending count, none for what stays as it was."""
        if count == self._last_count.get(queue, 0):
            return
        self._last_count[queue] = count
        if count:
            self._log.info(f"Processing {count} pending {self._nouns.get(queue, 'rows')}", queue=queue)
        else:
            self._log.info(f"{_NAMES.get(queue, queue)} queue empty", queue=queue)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
