"""Run a collection of inputs that once went wrong and say what becomes of each.

``python scripts/cases.py FOLDER [NAME ...]``: FOLDER holds one folder per case. Prints, for each,
the exit code, seconds of processor time, peak memory and the first words of the message; nothing in
FOLDER changes.
Cases that need a phone, a signal or a race have tests of their own and are not here.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MOBILEINST = [sys.executable, "-c", "from mobileinst_deploy.cli import main; main()"]
SECONDS = 60
CHECKPOINTS = (
    "ddp.pth",
    "ema_model.pt",
    "model_ema_only.pth",
    "model_state_dict.pt",
    "net.pth",
    "lightning.ckpt",
    "lightning_as.pth",
    "compiled.pth",
    "ddp_compiled.pth",
    "mmdet.pth",
    "numpy_scalar.pth",
    "namespace.pth",
    "half.safetensors",
    "bf16.safetensors",
    "ddp.safetensors",
    "noconf.safetensors",
    "bin_named.bin",
    "averaged_model_swa.pth",
    "grad.pth",
    "param.pth",
)


def commands(case: Path, demo: Path) -> Iterator[tuple[str, list[str]]]:
    """What to run inside a copy of a case's folder, each with a name."""
    evaluate = ["evaluate", str(demo), "--dataset"]
    match case.name:
        case "background-category" | "id-types" | "evaluate-nothing" | "exif-size-message":
            for file in sorted(case.glob("*.json")):
                yield (
                    file.stem,
                    [*evaluate, "coco", "--images", ".", "--annotations", file.name],
                )
        case "ytvis-valid-null":
            (case / "00041").mkdir()
            for frame in range(6):
                (case / "00041" / f"{frame:05}.jpg").touch()
            file = "yt_valid_null.json"
            yield "", [*evaluate, "ytvis", "--images", ".", "--annotations", file]
        case "coco-area-huge" | "evaljson-deep":
            arguments = "evaluate pair --dataset coco --images img --annotations a.json"
            yield "", arguments.split()
        case "config-bomb" | "model-toml-deep":
            yield "", ["export", "model.toml", "-o", "out"]
        case "train-batch1-64" | "train-toml-bigint":
            yield "", ["train", "--config", "train.toml", "-o", "new"]
        case "train-bbox-only" | "train-flat-polygons" | "train-iscrowd-string":
            yield "", ["train", "--config", "t.toml", "-o", "new"]
        case "onnx-constant-custom" | "onnx-elemtype":
            yield "", ["inspect", "a.onnx"]
        case "golden-not-npy":
            yield "", ["verify", "pair"]
        case "external-data-unbound" | "markup-model-id" | "esc-terminal":
            yield "inspect", ["inspect", "pair/frame.onnx"]
            yield "verify", ["verify", "pair"]
        case "picture-bomb":
            yield "", ["run", str(demo), "bomb.png", "-o", "out"]
        case "one-pixel":
            yield "", ["run", str(demo), "one.png", "-o", "out"]
        case "corrupt-jpeg":
            yield "corrupt", ["run", str(demo), "corrupt.jpg", "-o", "out"]
            yield "full", ["run", str(demo), "full.jpg", "-o", "out2"]
        case "trainstate-damaged":
            recipe = case.parent / "recipe"
            recipe.mkdir()
            (recipe / "train.toml").write_text(
                'model = "mobileinst-demo"\n[data]\nkind = "shapes"\nframes = 2\n'
                'validation_clips = 0\n[[stages]]\nkind = "image"\niterations = 1\n'
                "batch = 2\nlr = 1e-4\nsize = [64, 128]\n"
            )
            for state in sorted(case.glob("*/training.pt")):
                run = ["train", "--config", str(recipe / "train.toml"), "--resume", "-o"]
                yield state.parent.name, [*run, str(state.parent)]
        case "checkpoint-wrappers":
            (case / "models").symlink_to(demo.parent / "models")
            subprocess.run([sys.executable, "make.py"], cwd=case, check=True, capture_output=True)
            for name in CHECKPOINTS:
                arguments = ["export", "mobileinst-demo", "--weights", f"ck/{name}", "-o", "out"]
                yield name, arguments


def outcome(arguments: list[str], folder: Path) -> str:
    """Run one command; its exit code, time, memory and message as a row."""
    started = time.monotonic()
    limit = 10 << 30
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            MOBILEINST + arguments,
            cwd=folder,
            stdout=said,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            if time.monotonic() - started > SECONDS:
                process.kill()
            time.sleep(0.01)
        code = process.returncode = os.waitstatus_to_exitcode(ended[1])
        used = ended[2]
        said.seek(0)
        text = said.read().decode(errors="backslashreplace")
    seconds = used.ru_utime + used.ru_stime
    lines = [line for line in text.splitlines() if line.strip()]
    told = next((line for line in lines if "error:" in line), lines[-1] if lines else "")
    escapes = " RAW ESCAPES" if "\x1b" in text else ""
    shown = told[:160].replace("|", "/").encode("unicode_escape").decode()
    return f"{code} | {seconds:.1f} | {used.ru_maxrss / 1024:.0f} | {shown}{escapes}"


def main() -> None:
    """Print the table."""
    cases, wanted = Path(sys.argv[1]), sys.argv[2:]
    models = Path(__file__).parent.parent / "models"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print("| case | exit | CPU s | MiB | message |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        demo = Path(name) / "demo"
        (Path(name) / "models").symlink_to(models)
        subprocess.run(
            [*MOBILEINST, "export", "mobileinst-demo", "-o", str(demo)],
            check=True,
            capture_output=True,
        )
        for case in sorted(cases.iterdir()):
            if not case.is_dir() or (wanted and case.name not in wanted):
                continue
            copy = Path(name) / "cases" / case.name
            shutil.copytree(case, copy, copy_function=shutil.copyfile)
            for what, arguments in commands(copy, demo):
                title = f"{case.name} {what}".strip()
                print(f"| {title} | {outcome(arguments, copy)} |", flush=True)


if __name__ == "__main__":
    main()
