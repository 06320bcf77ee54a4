"""Callers without the secret leave a trace in the log, and cannot fill it."""

from listener.web.webhooks import TELL_EVERY_S, Refusals


def test_refusals_are_told_once_a_minute_with_their_number() -> None:
    told: list[int] = []
    refusals = Refusals(told.append)
    for second in range(1_000, 1_000 + int(2 * TELL_EVERY_S) + 1):
        refusals.note(float(second))

    assert told == [1, 60, 60]
