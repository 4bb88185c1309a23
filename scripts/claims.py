"""Train the variants of the paper's Tables 3 to 6 alike on shapes, and tabulate what they reach.

Every variant of a table gets the same data, seeds and number of iterations. With --start, Table 4's
runs begin with all of those weights, the others with their backbone. Each result is kept in
the folder of its run, where another call, also one at the same time for other seeds, finds it.

The table "light" is this project's own: decoder, width and how deep a reuse frame recomputes. Its
runs see pictures for --iterations steps, then a quarter as many pairs of frames by query passing.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

from mobileinst_deploy.core.config import ModelConfig, parse_size
from mobileinst_deploy.core.files import write_json
from mobileinst_deploy.core.journal import Journals
from mobileinst_deploy.data.shapes import CLASSES
from mobileinst_deploy.data.shapes_files import FRAMES, YTVIS_FILE, write_shapes
from mobileinst_deploy.network.checkpoint import load_checkpoint
from mobileinst_deploy.training.config import DataConfig, LossConfig, StageConfig, TrainConfig
from mobileinst_deploy.training.loop import train
from mobileinst_deploy.training.sources import ShapesSource
from mobileinst_deploy.workflows.precision import evaluate_clips
from mobileinst_deploy.workflows.subject import open_subject

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path, help="for runs and claims.json")
parser.add_argument("--tables", default="3,4,5,6")
parser.add_argument("--seeds", default="0,1")
parser.add_argument("--iterations", type=int, default=1000, help="of each run, batch 8")
parser.add_argument("--size", default="128x192")
parser.add_argument("--clips", type=int, default=50, help="held-out clips")
parser.add_argument("--start", type=Path, help="a checkpoint of this family to start from")
parser.add_argument("--lr", type=float, default=1e-3)
given = parser.parse_args()
size = parse_size(given.size)

BASE = ModelConfig(
    "topformer-tiny", CLASSES, size, num_queries=20, width=48, num_heads=4, pool_size=2
)
TABLES: dict[str, dict[str, dict[str, object]]] = {
    "3": {
        "global": {"stages": ("global",)},
        "local": {"stages": ("local",)},
        "global x2": {"stages": ("global", "global")},
        "local x2": {"stages": ("local", "local")},
        "global, local": {},
    },
    "4": {"without query passing": {}, "with query passing": {}},
    "5": {
        "none": {"pool_size": 1},
        "2x2 max": {},
        "4x4 max": {"pool_size": 4},
        "8x8 max": {"pool_size": 8},
        "2x2 average": {"pool": "avg"},
    },
    "6": {
        "MobileInst, enhancer": {},
        "MobileInst": {"enhancer": False},
        "SparseInst, 4 convs": {"decoder": "sparseinst", "decoder_convs": 4},
        "SparseInst, 1 conv": {"decoder": "sparseinst", "decoder_convs": 1},
        "FPN": {"decoder": "fpn"},
    },
    "light": {
        "plain 48": {},
        "separable 48": {"decoder_block": "separable"},
        "separable 48, x5": {"decoder_block": "separable", "reuse_context": "x5"},
        "separable 48, x4": {"decoder_block": "separable", "reuse_context": "x4"},
        "separable 96, x4": {"decoder_block": "separable", "reuse_context": "x4", "width": 96},
    },
}
#: Tables of tracks, at several T; the others are of pictures.
OF_TRACKS = ("4", "light")


def folder_of(table: str, variant: str, seed: int) -> Path:
    """Where a run lies; variants that several tables share are run once."""
    if table not in OF_TRACKS and not TABLES[table][variant]:
        return given.folder / "base" / str(seed)
    return given.folder / f"table{table}" / variant.replace(",", "").replace(" ", "-") / str(seed)


def run(table: str, variant: str, seed: int) -> dict[str, object]:
    """Train one variant and measure it."""
    model = replace(BASE, **TABLES[table][variant])  # type: ignore[arg-type]
    whole = given.start if table == "4" else None
    if whole:
        model = replace(load_checkpoint(whole)[0], input_size=size)
    pictures = StageConfig(
        "image", 8, given.lr, given.iterations, schedule="cosine", warmup=given.iterations // 10
    )
    pairs = replace(
        pictures, kind="video", batch=4, query_passing=variant != "without query passing"
    )
    stages = {
        "4": (pairs,),
        "light": (pictures, replace(pairs, lr=given.lr / 2, iterations=given.iterations // 4)),
    }.get(table, (pictures,))
    config = TrainConfig(
        "claims",
        stages,
        DataConfig(),
        LossConfig(mask_stride=4, semantic_weight=1.0, matching="losses"),
        seed=seed,
        backbone_lr=1.0,
        clip_norm=5.0,
        ema=0.99,
        threads=1,
        save_every=100,
    )
    folder = folder_of(table, variant, seed)
    report = train(
        config,
        model,
        ShapesSource("train", 0, config.data.clips, config.data.frames, size),
        folder,
        held_out=ShapesSource("val", 0, given.clips, config.data.frames, size),
        resume=True,
        weights=whole,
        backbone=None if whole else given.start,
    )
    result: dict[str, object] = {"loss": report.loss, "AP": report.metrics.get("AP")}
    if table in OF_TRACKS:
        subject = open_subject(str(report.weights))
        for schedule in ("1", "3", "6"):
            block = evaluate_clips(
                subject,
                held_out / FRAMES,
                held_out / YTVIS_FILE,
                schedule,
                journals=Journals(given.folder / "journals"),
            )
            result[f"T={schedule}"] = block.metrics["AP"]
    return result


held_out = given.folder / "held-out"
if set(OF_TRACKS) & set(given.tables.split(",")) and not (held_out / YTVIS_FILE).exists():
    write_shapes(held_out, "val", given.clips, size=size)
tables, seeds = given.tables.split(","), [int(seed) for seed in given.seeds.split(",")]
results: dict[tuple[str, str, int], dict[str, float]] = {}
for table in tables:
    for seed in seeds:
        for variant in TABLES[table]:
            path = folder_of(table, variant, seed) / "result.json"
            if not path.exists():
                write_json(path, run(table, variant, seed))
            results[table, variant, seed] = json.loads(path.read_text())

for table in tables:
    columns = ("T=1", "T=3", "T=6") if table in OF_TRACKS else ("AP",)
    print(f"\nTable {table}\n\n| variant | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for variant in TABLES[table]:
        cells = []
        for column in columns:
            values = [100 * results[table, variant, seed][column] for seed in seeds]
            each = ", ".join(f"{value:.1f}" for value in values)
            cells.append(f"{statistics.mean(values):.1f} ({each})")
        print(f"| {variant} | " + " | ".join(cells) + " |")
