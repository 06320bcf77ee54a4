"""The bench of the engine runs and tells what it found; what it found is not judged here."""

import json
import subprocess
import sys
from pathlib import Path

from bench.report import report, spread, writers_report

TESTS = Path(__file__).parents[1]


def test_a_quick_drain_gives_a_table_and_figures(tmp_path: Path) -> None:
    options = ["--quick", "--rounds", "1", "--only", "drain", "--engines", "ours", "raw", "--json", tmp_path / "out"]
    command = [sys.executable, "-m", "bench.engine", *map(str, options)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| drain, no-op handlers, jobs/s |" in done.stdout
    figures = json.loads((tmp_path / "out").read_text())["figures"]["drain"]
    assert figures["ours"][0]["jobs_per_s"] > 0
    assert figures["raw"][0]["jobs_per_s"] > 0


def test_the_ratio_is_of_the_medians() -> None:
    figures = {"drain": {"ours": [{"jobs_per_s": n} for n in (1.0, 8.0, 9.0)], "raw": [{"jobs_per_s": 10.0}]}}
    assert report(figures).splitlines()[-1] == ("| drain, no-op handlers, jobs/s | 8.00 (1.00–9.00) | 10.00 | 0.80 |")


def test_writers_are_compared_turn_by_turn() -> None:
    figures = {"4 writers": {"empty trigger": [100.0, 10.0, 50.0], "slots full": [90.0, 9.0, 25.0]}}
    assert writers_report(figures).splitlines()[-1] == "| 4 writers | 0.90 (0.70–0.90) |"


def test_what_never_came_is_said() -> None:
    assert spread([float("inf")]) == "never"
    assert spread([]) == "–"
