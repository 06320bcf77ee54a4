"""Recycling: counted, looked at, told once."""

import time

import pytest

from listener.core.events import OperationEnded, Woke
from listener.obs.recycling import Recycling, resident_mib

END = OperationEnded(queue="upload", operation="upload-1-1", active=0, result="completed", duration_s=0.1)


def test_the_operation_that_reaches_the_number_tells_once() -> None:
    told: list[str] = []
    recycling = Recycling(told.append, most_operations=3, most_mib=0, memory_mib=lambda: 1e9)
    for _ in range(2):
        recycling.on_event(END)
        recycling.on_event(Woke(queue="upload", reason="notify"))
    assert told == []
    for _ in range(2):
        recycling.on_event(END)
    assert told == ["3 operations (LISTENER_RECYCLE_AFTER)"]


def test_memory_is_looked_at_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    looks = iter([199.0, 200.4])
    recycling = Recycling(told.append, most_operations=0, most_mib=200, memory_mib=lambda: next(looks))
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(5):
        recycling.on_event(END)
    assert told == []
    now += 1.0
    recycling.on_event(END)
    assert told == ["200 MiB of memory, 200 allowed (LISTENER_RECYCLE_MEMORY)"]


def test_without_limits_it_never_does() -> None:
    recycling = Recycling(pytest.fail, most_operations=0, most_mib=0, memory_mib=lambda: 1e9)
    for _ in range(1_000):
        recycling.on_event(END)


def test_memory_is_that_of_this_process() -> None:
    before = resident_mib()
    ballast = bytearray(b"x") * (64 << 20)
    assert 60 <= resident_mib() - before <= 90
    del ballast
