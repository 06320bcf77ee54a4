"""The baseline of `configuration.py`: a bare script that hears of a change and reads the row again. No check of the
value, no other key, nothing that follows it: the floor under everything that a service adds.

    python -m bench.raw_configuration DATABASE_URL PARAM_KEY

Writes lines in the form of the service's own, so that both are read by the same eyes.
"""

import json
import sys
from datetime import UTC, datetime

import psycopg


def main(url: str, key: str) -> None:
    """Listen for ever."""
    with psycopg.connect(url, autocommit=True) as conn, psycopg.connect(url, autocommit=True) as ear:
        ear.execute("LISTEN config_changed")
        tell("Session opened")
        for _ in ear.notifies():
            row = conn.execute("SELECT param_value FROM configuration_params WHERE param_key = %s", [key]).fetchone()
            tell(f"Configuration changed: {key}", after=row[0] if row else None)


def tell(event: str, **fields: object) -> None:
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%fZ}"
    print(json.dumps({"timestamp": now, "event": event, **fields}), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
