"""Small modules, small functions, small packages: a reader holds one in mind at a time."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "listener"
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES, MOST_FUNCTION_LINES, MOST_MODULES = 300, 50, 12

#: What reads better in one piece, how long it may be, and why.
LONGER = {
    "listener/obs/log.py on_event": (70, "one case an event"),
    "listener/obs/metrics.py __init__": (90, "one metric after the other"),
    "listener/engine": (17, "one part a file, which the supervisor puts together"),
    "listener/db": (28, "the gateways, the migrations and the embedded server"),
}


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE.parent))


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_module_and_its_functions_are_short(module: Path) -> None:
    """300 lines and 50, docstrings and comments included."""
    text = module.read_text(encoding="utf-8")
    long = {
        node.name: size
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or 0) - min([node.lineno, *(d.lineno for d in node.decorator_list)]) + 1)
        > LONGER.get(f"{name(module)} {node.name}", (MOST_FUNCTION_LINES, ""))[0]
    }
    assert long == {}
    assert len(text.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("package", sorted({module.parent for module in MODULES}), ids=name)
def test_package_is_short(package: Path) -> None:
    """`__init__` says what it is and does not count."""
    modules = [path.name for path in package.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= LONGER.get(name(package), (MOST_MODULES, ""))[0], modules


def test_there_is_something_to_measure() -> None:
    assert len(MODULES) > 30
