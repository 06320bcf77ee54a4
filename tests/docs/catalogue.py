"""Makes sql/catalogue.json, what the SQL files make, for `listener doctor`: `cd tests && python -m docs.catalogue`."""

import json
import tempfile
from pathlib import Path
from typing import Any

import anyio

from listener.db.doctor import Patient
from listener.db.embedded import Cluster, embedded_bin_dir
from listener.db.files import sql_dir
from listener.db.migrate import migrate
from listener.db.pool import Pool

FILE = sql_dir() / "catalogue.json"


async def definitions(url: str, schema: str) -> list[dict[str, Any]]:
    """What is there now."""
    async with Pool(url, schema=schema, is_pooled=False, min_size=0, max_size=1) as pool:
        return [dict(row) for row in await Patient(pool).ask("definitions")]


def text(rows: list[dict[str, Any]]) -> str:
    """A line for each thing, so that a change of one shows as one."""
    lines = [json.dumps(row, ensure_ascii=False) for row in sorted(rows, key=lambda row: (row["kind"], row["name"]))]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def main() -> None:
    """Write the file, from the embedded server."""
    with (
        tempfile.TemporaryDirectory(prefix="listener-") as folder,
        Cluster(bin_dir=embedded_bin_dir(), data_dir=Path(folder) / "data", settings={}) as cluster,
    ):
        migrate(cluster.url(), "public")
        FILE.write_text(text(anyio.run(definitions, cluster.url(), "public")))


if __name__ == "__main__":
    main()
