"""Every interleaving of the doorbell: writers, listeners with one slot each, deaths, the watch, handlers that hang.

Written from what `engine/dispatcher.py`, `engine/bell.py` and the triggers do. A state in which nothing has to happen
any more is wrong when a committed row is neither done nor in a hanging handler although a live listener sleeps with a
free slot.
`Rules` switches single rules off: each of these variants must be found wrong.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

#: A row: not there yet, committed, done, or the number of the listener that holds it.
Row: TypeAlias = str | int


@dataclass(frozen=True, slots=True)
class Rules:
    """The protocol; False = that rule is broken."""

    second_drain: bool = True
    lock_not_flag: bool = True
    watch_looks: bool = True
    full_rings: bool = True
    silencer_rings: bool = True
    survivor_rings: bool = True


class Writer(NamedTuple):
    """at: new, open (its INSERT is done, the commit is not), done. rings: it found the bell on."""

    at: str = "new"
    rings: bool = False


class Listener(NamedTuple):
    """at: drain, arm, armed (the second drain), pause, sleep, full, hung, dead, buried.

    told: a wake is waiting. owes: it must ring for the others when its slots are full. rang: it did since it last found
    nothing.
    """

    at: str = "drain"
    told: bool = False
    owes: bool = False
    rang: bool = False

    @property
    def is_alive(self) -> bool:
        return self.at not in ("dead", "buried")


class State(NamedTuple):
    """holder: who holds the bell's lock exclusively. Budgets of what may still happen: deaths, hangs, own wakes."""

    writers: tuple[Writer, ...]
    rows: tuple[Row, ...]
    listeners: tuple[Listener, ...]
    holder: int | None = None
    deaths: int = 0
    hangs: int = 0
    own_wakes: int = 0


def check(rules: Rules, *, writers: int, listeners: int, **budgets: int) -> tuple[int, list[State]]:
    """Visit every state; return how many there are, and the way to a wrong one (empty: there is none)."""
    start = State((Writer(),) * writers, ("none",) * writers, (Listener(),) * listeners, **budgets)
    came_from: dict[State, State | None] = {start: None}
    todo = deque([start])
    while todo:
        state = todo.popleft()
        due = list(_steps(state, rules))
        if not due and _is_wrong(state):
            return len(came_from), _way(state, came_from)
        for follower in (*due, *_chances(state, rules)):
            if follower not in came_from:
                came_from[follower] = state
                todo.append(follower)
    return len(came_from), []


def _is_wrong(state: State) -> bool:
    is_waiting = "committed" in state.rows
    return is_waiting and any(one.at == "sleep" for one in state.listeners)


def _way(state: State | None, came_from: dict[State, State | None]) -> list[State]:
    way: list[State] = []
    while state is not None:
        way.append(state)
        state = came_from[state]
    return way[::-1]


def _steps(state: State, rules: Rules) -> Iterator[State]:
    """What happens sooner or later."""
    for number, writer in enumerate(state.writers):
        if writer.at == "open":
            yield _commit(state, number, writer)
    for number, one in enumerate(state.listeners):
        yield from _listen(state, number, one, rules)


def _chances(state: State, rules: Rules) -> Iterator[State]:
    """What may happen and must not be needed: an INSERT, a death, a handler that hangs, a wake of one's own."""
    for number, writer in enumerate(state.writers):
        if writer.at == "new":
            opened = Writer("open", rings=state.holder is not None)
            yield state._replace(writers=_put(state.writers, number, opened))
    is_last = sum(one.is_alive for one in state.listeners) == 1
    for number, one in enumerate(state.listeners):
        if state.deaths and one.is_alive and not is_last:
            holder = None if state.holder == number else state.holder
            yield _set(state, number, Listener("dead"), holder=holder, deaths=state.deaths - 1)
        if state.hangs and one.at == "full" and not one.owes:
            yield _set(state, number, one._replace(at="hung"), hangs=state.hangs - 1)
        if state.own_wakes and one.at == "sleep":
            yield _set(state, number, one._replace(at="drain"), own_wakes=state.own_wakes - 1)
        if state.holder == number and one.at in ("drain", "full", "hung"):  # busy: turns the bell off
            yield _set(state, number, one._replace(owes=rules.silencer_rings), holder=None)


def _commit(state: State, number: int, writer: Writer) -> State:
    rows = _put(state.rows, number, "committed")
    done = state._replace(writers=_put(state.writers, number, Writer("done")), rows=rows)
    return _ring(done) if writer.rings else done


def _listen(state: State, number: int, one: Listener, rules: Rules) -> Iterator[State]:
    match one.at:
        case "drain" | "armed":
            yield from _drain(state, number, one, rules)
        case "arm":
            yield _arm(state, number, one, rules)
        case "pause":
            yield _set(state, number, one._replace(at="drain"))
        case "sleep" if one.told:
            yield _set(state, number, one._replace(at="drain", told=False))
        case "full" | "hung":
            yield from _work(state, number, one)
        case "dead" if rules.watch_looks:
            yield from _bury(state, number, rules)


def _drain(state: State, number: int, one: Listener, rules: Rules) -> Iterator[State]:
    """Claim at most one row: there is one slot. A holder that finds none may sleep: who came since then has rung."""
    if "committed" not in state.rows:
        is_on = state.holder == number
        found_nothing = one._replace(rang=False)
        yield _set(
            state, number, found_nothing._replace(at="sleep", owes=False) if is_on else found_nothing._replace(at="arm")
        )
        return
    for row, content in enumerate(state.rows):
        if content == "committed":
            claimed = state._replace(rows=_put(state.rows, row, number))
            is_more = rules.full_rings and "committed" in claimed.rows and not one.rang
            yield _set(claimed, number, one._replace(at="full", owes=one.owes or is_more))


def _arm(state: State, number: int, one: Listener, rules: Rules) -> State:
    is_written = any(w.at == "open" and not w.rings for w in state.writers)
    if state.holder is not None:
        return _set(state, number, one._replace(at="sleep", owes=False))
    if is_written and rules.lock_not_flag:
        return _set(state, number, one._replace(at="pause"))
    return _set(state, number, one._replace(at="armed" if rules.second_drain else "sleep", owes=False), holder=number)


def _work(state: State, number: int, one: Listener) -> Iterator[State]:
    """Every slot is taken."""
    if one.owes:
        yield _ring(_set(state, number, one._replace(owes=False, rang=True)), but=number)
        return
    if one.told:  # a ring that we cannot answer
        yield _set(state, number, one._replace(told=False))
    if one.at == "full":
        done = tuple("done" if row == number else row for row in state.rows)
        yield _set(state._replace(rows=done), number, one._replace(at="drain"))


def _bury(state: State, number: int, rules: Rules) -> Iterator[State]:
    """The watch: one survivor gives the rows back, which rings when there were any, looks, and owes a ring."""
    rows = tuple("committed" if row == number else row for row in state.rows)
    buried = _set(state._replace(rows=rows), number, Listener("buried"))
    if rows != state.rows:
        buried = _ring(buried)
    for survivor, one in enumerate(buried.listeners):
        if one.is_alive:
            yield _set(buried, survivor, one._replace(told=True, owes=one.owes or rules.survivor_rings))


def _ring(state: State, *, but: int | None = None) -> State:
    told = (o._replace(told=True) if o.is_alive and n != but else o for n, o in enumerate(state.listeners))
    return state._replace(listeners=tuple(told))


def _set(state: State, number: int, one: Listener, **changes: int | None) -> State:
    return state._replace(listeners=_put(state.listeners, number, one), **changes)


def _put(values: tuple[Any, ...], position: int, value: object) -> tuple[Any, ...]:
    return (*values[:position], value, *values[position + 1 :])
