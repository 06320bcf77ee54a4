"""The command line. Exit 0 = done, 1 = failed, 2 = wrong usage; errors are one clear line on stderr."""

import sys

from listener.cli.commands import cli
from listener.core.errors import ConfigError, ListenerError


def main() -> None:
    """Run the command line; a known error ends without a traceback."""
    try:
        cli()
    except ConfigError as error:
        _fail(error, 2)
    except ListenerError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: ListenerError, code: int) -> None:
    print(f"listener: {error}", file=sys.stderr)
    sys.exit(code)
