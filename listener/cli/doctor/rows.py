"""Checks of the rows: configuration that is not in force, work that nobody does."""

from listener.cli.doctor.finding import Case, Finding, fail, ok, several, warn
from listener.config.live import read_live_config
from listener.core.queue import Queue
from listener.db.configuration import read_configuration
from listener.db.doctor import MOST_COUNTED
from listener.workflows.queues import QUEUES


async def configuration(case: Case) -> list[Finding]:
    """Every row of configuration_params is in force."""
    rows = await read_configuration(case.patient.pool)
    reading = read_live_config(rows.values, None)
    problems = [fail(text, f"listener config set {key} VALUE") for key, text in reading.invalid.items()]
    problems += [
        warn(text, f"take the row {key!r} away, and set the right key with `listener config set`")
        for key, text in reading.unknown.items()
    ]
    if not reading.config.fast_polling_enabled:
        problems.append(
            warn(
                "fast_polling_enabled is false: rolled back to a poll every 300 s",
                "listener config set fast_polling_enabled true",
            )
        )
    for name in QUEUES:
        if not reading.config.is_enabled(name):
            seen = f"{name}_enabled is false: queue {name} claims nothing"
            problems.append(warn(seen, f"listener config set {name}_enabled true"))
    return problems or [ok(f"{several(len(rows.values), 'row')}, all in force")]


async def work(case: Case) -> list[Finding]:
    """No row is stuck, none waits for long, none has failed unseen."""
    problems: list[Finding] = []
    for queue in case.queues:
        problems += await _queue(case, queue)
    return problems or [ok(f"no row of {', '.join(queue.name for queue in case.queues)} is stuck, late or failed")]


async def _queue(case: Case, queue: Queue) -> list[Finding]:
    found = await case.patient.stuck(queue, long_s=case.long_s)
    where, is_running = f"{queue.table}.{queue.key}", found["sessions"] > 0
    start = "start `listener run`" if queue.name in QUEUES else "start your program that works on it"
    problems = []
    if found["orphans"]:
        rows = several(found["orphans"], "row")
        seen = f"{rows} of {queue.name} Processing under a session that is gone ({where} = {found['orphan']})"
        cure = "wait for the next safety poll" if is_running else f"{start}, which frees them at its start"
        problems.append(fail(seen, cure))
    if found["strays"]:
        rows = several(found["strays"], "row")
        seen = (
            f"{rows} of {queue.name} Processing without a claim ({where} = {found['stray']}), left by an older program"
        )
        problems.append(fail(seen, f"stop that program, then {found['cure_stray']}"))
    if found["waiting"]:
        rows = f"{_rows(found['waiting'])} of {queue.name}"
        seen = f"{rows} due for more than {case.long_s:.0f} s (oldest: {where} = {found['waiter']})"
        cure = f"see /readyz, the log and `listener status`; is {queue.name} in LISTENER_QUEUES, and switched on?"
        problems.append(fail(seen, cure if is_running else start))
    if found["unranked"]:
        rows = f"{_rows(found['unranked'])} of {queue.name}"
        seen = f"{rows} without a priority or scheduled_at, which no claim finds ({where} = {found['unranked_one']})"
        problems.append(fail(seen, found["cure_unranked"]))
    if found["failed"]:
        seen = f"{_rows(found['failed'])} of {queue.name} Failed"
        problems.append(warn(seen, f"{found['cure_failed']}; then `listener retry {queue.name} --failed`"))
    return problems


def _rows(count: int) -> str:
    """No more are counted than that."""
    return f"{MOST_COUNTED} rows or more" if count >= MOST_COUNTED else several(count, "row")


async def sequences(case: Case) -> list[Finding]:
    """No sequence is behind the numbers that it has to give; data that was loaded with its numbers leaves it so."""
    rows = await case.patient.sequences()
    problems = [
        fail(
            f"{row['relation']}.{row['name']} goes up to {row['highest']}, its sequence only to {row['given']}:"
            " an INSERT takes a number that is there, and is refused",
            f"as the owner: {row['cure']}",
        )
        for row in rows
        if row["given"] is not None and row["given"] < row["highest"]
    ]
    unseen = sum(row["given"] is None for row in rows)
    told = f"; {unseen} of attached tables are their owner's to look at" if unseen else ""
    return problems or [ok(f"{several(len(rows) - unseen, 'sequence')} not behind{told}")]
