"""The ``mobileinst`` application: its commands and the one place where errors become exit codes."""

from __future__ import annotations

import sys

import click
import typer

from mobileinst_deploy import __version__
from mobileinst_deploy.cli import bench, device, evaluate, run, spine, train
from mobileinst_deploy.cli.console import people
from mobileinst_deploy.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, MobileInstError

EPILOG = (
    "Exit codes: 0 good; 1 verification failed; 2 bad input; 3 device not available; "
    "4 measurement invalid; 130 interrupted."
)

app = typer.Typer(
    name="mobileinst",
    help="Take MobileInst video instance segmentation from a checkpoint to a phone.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mobileinst {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    _root.debug = debug  # type: ignore[attr-defined]


for _command in (
    spine.models,
    spine.export,
    spine.verify,
    bench.bench,
    run.run,
    evaluate.evaluate,
    train.train,
    spine.inspect,
    device.devices,
    device.doctor,
):
    app.command()(_command)
app.add_typer(device.device_app)


def main() -> None:
    """Run the command line and exit with the documented code."""
    try:
        code = app(standalone_mode=False)
    except MobileInstError as error:
        _explain(error)
        sys.exit(error.exit_code)
    except click.exceptions.ClickException as error:
        error.show()
        sys.exit(EXIT_BAD_INPUT)
    except (KeyboardInterrupt, click.exceptions.Abort):
        people.print("Interrupted; nothing half written was left behind.")
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(code or 0)


def _explain(error: MobileInstError) -> None:
    if getattr(_root, "debug", False):
        people.print_exception()
    people.print(f"[bold red]error:[/] {_escape(error.cause)}.", soft_wrap=True)
    people.print(f"{_escape(error.next_step)}.", soft_wrap=True)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
