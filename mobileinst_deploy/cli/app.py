"""The ``mobileinst`` application: its commands and the one place where errors become exit codes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperArgument

from mobileinst_deploy.cli import (
    bench,
    compare,
    console,
    device,
    devices,
    doctor,
    evaluate,
    export,
    history,
    inspect,
    models,
    new,
    optimize,
    predict,
    process,
    profile,
    quantize,
    report,
    run,
    train,
    verify,
)
from mobileinst_deploy.cli.help import PlainCommand, PlainGroup
from mobileinst_deploy.core.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_OK,
    ConfigError,
    InputError,
    MobileInstError,
)
from mobileinst_deploy.core.interrupt import Ended
from mobileinst_deploy.core.text import shown
from mobileinst_deploy.core.version import __version__

EPILOG = (
    "Exit codes: 0 good; 1 verification failed; 2 bad input; 3 device not available; "
    "4 measurement invalid; 70 a bug in mobileinst; 130 interrupted (129 by SIGHUP, "
    "143 by SIGTERM)."
)


class _Ended(Exception):
    """An interruption or a system's error, of which typer would make exits without a word."""


class _Commands(PlainGroup):
    """Runs a command and turns whatever ends it into a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, OSError) as error:
            raise _Ended from error

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        words = list(sys.argv[1:] if args is None else args)
        json, debug = "--json" in words, "--debug" in words
        with console.one_answer():
            try:
                code = super().main(words, *rest, **{**extra, "standalone_mode": False})
            except SystemExit:
                code = EXIT_OK  # whoever reads the help stopped reading
            except BaseException as raised:
                error = raised.__cause__ if isinstance(raised, _Ended) else raised
                if isinstance(error, BrokenPipeError) and process.unread(sys.stdout):
                    process.silence(sys.stdout)
                    code = EXIT_OK  # so did this one, between two lines
                elif isinstance(error, KeyboardInterrupt):
                    code = _interrupted(error, json)
                elif isinstance(error, Exception):
                    code = _failed(_told(error), error, json, debug)
                else:
                    raise
        sys.exit(code if isinstance(code, int) else EXIT_OK)


def _failed(error: MobileInstError, raised: BaseException, json: bool, debug: bool) -> int:
    if debug:
        console.note_traceback(raised)
    usage = getattr(getattr(raised, "ctx", None), "get_usage", None)
    if usage is not None and not _helped(raised):
        console.show(usage(), json=True)
    console.fail(error, json=json)
    return error.exit_code


def _told(error: Exception) -> MobileInstError:
    """Any exception as one of the project's own."""
    if isinstance(error, MobileInstError):
        return error
    if type(error).__module__.split(".")[0] in ("typer", "click"):
        return _usage(error)
    if isinstance(error, OSError):
        named = None if error.filename is None else str(error.filename)
        reason = error.strerror or str(error)
        cause = reason if named is None else f"{shown(named, 120)} cannot be used: {reason}"
        return InputError(cause, "Check the path, its permissions and the space left", where=named)
    return _bug(error)


def _usage(error: Exception) -> MobileInstError:
    """A command line that cannot be parsed."""
    message = getattr(error, "format_message", lambda: str(error))()
    context = getattr(error, "ctx", None)
    command = "mobileinst" if context is None else context.command_path
    if _helped(error):
        return ConfigError(
            "no command was given", f"Choose one of these; `{command} COMMAND --help` explains it"
        )
    param = getattr(error, "param", None)
    where = getattr(error, "option_name", None)
    if param is not None:
        named = isinstance(param, TyperArgument)
        where = where or (param.display_name_raw if named else (param.opts or [param.name])[0])
    return ConfigError(message.rstrip("."), f"See `{command} --help`", where=where)


def _helped(error: BaseException) -> bool:
    """Whether the help was shown already, since nothing was asked for."""
    return type(error).__name__ == "NoArgsIsHelpError"


class _Bug(MobileInstError):
    exit_code = EXIT_BUG


def _bug(error: BaseException) -> MobileInstError:
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None
    return _Bug(
        f"mobileinst has a bug: {type(error).__name__}: {error}",
        "Run it again with `mobileinst --debug ...` and report what it prints",
        where=where,
    )


class _Stopped(MobileInstError):
    pass


def _interrupted(error: KeyboardInterrupt, json: bool) -> int:
    kept = " ".join(getattr(error, "__notes__", ()))
    code = error.exit_code if isinstance(error, Ended) else EXIT_INTERRUPTED
    console.note(f"Interrupted. {kept}" if kept else process.NOTHING_LEFT)
    stopped = _Stopped("interrupted", kept.rstrip(".") or "Run it again")
    stopped.exit_code = code
    if json:
        console.answer_failure(stopped)
    return code


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
    models.models,
    export.export,
    verify.verify,
    bench.bench,
    compare.compare,
    profile.profile,
    history.history,
    report.report,
    run.run,
    evaluate.evaluate,
    predict.predict,
    new.new,
    train.train,
    optimize.optimize,
    quantize.quantize,
    inspect.inspect,
    devices.devices,
    doctor.doctor,
):
    app.command(cls=PlainCommand)(_command)
app.add_typer(device.device_app)
