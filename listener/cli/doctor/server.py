"""Checks of the server: can it be reached, which release is it, its clock, its connections, the way to it."""

from listener.cli.doctor.finding import Case, Finding, fail, ok, warn
from listener.config.environment import redacted
from listener.config.live import read_live_config
from listener.core.errors import Pooled
from listener.db.applied import OLDEST_SERVER
from listener.db.configuration import read_configuration
from listener.db.session import different, probe

#: Major release → first minor one in which VACUUM no longer removes the commit status of a notification that is still
#: in the queue (LISTEN then fails with "could not access status of transaction"), and an error while notifications are
#: read ends the session instead of losing them silently: https://www.postgresql.org/docs/release/18.2/
SAFE_MINOR = {14: 21, 15: 16, 16: 12, 17: 8, 18: 2}
#: Seconds. Schedules are the server's business, so a difference only confuses people who compare logs.
_CLOCK_WARN_S, _CLOCK_FAIL_S = 2.0, 60.0


async def reachable(case: Case) -> list[Finding]:
    """Both addresses answer. Raises Unreachable, DatabaseError: then nothing else can be asked."""
    addresses = {case.env.database_url.get_secret_value(), case.env.direct_url.get_secret_value()}
    for url in addresses:
        await probe(url)
    server = (await case.patient.ask("server"))[0]
    return [ok(f"{redacted(case.env.direct_url)} as {server['role']}, PostgreSQL {server['version_text']}")]


async def addresses(case: Case) -> list[Finding]:
    """The pool and the session come to the same database, as the same role."""
    if case.pool_end is case.patient:
        return [ok("one address for the pool and the session")]
    here, there = await case.patient.identity(), await case.pool_end.identity()
    fault = different(there, here)
    if fault:
        seen, _, advice = fault.partition("; ")
        return [fail(seen, advice)]
    ours, theirs = [(await each.ask("server"))[0]["role"] for each in (case.patient, case.pool_end)]
    if ours != theirs:
        seen = f"the pool comes as {theirs}, the session as {ours}: only the same role may end a session that hangs"
        return [warn(seen, "name the same user in DATABASE_URL and LISTENER_DIRECT_URL")]
    return [ok(f"DATABASE_URL and LISTENER_DIRECT_URL lead to the same database, both as {ours}")]


async def version(case: Case) -> list[Finding]:
    """The release is one that is tested, without known faults of LISTEN and NOTIFY."""
    return [judge_version((await case.patient.ask("server"))[0]["version"])]


def judge_version(number: int) -> Finding:
    """Judge a server_version_num, such as 150018. Pure."""
    major, minor = divmod(number, 10_000)
    if major < OLDEST_SERVER:
        return fail(f"PostgreSQL {major} is not supported", f"upgrade to PostgreSQL {OLDEST_SERVER} or later")
    if minor < SAFE_MINOR.get(major, 0):
        first = f"{major}.{SAFE_MINOR[major]}"
        return warn(
            f"PostgreSQL {major}.{minor} may lose notifications: LISTEN fails with 'could not access status of "
            f"transaction' after a VACUUM FREEZE; fixed in {first}",
            f"update to {first} or later (release notes: https://www.postgresql.org/docs/release/{first}/); until then"
            " the safety poll finds the rows",
        )
    return ok(f"PostgreSQL {major}.{minor}, no known fault of LISTEN and NOTIFY")


async def clock(case: Case) -> list[Finding]:
    """This machine and the server agree about the time."""
    before = case.clock()
    server_s = (await case.patient.ask("clock"))[0]["server_s"]
    after = case.clock()
    # the answer is from some moment in between
    offset = max(server_s - after, before - server_s, 0.0)
    seen = f"this machine and the server differ by {offset:.1f} s"
    if offset <= _CLOCK_WARN_S:
        return [ok(f"this machine and the server differ by at most {max(offset, after - before):.2g} s")]
    advice = (
        "run a time service (chrony, systemd-timesyncd) on both; due times go by the server's clock, logs by this one"
    )
    return [(fail if offset > _CLOCK_FAIL_S else warn)(seen, advice)]


async def pooler(case: Case) -> list[Finding]:
    """A notification from the pool arrives on a session, exactly as the service tests it at its start."""
    try:
        await case.pool_end.hear_bell(case.env.direct_url.get_secret_value())
    except Pooled as error:
        seen, _, advice = str(error).partition("; ")
        return [fail(seen, advice)]
    way = "the pool goes another way than the session, and a" if case.env.is_pooled else "a"
    return [ok(f"{way} notification of the pool arrives on the session")]


async def keepalives(case: Case) -> list[Finding]:
    """The server watches our own end of the session's connection, so that a dead machine's rows are free in seconds."""
    peer = await case.patient.peer()
    if not peer.ours:
        return [ok("a Unix socket: the death of this machine is the server's own")]
    idle, interval, count = peer.keepalives
    if "0" in peer.keepalives:
        seen = f"the server's system does not take keepalives (idle {idle}, interval {interval}, count {count})"
        return [
            warn(seen, "rows of a machine that dies stay claimed until the operation timeout; mend its TCP settings")
        ]
    if peer.ours != peer.theirs:
        seen = (
            f"we are {peer.ours}, the server sees {peer.theirs}: a proxy, pooler or address translation is in between"
        )
        advice = (
            "a proxy keeps the connection of a dead machine open, and its rows claimed: set its keepalives or idle"
            " time-out to seconds, or give an address without it in LISTENER_DIRECT_URL"
        )
        return [warn(seen, advice)]
    return [ok(f"the server asks after us when idle for {idle} s, {count} times, every {interval} s")]


async def connections(case: Case) -> list[Finding]:
    """All processes together fit into what server, database and role allow."""
    found = (await case.patient.ask("capacity"))[0]
    config = read_live_config((await read_configuration(case.patient.pool)).values, None).config
    # session, watch, and one for each file that is being imported
    each = case.env.pool_max + 2 + config.import_concurrency
    need = each * case.replicas
    told = f"{case.replicas} × {each}"
    limits = (
        ("the server", found["server_limit"], found["server_taken"], "raise max_connections"),
        ("the database", found["database_limit"], found["database_taken"], found["cure_database"]),
        ("the role", found["role_limit"], 0, found["cure_role"]),
    )
    problems = []
    for who, limit, taken, cure in limits:
        others = max(taken - found["ours"] - 1, 0)
        if 0 <= limit < need + others:
            seen = (
                f"{who} allows {limit} connections; processes × connections, {told}, need {need}, others have {others}"
            )
            sizes = f"LISTENER_POOL_MAX ({case.env.pool_max}) or import_concurrency ({config.import_concurrency})"
            advice = f"{cure}; or lower {sizes}, or run fewer processes"
            problems.append((fail if limit < need else warn)(seen, advice))
    return problems or [ok(f"processes × connections, {told}, need {need} of {found['server_limit']}")]
