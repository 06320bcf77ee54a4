"""The pytest plugin, in a test run of its own: what a user's tests see."""

import re

import pytest
from docs.generate import README

pytest_plugins = ["pytester"]

APP = """
from listener import Done, Fail, Job, Listener, Retry, Snooze

app = Listener()

@app.queue("invoices", results=("sent_at",))
async def send(job: Job):
    match job.row["amount"]:
        case 0: return Fail("zero")
        case 1: return Retry("later", delay_s=0)
        case 2: return Snooze(0)
        case 3: return Done({"sent_at": "now"})

@app.queue("emails", batch_size=2)
def write(jobs: list[Job]) -> None:
    pass
"""
CONFTEST = """
import pytest

@pytest.fixture(scope="session")
def listener_server():
    return {url!r}

@pytest.fixture
def tables(listener_database):
    for name in ("invoices", "emails"):
        listener_database.execute(f"CREATE TABLE {{name}} (id serial PRIMARY KEY, amount int, sent_at timestamptz)")
        assert listener_database.attach(name) == name
    return listener_database
"""


@pytest.fixture
def run(pytester: pytest.Pytester, server, monkeypatch):
    """Run a test file with the plugin on this session's server, in a process of its own."""
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(app=APP)
    pytester.makeconftest(CONFTEST.format(url=server.url("postgres")))
    pytester.makeini("[pytest]\nfilterwarnings = error\n")

    def run(text: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_app=text)
        return pytester.runpytest_subprocess("-p", "listener.testing", "-p", "no:cacheprovider", *options)

    return run


@pytest.mark.own_role("a program's own tests, which make databases as an administrator")
def test_drain_runs_what_is_due_and_says_what_was_settled(run) -> None:
    result = run('''
import anyio
import pytest
from app import app
from listener import ConfigError

def test_all(tables):
    tables.execute("INSERT INTO invoices (amount) SELECT generate_series(0, 3)")
    tables.execute("INSERT INTO emails (amount) VALUES (1), (2), (3)")
    settled = anyio.run(tables.drain, app)
    assert [(one.job.queue, one.job.id, one.kind, one.error) for one in settled] == [
        ("invoices", 1, "fail", "zero"),
        ("invoices", 2, "retry", "later"),
        ("invoices", 3, "snooze", None),
        ("invoices", 4, "complete", None),
        ("emails", 1, "complete", None),
        ("emails", 2, "complete", None),
        ("emails", 3, "complete", None),
    ]
    assert settled[3].values == {"sent_at": "now"}
    tables.assert_status("emails", "Done")
    tables.assert_status("invoices", "Done", amount=3)
    tables.assert_status("invoices", "Pending", id=2)
    assert tables.execute("SELECT attempts FROM invoices ORDER BY id") == [(1,), (1,), (0,), (1,)]

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_again(tables):
    """A row that was put off is run by the next drain, if it is due; another test's rows are not here."""
    tables.execute("INSERT INTO invoices (amount) VALUES (1)")
    for attempt in (1, 2):
        [one] = await tables.drain(app, "invoices")
        assert one.job.attempt == attempt
    assert await tables.drain(app, "emails") == []
    with pytest.raises(ConfigError, match="'parcels' is no queue of this listener; known: invoices, emails"):
        await tables.drain(app, "parcels")

def test_the_assertions_can_fail(tables):
    tables.execute("INSERT INTO invoices (amount) VALUES (0), (3)")
    anyio.run(tables.drain, app)
    with pytest.raises(AssertionError) as caught:
        tables.assert_status("invoices", "Done")
    assert str(caught.value) == "invoices: expected Done, but 1 Failed; last_error: zero"
    with pytest.raises(AssertionError, match="invoices, id=9: there is no such row"):
        tables.assert_status("invoices", "Done", id=9)

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_listener_itself_finds_the_database(tables):
    async with app:
        tables.execute("INSERT INTO invoices (amount) VALUES (3)")
        with anyio.fail_after(20):
            while not tables.execute("SELECT id FROM invoices WHERE status = 'Done'"):
                await anyio.lowlevel.checkpoint()

def test_with_psycopg_errors_in_words(tables):
    from listener import DatabaseError
    with pytest.raises(DatabaseError, match="nowhere"):
        tables.execute("SELECT * FROM nowhere")
''')  # fmt: skip
    result.assert_outcomes(passed=5)


@pytest.mark.own_role("a program's own tests, which make databases as an administrator")
def test_the_programs_in_the_readme(run) -> None:
    program, test = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    run(f"import anyio\n{program}\n{test}").assert_outcomes(passed=1)


def test_databases_are_dropped_again(run, server) -> None:
    before = server.execute("SELECT count(*) FROM pg_database")
    run("def test(tables): pass").assert_outcomes(passed=1)
    assert server.execute("SELECT count(*) FROM pg_database") == before


def test_a_run_without_its_fixtures_imports_nothing_more(run) -> None:
    result = run(
        "import sys\ndef test():\n"
        "    assert [name for name in sys.modules if name.startswith('listener.')] == ['listener.testing']\n"
        "    assert not {'psycopg', 'pydantic', 'anyio'} & set(sys.modules)",
        "-p", "no:anyio",
    )  # fmt: skip
    result.assert_outcomes(passed=1)


def test_the_embedded_server_is_the_default(run, pytester: pytest.Pytester, server_bin_dir) -> None:
    pytester.makeconftest("")
    run("def test(listener_database): assert listener_database.execute('SELECT 1') == [(1,)]").assert_outcomes(passed=1)


def test_a_server_may_be_given(run, pytester: pytest.Pytester, server, monkeypatch) -> None:
    pytester.makeconftest("")
    monkeypatch.setenv("LISTENER_TEST_DATABASE_URL", server.url("postgres"))
    port = server.execute("SELECT inet_server_port()")
    run(
        "from listener.config.environment import load_environment\n"
        "def test(listener_database):\n"
        f"    assert listener_database.execute('SELECT inet_server_port()') == {port}\n"
        "    assert load_environment().database_url.get_secret_value() == listener_database.url"
    ).assert_outcomes(passed=1)
