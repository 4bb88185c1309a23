"""The ``mobileinst`` application: its commands and the one place where errors become exit codes."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from mobileinst_deploy import __version__
from mobileinst_deploy.cli import bench, device, evaluate, optimize, pair, profile, run, train
from mobileinst_deploy.cli.console import people
from mobileinst_deploy.core.errors import (
    EXIT_BAD_INPUT,
    EXIT_BUG,
    EXIT_INTERRUPTED,
    MobileInstError,
)

EPILOG = (
    "Exit codes: 0 good; 1 verification failed; 2 bad input; 3 device not available; "
    "4 measurement invalid; 70 a bug in mobileinst; 130 interrupted."
)


class _Commands(TyperGroup):
    """Runs a command and turns what it raises into a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MobileInstError as error:
            _explain(ctx, error.cause, error.next_step)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            people.print("Interrupted; nothing half written was left behind.")
            raise typer.Exit(EXIT_INTERRUPTED) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            _explain(ctx, str(error), "Check the path, its permissions and the space left")
            raise typer.Exit(EXIT_BAD_INPUT) from error
        except Exception as error:  # whatever else: its traceback is for who asks with --debug
            if _is_typers_own(error):
                raise
            _explain(
                ctx,
                f"mobileinst has a bug: {type(error).__name__}: {error}",
                "Run it again with `mobileinst --debug ...` and report what it prints",
            )
            raise typer.Exit(EXIT_BUG) from error


app = typer.Typer(
    name="mobileinst",
    cls=_Commands,
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
    """Options of every command; ``debug`` is read where errors are shown."""


for _command in (
    pair.models,
    pair.export,
    pair.verify,
    bench.bench,
    profile.profile,
    run.run,
    evaluate.evaluate,
    train.train,
    optimize.optimize,
    optimize.quantize,
    pair.inspect,
    device.devices,
    device.doctor,
):
    app.command()(_command)
app.add_typer(device.device_app)


def main() -> None:
    """Run the command line and exit with the documented code."""
    # Without it Python ends at once: what it started goes on, and temporary files stay.
    signal.signal(signal.SIGTERM, _terminate)
    app()


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _explain(ctx: Any, cause: str, next_step: str) -> None:
    from rich.markup import escape

    if ctx.params.get("debug"):
        people.print_exception()
    people.print(f"[bold red]error:[/] {escape(cause)}.", soft_wrap=True)
    people.print(f"{escape(next_step)}.", soft_wrap=True)


def _is_typers_own(error: Exception) -> bool:
    """Whether Typer shows it: usage errors, Exit and Abort."""
    return type(error).__module__.split(".")[0] in ("typer", "click")
