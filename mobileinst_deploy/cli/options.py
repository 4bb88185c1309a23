"""Arguments and options that several commands share, word for word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PairFolder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder written by export.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
DeviceName = Annotated[
    str, typer.Option("--device", help="Where the graphs run: cpu, adb or qemu.")
]
RuntimeName = Annotated[
    str, typer.Option("--runtime", help="What runs the graphs: onnxruntime or ncnn.")
]
Serial = Annotated[str | None, typer.Option("--serial", help="Which phone, with --device adb.")]
