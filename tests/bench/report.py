"""The tables of `bench.engine`."""

from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any

#: Measurement, figure → what stands in the table.
ROWS = {
    ("drain", "jobs_per_s"): "drain, no-op handlers, jobs/s",
    ("drain-5ms", "jobs_per_s"): "drain, 5 ms handlers, 100 at a time, jobs/s",
    ("latency-idle", "p50"): "commit → handler, idle, p50, ms",
    ("latency-idle", "p99"): "the same, p99",
    ("latency-300", "p50"): "commit → handler, 300 inserts/s, p50, ms",
    ("latency-300", "p99"): "the same, p99",
    ("enqueue", "commits_per_s"): "one-row commits/s through the enqueue path, 16 writers, nobody listens",
    ("idle", "statements_per_s"): "idle statements/s (ours: three queues)",
    ("idle", "cpu_percent"): "idle worker, % of one processor",
    ("kill-restart", "killed"): "kill -9, 100 in flight → all running in a process started then, s",
    ("kill-restart", "ready"): "the same, from when that process is ready",
    ("kill-replica", "killed"): "kill -9, 100 in flight → all running in an idle replica, s",
    ("kill-half", "killed"): "two of four killed → all 100 rows running in the others, s",
    ("analyzed-empty", "jobs_per_s"): "drain, no-op handlers, table analyzed while empty, jobs/s",
    ("analyzed-never", "jobs_per_s"): "drain, no-op handlers, table never analyzed, jobs/s",
    **{
        (f"scale-{count}", figure): f"{count} process{'es' if count > 1 else ''}, 5 ms handlers: {text}"
        for count in (1, 2, 4)
        for figure, text in {
            "jobs_per_s": "jobs/s",
            "twice": "rows run twice",
            "share_least": "least share of one process",
            "share_most": "largest share",
            "wakes_per_row": "wakes by a notification for one row, all idle",
        }.items()
    },
    **{
        (name, figure): f"one row beside {text} finished ones: {of}"
        for name, text in {"finished-none": "no", "finished": "very many"}.items()
        for figure, of in {
            "pages_per_row": "pages of the table and its indexes, start-up included",
            "p50": "commit → handler, p50, ms",
        }.items()
    },
    **{
        (f"horizon-{how}", figure): f"no-op drain in small batches, {text}: {of}"
        for how, text in {"free": "vacuum left alone", "held": "vacuum horizon held"}.items()
        for figure, of in {
            "jobs_per_s_first": "jobs/s at the start",
            "jobs_per_s_last": "at the end",
            "kept": "part that is kept",
            "kept_median": "the same of the batch in the middle",
        }.items()
    },
}
PAIRS = (
    ("bell on", "notify"),
    ("slots full", "empty trigger"),
    ("slots full", "no trigger"),
    ("draining", "notify draining"),
    ("draining", "raw draining"),
    ("draining", "empty trigger"),
)


def report(figures: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]) -> str:
    """One line for each figure; the ratio is of the medians."""
    names = list(dict.fromkeys(name for by_engine in figures.values() for name in by_engine))
    lines = [f"| measurement | {' | '.join(names)} | ours/raw |", "|---" * (len(names) + 2) + "|"]
    for (measurement, figure), text in ROWS.items():
        taken = {
            name: [one[figure] for one in rounds if figure in one]
            for name, rounds in figures.get(measurement, {}).items()
        }
        if not any(taken.values()):
            continue
        ratio = "–"
        if taken.get("ours") and taken.get("raw") and 0 < median(taken["raw"]) < float("inf"):
            ratio = f"{median(taken['ours']) / median(taken['raw']):.2f}"
        lines.append(f"| {text} | {' | '.join(spread(taken.get(name, [])) for name in names)} | {ratio} |")
    return "\n".join(lines)


def writers_report(figures: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """One line for each load; then ratios: the median over the pairs of one turn, in brackets their middle half."""
    names = list(next(iter(figures.values())))
    pairs = [pair for pair in PAIRS if set(pair) <= set(names)]
    lines = [f"| commits/s | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {load} | {' | '.join(half(of[name]) for name in names)} |" for load, of in figures.items()]
    lines += ["", f"| ratio | {' | '.join(f'{one} / {other}' for one, other in pairs)} |"]
    lines.append("|---" * (len(pairs) + 1) + "|")
    for load, of in figures.items():
        cells = [half([a / b for a, b in zip(of[one], of[other], strict=True)]) for one, other in pairs]
        lines.append(f"| {load} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """The median, and of several the least and the most."""
    if not values:
        return "–"
    if len(values) == 1:
        return number(values[0])
    return f"{number(median(values))} ({number(min(values))}–{number(max(values))})"


def half(values: Sequence[float]) -> str:
    """The median, and of several where the middle half of them lies."""
    if len(values) < 2:
        return spread(values)
    low, middle, high = quantiles(values, method="inclusive")
    return f"{number(middle)} ({number(low)}–{number(high)})"


def number(value: float) -> Any:
    """Whole when it is large."""
    if value == float("inf"):
        return "never"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
