"""`listener run`: the service."""

import typer

from listener.app import App
from listener.config.environment import load_environment
from listener.engine.loop import run_loop
from listener.obs import log

cli = typer.Typer()


@cli.command()
def run() -> None:
    """Run the service until SIGTERM or SIGINT; a second signal cancels what still runs."""
    env = load_environment()
    log.set_up(format=env.log_format)
    run_loop(App(env).run)
