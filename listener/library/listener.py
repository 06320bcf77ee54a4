"""`Listener`: a program's queues and their handlers, run alone or inside a program that does more."""

import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, overload

import anyio
import anyio.from_thread
import anyio.lowlevel

from listener.config.environment import Environment, load_environment
from listener.config.live import LiveConfig
from listener.core.errors import ConfigError, ListenerError, last_words
from listener.engine.loop import run_loop
from listener.library.assignments import assignments
from listener.library.calls import Many, One
from listener.library.declaration import DEFAULT_CONCURRENCY, Declaration
from listener.obs import log as logs
from listener.process import Process

OneT = TypeVar("OneT", bound=One)
ManyT = TypeVar("ManyT", bound=Many)

_USUAL_MOST = LiveConfig().max_concurrent_operations


class TakesOne(Protocol):
    """Registers a function of one job, and gives it back as it is."""

    def __call__(self, function: OneT, /) -> OneT: ...


class TakesMany(Protocol):
    """Registers a function of a list of jobs, and gives it back as it is."""

    def __call__(self, function: ManyT, /) -> ManyT: ...


class Listener:
    """A program's queues. Settings that are not given come from the environment and `.env`, when it starts.

    http: host:port of the HTTP interface; True = that of LISTENER_HTTP, False = none. Default: `run` has it, `async
    with` does not. shutdown_timeout: seconds that running calls get.
    """

    def __init__(
        self,
        *,
        database_url: str | None = None,
        direct_url: str | None = None,
        schema: str | None = None,
        http: str | bool | None = None,
        shutdown_timeout: float | None = None,
    ) -> None:
        given = {
            "DATABASE_URL": database_url,
            "LISTENER_DIRECT_URL": direct_url,
            "LISTENER_SCHEMA": schema,
            "LISTENER_HTTP": http if isinstance(http, str) else None,
            "LISTENER_SHUTDOWN_TIMEOUT": shutdown_timeout,
        }
        self._given = {name: str(value) for name, value in given.items() if value is not None}
        self._http = None if http is None else bool(http)
        self._declarations: dict[str, Declaration] = {}
        self._process: Process | None = None
        self._beside: AbstractAsyncContextManager[Self] | None = None

    @overload
    def queue(
        self,
        table: str,
        *,
        concurrency: int = ...,
        batch_size: None = None,
        max_attempts: int | None = None,
        timeout: float | None = None,
        results: Sequence[str] = (),
    ) -> TakesOne: ...

    @overload
    def queue(
        self,
        table: str,
        *,
        concurrency: int = ...,
        batch_size: int,
        max_attempts: int | None = None,
        timeout: float | None = None,
        results: Sequence[str] = (),
    ) -> TakesMany: ...

    def queue(
        self,
        table: str,
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        batch_size: int | None = None,
        max_attempts: int | None = None,
        timeout: float | None = None,
        results: Sequence[str] = (),
    ) -> Any:
        """Register the decorated function for the rows of an attached table.

        It takes one `Job`, or with batch_size a list of up to so many, and returns None (done) or outcomes. A plain
        function runs in a thread. concurrency: calls at once in this process. timeout: seconds that one call may
        take. results: columns that `Done({column: value})` may write. Without max_attempts and timeout the live
        configuration counts. Raises ConfigError at once for what cannot work.
        """
        if callable(table):
            raise ConfigError(
                f'@app.queue takes the name of a table: @app.queue("{getattr(table, "__name__", "table")}")'
            )

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            declaration = Declaration(
                name=table,
                function=function,
                concurrency=concurrency,
                batch_size=batch_size,
                max_attempts=max_attempts,
                timeout_s=timeout,
                results=results if isinstance(results, str) else tuple(results),  # type: ignore[arg-type]
            )
            if table in self._declarations:
                raise ConfigError(f"@queue({table!r}) stands there twice; a queue has one handler")
            if self._process is not None:
                raise ConfigError(f"@queue({table!r}): the listener runs already; register before it starts")
            self._declarations[table] = declaration
            return function

        return register

    def run(self) -> None:
        """Work until SIGTERM or SIGINT (a second one cancels what still runs) or `stop`; logs as `listener run` does.

        While the database is away it waits. What no waiting mends ends the program as it ends `listener run`: lines on
        stderr say what is wrong and what to do, and SystemExit carries the code, 2 for settings and 1 for the rest.
        """
        try:
            env = self.settings()
            self.declarations(env)  # what is wrong with them is said before anything starts
            logs.set_up(format=env.log_format)
            run_loop(self._run_alone, env)
        except ListenerError as error:
            # the message is whole: a hundred lines of the engine's frames and the driver's errors would bury it
            told, code = last_words(error)
            print(told, file=sys.stderr)  # noqa: T201 - whoever started the program reads it
            raise SystemExit(code) from None

    async def __aenter__(self) -> Self:
        """Work beside the block, without signals and without touching the program's logging; leaving it stops.

        Returns at once, also while the database is away. When the engine fails, the block is cancelled and the error
        raised in its place. A block that is cancelled cancels the running calls; their rows are given back.
        """
        beside = self._running_beside(self.settings())
        await beside.__aenter__()
        self._beside = beside
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self._beside is None:
            raise ConfigError("the listener was never entered")
        beside, self._beside = self._beside, None
        return await beside.__aexit__(kind, error, trace)

    def stop(self) -> None:
        """Claim no more and end when running calls have ended; called again: cancel them. From any thread.

        Does nothing when the listener is not running.
        """
        process = self._process
        if process is None:
            return
        if threading.get_ident() == self._thread:
            process.supervisor.stop()
        else:
            anyio.from_thread.run_sync(process.supervisor.stop, token=self._token)

    @property
    def address(self) -> str:
        """Where its HTTP interface is; empty while there is none."""
        return "" if self._process is None else self._process.address

    def settings(self, **given: str) -> Environment:
        """Read the settings; `given` (variable → value) wins over everything. Raises ConfigError."""
        return load_environment({**os.environ, **self._given, **given})

    def declarations(self, env: Environment) -> list[Declaration]:
        """Return the queues that this process works on. Raises ConfigError when there are none."""
        if not self._declarations:
            raise ConfigError('the listener has no queue: register a handler with @app.queue("table")')
        unknown = [name for name in env.queues or () if name not in self._declarations]
        if unknown:
            known = ", ".join(self._declarations)
            raise ConfigError(
                f"LISTENER_QUEUES names {unknown[0]!r}, which is no queue of this program; known: {known}"
            )
        return [self._declarations[name] for name in env.queues or self._declarations]

    async def _run_alone(self, env: Environment) -> None:
        async with self._opened(env, serves=self._http is not False, log=None) as process:
            await process.run()

    @asynccontextmanager
    async def _running_beside(self, env: Environment) -> AsyncIterator[Self]:
        failure: Exception | None = None
        raised: Exception | None = None
        async with self._opened(env, serves=bool(self._http), log=logs.borrowed()) as process:
            stop = process.supervisor.stop
            async with anyio.create_task_group() as group:

                async def work() -> None:
                    nonlocal failure
                    with anyio.CancelScope(shield=True):  # it ends by `stop`, in order, so that rows are given back
                        try:
                            await process.run(obeys_signals=False)
                        except Exception as error:  # noqa: BLE001 - raised below: the group would wrap it
                            failure = error
                    if failure is not None:
                        group.cancel_scope.cancel("the engine has failed")

                group.start_soon(work)
                try:
                    yield self
                except Exception as error:  # noqa: BLE001 - raised below: the group would wrap it
                    raised = error
                except BaseException:  # cancelled: nobody waits for running calls
                    stop()
                    raise
                finally:
                    stop()
        if failure is not None:
            raise failure from raised
        if raised is not None:
            raise raised

    @asynccontextmanager
    async def _opened(self, env: Environment, *, serves: bool, log: Any) -> AsyncIterator[Process]:
        if self._process is not None:
            raise ConfigError("the listener runs already; make another Listener for a second one")
        declarations = self.declarations(env)
        declared = sum(declaration.concurrency for declaration in declarations)

        def most(live: LiveConfig) -> int:
            """The common limit's default is the service's; it must not cut what the program declares."""
            limit = live.max_concurrent_operations
            return declared if limit == _USUAL_MOST else limit

        async def prepare() -> None:
            if not process.tables:
                for assignment in await assignments(process.pool, declarations, logs.own() if log is None else log):
                    process.assign(assignment)

        process = Process(
            env,
            dict.fromkeys((declaration.name for declaration in declarations), "rows"),
            serves=serves,
            log=log,
            tells_operations=False,
            prepare=prepare,
            most=most,
        )
        async with process:
            self._token, self._thread = anyio.lowlevel.current_token(), threading.get_ident()
            self._process = process
            try:
                yield process
            finally:
                self._process = None
