"""`listener migrate`: the database's schema."""

from typing import Annotated

import typer

from listener.config.environment import load_environment
from listener.core.errors import ConfigError
from listener.db import migrate as db

cli = typer.Typer()


@cli.command()
def migrate(
    status: Annotated[bool, typer.Option("--status", help="Say what is applied; exit 1 if something is not.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the SQL that would run, and run none.")] = False,
) -> None:
    """Bring the database's schema to this release. Safe to run again, and from several places at once."""
    if status and dry_run:
        raise ConfigError("--status and --dry-run exclude each other; give one")
    env = load_environment()
    url, schema = env.direct_url.get_secret_value(), env.schema_name
    if dry_run:
        print(db.dry_run(url, schema), end="")
    elif status:
        files = db.status(url, schema)
        for file in files:
            applied_at = f"{file.applied_at:%Y-%m-%d %H:%M:%S%z}" if file.applied_at else ""
            print(f"{file.state:<8} {file.kind:<9} {file.name:<50} {applied_at}".rstrip())
        if any(file.state != "applied" for file in files):
            raise typer.Exit(1)
    else:
        report = db.migrate(url, schema)
        for name in report.applied:
            print(f"applied {name}")
        print(f"schema {schema}: {len(report.applied)} applied, {report.unchanged_count} unchanged")
