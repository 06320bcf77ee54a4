"""The example files of docs/orders, one of each format, are what they say."""

import io
from datetime import UTC
from pathlib import Path

import pytest

from listener.workflows.imports.found import Rules
from listener.workflows.imports.reader import FORMATS, Reader

FILES = sorted((Path(__file__).parents[2] / "docs" / "orders").glob("*.xml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_example_is_one_order(path: Path) -> None:
    reader = Reader(io.BytesIO(path.read_bytes()), Rules(zone=UTC))
    assert sum(batch.count for batch in reader.batches()) == 1
    assert reader.rejects == []


def test_every_format_has_an_example() -> None:
    texts = [path.read_text() for path in FILES]
    roots = [form.root.rpartition("}")[2] for form in FORMATS]
    assert sorted(root for root in roots for text in texts if f"<{root} " in text) == sorted(roots)
