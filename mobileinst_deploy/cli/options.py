"""Arguments and options that several commands share, word for word."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from mobileinst_deploy.core.errors import ConfigError

PairFolder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder written by export, or a run.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
DeviceName = Annotated[
    str, typer.Option("--device", help="Where the graphs run: cpu, adb or qemu.")
]
RuntimeName = Annotated[
    str, typer.Option("--runtime", help="What runs the graphs: onnxruntime, ncnn or ncnn-fp16.")
]
Serial = Annotated[str | None, typer.Option("--serial", help="Which phone, with --device adb.")]
Serials = Annotated[
    list[str] | None, typer.Option("--serial", help="Which phone; may be given several times.")
]
Every = Annotated[bool, typer.Option("--all", help="Every phone that adb sees.")]
ClipLengths = Annotated[
    str,
    typer.Option(
        "-T", "--clip-lengths", help="Each T to measure at: a keyframe, then T-1 reuse frames."
    ),
]
Runs = Annotated[
    int | None,
    typer.Option(
        "--runs", min=1, max=1_000_000, help="Keyframes at each T, at least; default: 50."
    ),
]
Warmup = Annotated[
    int | None,
    typer.Option("--warmup", min=0, max=100_000, help="Untimed runs before; default: 10."),
]
Seconds = Annotated[
    float | None,
    typer.Option("--seconds", min=0, help="Seconds at each T, at least; default: 10."),
]
Network = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="PACKAGE.MODULE:FACTORY",
        help="A kernel network of your own code, which is imported and run.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="Checkpoint to use instead of the model's own weights."),
]
Association = Annotated[
    str,
    typer.Option(
        "--association",
        help="How tracks go on at a keyframe: remembering, or consecutive, the paper's: the cosine "
        "between the kernels of consecutive keyframes and nothing else.",
    ),
]
Upright = Annotated[
    bool,
    typer.Option(
        "--upright",
        help="Give upright pictures to an input that is turned; a pair needs the one beside it "
        "that export --upright wrote.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Folder to write; default: beside DIR, with a suffix."),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE|DIR",
        help="Where the result goes: a .json file, or a folder of results; default: DIR/results.",
    ),
]


def only_with(name: str, value: object, options: Mapping[str, object]) -> None:
    """Refuse options that would do nothing, as they belong to one that was not given.

    Args:
        name: The option that they belong to.
        value: What was given for it, or None.
        options: By name, what was given for them, or None.

    Raises:
        ConfigError: Some were given without it.
    """
    given = [option for option, what in options.items() if what is not None]
    if given and value is None:
        raise ConfigError(
            f"{', '.join(given)} does nothing without {name}",
            f"Add {name}, or leave it away",
            where=given[0],
        )
