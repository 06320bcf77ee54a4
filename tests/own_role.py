"""``--as-runtime-role``, and the mark `own_role` of the tests in which the product connects as a role that they chose.

With the option a private server logs its connections: a test that let the product in as anybody but the runtime role
fails, unless it is marked. The reasons are listed at the end of the run.
"""

from collections import Counter
from collections.abc import Iterator

import pytest
from login import Login, RuntimeLogin

LOGIN = pytest.StashKey[Login]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--as-runtime-role",
        action="store_true",
        help="the service and its commands connect as the runtime role of deploy/roles.sql, not as the administrator",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "own_role(reason): the product connects as a role that the test chose, with --as-runtime-role too"
    )


@pytest.fixture(scope="session")
def service_login(request: pytest.FixtureRequest) -> Login:
    """Who the service is in this run."""
    config = request.config
    if LOGIN not in config.stash:
        is_asked = config.getoption("--as-runtime-role")
        config.stash[LOGIN] = RuntimeLogin(psql=request.getfixturevalue("psql")) if is_asked else Login()
    return config.stash[LOGIN]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    yield
    login = item.config.stash.get(LOGIN, Login())
    found, mark = login.strangers(), item.get_closest_marker("own_role")
    if mark is not None and login.settings:
        item.user_properties.append(("own_role", mark.args[0]))
    elif found:
        pytest.fail(f"connected as another than the runtime role: {'; '.join(sorted(set(found)))}", pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.getoption("--as-runtime-role"):
        return
    reasons = Counter(
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "teardown"
        for name, value in report.user_properties
        if name == "own_role"
    )
    terminalreporter.section("with a role of their own, instead of the runtime role")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count:4} tests: {reason}")
