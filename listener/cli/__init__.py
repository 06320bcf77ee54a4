"""The command line. Exit 0 = done, 1 = failed, 2 = wrong usage, 130 = interrupted; errors are clear lines on stderr."""

import gc
import io
import signal
import sys

from listener.core.errors import ListenerError, last_words


def main() -> None:
    """Run the command line; a known error ends without a traceback."""
    # Most of the start is imports, and Ctrl-C inside one prints a traceback: until they are done it simply ends us.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)
    # structlog would load rich, 60 ms and 4 MiB, for tracebacks that we write as plain text
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    gc.disable()  # next to nothing that is imported is garbage, and looking for it takes a tenth of a start
    from listener.cli.commands import build

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without arrows shows the findings with `?` in their place
    cli = build(sys.argv[1] if len(sys.argv) > 1 else None)
    gc.freeze()  # nor is it ever walked through
    gc.enable()
    signal.signal(signal.SIGINT, interrupt)
    try:
        cli()
    except ListenerError as error:
        told, code = last_words(error)
        print(told, file=sys.stderr)
        sys.exit(code)
