"""The library beside RAW, a bare psycopg loop on the same table, and beside procrastinate and pgqueuer where they are
installed (`pip install --group bench`), in one run.

    .venv/bin/python -m bench.engine            (from the folder tests/)

A private PostgreSQL with fsync on; each measurement in a fresh database; the engines take turns within a round, so that
a slow minute of the machine hits all. Prints a table (medians, in brackets the least and the most of the rounds) and
writes everything as JSON to the file given by --json.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.engines import ours, pgqueuer, procrastinate, raw
from bench.engines.base import Engine
from bench.host import Host, server
from bench.measures import writers
from bench.measures.drain import drain
from bench.measures.idle import idle
from bench.measures.kill import RESCUERS, kill
from bench.measures.latency import bare_notify, latency
from bench.measures.scale import scale
from bench.measures.weight import finished_rows, steady
from bench.report import report, writers_report

#: RAW after ours: its ratio is the one that counts.
ENGINES = (ours.ENGINE, raw.ENGINE, pgqueuer.ENGINE, procrastinate.ENGINE)
Figures = dict[str, dict[str, list[dict[str, float]]]]
Take = Callable[[Host, Engine], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; --quick takes little."""

    drain: int = 100_000
    sleep_drain: int = 30_000
    singles: int = 400
    stream: int = 3_000
    slice_s: float = 3
    turns: int = 10
    idle_s: float = 60
    kill_limit_s: float = 60
    finished: int = 10_000_000
    held_s: float = 600

    def part(self, part: float) -> "Sizes":
        """Less of everything, but enough calls for a p99."""
        return Sizes(
            drain=int(self.drain * part),
            sleep_drain=int(self.sleep_drain * part),
            singles=max(int(self.singles * part), 200),
            stream=max(int(self.stream * part), 600),
            slice_s=max(self.slice_s * part, 1),
            turns=max(int(self.turns * part), 1),
            idle_s=self.idle_s * part,
            kill_limit_s=max(self.kill_limit_s * part, 10),
            finished=int(self.finished * part),
            held_s=self.held_s * part,
        )


QUICK = Sizes(
    drain=5_000,
    sleep_drain=2_000,
    singles=40,
    stream=200,
    slice_s=1,
    turns=1,
    idle_s=3,
    kill_limit_s=10,
    finished=100_000,
    held_s=3,
)
#: What hardly differs from round to round, or takes long: in the first round only.
ONCE = ("idle", "kill-", "scale-", "analyzed-", "finished", "horizon-")
#: Measurements that only these engines take part in: the others have no replicas, or another table.
ONLY = {
    "kill-replica": ("ours", "pgqueuer", "procrastinate"),
    "kill-half": ("ours",),
    **dict.fromkeys(("scale-1", "scale-2", "scale-4"), ("ours",)),
    **dict.fromkeys(("analyzed-empty", "analyzed-never", "finished-none", "finished"), ("ours", "raw")),
    **dict.fromkeys(("horizon-free", "horizon-held"), ("ours", "raw")),
}


def measurements(sizes: Sizes) -> dict[str, Take]:
    """Name → what is taken of one engine in each round."""

    def rest(host: Host, engine: Engine) -> dict[str, float]:
        return idle(
            host, engine, sizes.idle_s, ("orders", "invoices", "emails") if engine is ours.ENGINE else ("orders",)
        )

    def enqueue(host: Host, engine: Engine) -> dict[str, float]:
        return {"commits_per_s": writers.enqueue(host, engine, rounds=1, seconds=sizes.slice_s)[0]}

    def rescued(rescuer: str) -> Take:
        return lambda host, engine: kill(host, engine, rescuer, sizes.kill_limit_s)

    def analyzed(when: str) -> Take:
        return lambda host, engine: drain(host, engine, "noop", sizes.drain, when)

    def spread(processes: int) -> Take:
        return lambda host, engine: scale(host, engine, processes, sizes.sleep_drain, sizes.singles // 4)

    def beside(finished: int) -> Take:
        return lambda host, engine: finished_rows(host, engine, finished, sizes.singles)

    def loaded(*, is_held: bool) -> Take:
        return lambda host, engine: steady(host, engine, sizes.held_s, sizes.drain // 10, is_held=is_held)

    return {
        "drain": lambda host, engine: drain(host, engine, "noop", sizes.drain),
        "drain-5ms": lambda host, engine: drain(host, engine, "sleep", sizes.sleep_drain),
        "latency-idle": lambda host, engine: latency(host, engine, sizes.singles, 0.015),
        "latency-300": lambda host, engine: latency(host, engine, sizes.stream, 1 / 300),
        "enqueue": enqueue,
        "idle": rest,
        **{f"kill-{rescuer}": rescued(rescuer) for rescuer in RESCUERS},
        **{f"analyzed-{when}": analyzed(when) for when in ("empty", "never")},
        **{f"scale-{processes}": spread(processes) for processes in (1, 2, 4)},
        "finished-none": beside(0),
        "finished": beside(sizes.finished),
        "horizon-free": loaded(is_held=False),
        "horizon-held": loaded(is_held=True),
    }


def main() -> None:
    sizes, options = arguments()
    takes = {name: take for name, take in measurements(sizes).items() if name in options.only}
    engines = [engine for engine in ENGINES if is_there(engine, options.engines)]
    result: dict[str, Any] = {"sizes": repr(sizes), "rounds": options.rounds}
    with server(options.postgres) as host:
        result["versions"] = host.versions(engines)
        result["figures"] = {name: {engine.name: [] for engine in engines} for name in takes}
        for name in take_all(host, takes, engines, sizes, options.rounds, result["figures"]):
            print(name, file=sys.stderr, flush=True)
            write(options.json, result)  # a long run that is cut short was not for nothing
        if "writers" in options.only:
            loads = writers.LOADS[1:3] if options.quick else writers.LOADS
            turns = sizes.turns * options.rounds
            result["writers"] = writers.writers(host, loads, writers.VARIANTS, turns=turns)
    print(report(result["figures"]))
    if "writers" in result:
        print(writers_report(result["writers"]))
    write(options.json, result)


def write(path: Path | None, result: dict[str, Any]) -> None:
    """Write the figures as JSON, if that is wished."""
    if path:
        path.write_text(json.dumps(result, indent=2) + "\n")


def arguments() -> tuple[Sizes, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*measurements(Sizes()), "writers"]
    parser.add_argument("--postgres", type=Path, help="directory of PostgreSQL binaries; default: the embedded 18")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--engines", nargs="+", choices=[engine.name for engine in ENGINES], metavar="ENGINE")
    parser.add_argument("--part", type=float, default=1.0, help="of the usual sizes and times")
    parser.add_argument("--rows", type=int, help="finished rows in the table, for `finished`; default: 10,000,000")
    parser.add_argument(
        "--held", type=float, help="seconds that vacuum is held off, or left alone, for `horizon-`; default: 600"
    )
    parser.add_argument("--quick", action="store_true", help="little of everything: does it work")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    sizes = QUICK if options.quick else Sizes().part(options.part)
    return replace(sizes, finished=options.rows or sizes.finished, held_s=options.held or sizes.held_s), options


def is_there(engine: Engine, wanted: list[str] | None) -> bool:
    """Tell whether an engine can be measured; says why not."""
    if wanted is not None and engine.name not in wanted:
        return False
    missing = [name for name in engine.needs if find_spec(name) is None]
    if missing:
        print(f"{engine.name} is left out: {', '.join(missing)} is not installed (pip install --group bench)")
    return not missing


def take_all(
    host: Host, takes: dict[str, Take], engines: list[Engine], sizes: Sizes, rounds: int, figures: Figures
) -> Iterator[str]:
    """Add to measurement → engine → figures of each round; yields what was taken. One that fails is said, and is
    missing in its round."""
    for number in range(rounds):
        for name, take in takes.items():
            if number and name.startswith(ONCE):
                continue
            if name.startswith("latency"):
                rows, interval_s = (sizes.singles, 0.015) if name == "latency-idle" else (sizes.stream, 1 / 300)
                figures[name].setdefault("bare NOTIFY", []).append(bare_notify(host, ours.ENGINE, rows, interval_s))
            for engine in engines:
                if engine.name not in ONLY.get(name, (engine.name,)):
                    continue
                try:
                    figures[name][engine.name].append(take(host, engine))
                except RuntimeError as error:
                    print(f"{name}, {engine.name}: {error}", file=sys.stderr, flush=True)
            yield f"round {number + 1}: {name}"


if __name__ == "__main__":
    main()
