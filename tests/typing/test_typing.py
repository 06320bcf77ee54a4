"""What a type checker tells a program's author."""

import re
import subprocess
import sys
from pathlib import Path

import listener

PROGRAM = Path(__file__).with_name("program.py")


def test_a_program_is_checked_strictly_and_what_is_wrong_is_found(tmp_path: Path) -> None:
    options = ["--strict", "--config-file=", f"--cache-dir={tmp_path}", "--no-error-summary", "--hide-error-context"]
    mypy = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--follow-imports=silent", str(PROGRAM)],
        capture_output=True, text=True, timeout=170,
    )  # fmt: skip
    lines = PROGRAM.read_text().splitlines()
    expected = [(number, line.partition("# error: ")[2]) for number, line in enumerate(lines, 1)]
    wanted = {(number, code) for number, codes in expected for code in codes.split()}
    found = re.findall(r":(\d+): error: .*(\[[a-z-]+\])$", mypy.stdout, flags=re.MULTILINE)
    assert {(int(number), code) for number, code in found} == wanted, mypy.stdout + mypy.stderr
    assert len(wanted) > 5


def test_every_name_is_there_and_importing_the_package_loads_nothing_else() -> None:
    assert all(getattr(listener, name).__name__ == name for name in listener.__all__)
    assert set(listener.__all__) <= set(dir(listener))
    code = "import listener.core.job, sys; print([m for m in sys.modules if m in ('anyio', 'pydantic', 'psycopg')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(listener.__file__).with_name("py.typed").exists()
