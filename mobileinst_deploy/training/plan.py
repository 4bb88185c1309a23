"""What a training run would be: its steps, rates and time, found out without beginning it.

The time comes from a few measured steps on made-up pictures of the stage's largest size, in batches
of two and three, drawn out to the recipe's batch: a batch of 64 need not fit into the memory of the
machine that plans it. On a CPU it is processor time, shared by the threads: what the steps take by
the clock while nothing else runs. Reading the data comes on top where it is not hidden behind the
steps.
"""

from __future__ import annotations

import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mobileinst_deploy.core.config import SIZE_MULTIPLE, ModelConfig
from mobileinst_deploy.core.errors import DatasetError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.network import build_model
from mobileinst_deploy.training.beginning import Beginning, begin, fresh_optimizer
from mobileinst_deploy.training.checkpoints import STATE_FILE, require_state_of
from mobileinst_deploy.training.config import StageConfig, TrainConfig
from mobileinst_deploy.training.ema import Ema
from mobileinst_deploy.training.engine import laid_out, set_up
from mobileinst_deploy.training.launcher import processes
from mobileinst_deploy.training.objective import Objective, Target
from mobileinst_deploy.training.sources import open_sources

_INSTANCES = 7  # a COCO picture's, on average
_REPEATS = 2
#: What takes longer is measured once: noise is then small beside it.
_LONG_S = 20.0
#: Below this share of the processor others use the machine, too.
_BUSY = 0.8


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    Attributes:
        kind: ``image`` or ``video``.
        iterations: Optimiser steps; 0 where the stage is given in epochs and the data is not there.
        epochs: As the recipe gives them, or 0.
        samples: Pictures and pairs, of all processes; 0 where unknown.
        rates: (first iteration, or epoch, learning rate) after the warm-up.
        size: (height, width) of the largest padded picture, pixels.
        step_seconds: Estimated time of an optimiser step here, s.
        hours: Estimated time of the stage here, h; None where its length is unknown.
    """

    kind: str
    iterations: int
    epochs: float
    samples: int
    rates: tuple[tuple[float, float], ...]
    size: tuple[int, int]
    step_seconds: float
    hours: float | None


@dataclass(frozen=True)
class TrainPlan:
    """A whole run.

    Attributes:
        model: Id of the model.
        parameters: Of the network.
        processes: That would train together.
        stages: In order.
        peak_memory_gib: Of this process while it measured, GiB.
        note: What the estimates rest on.
        begins: What it would begin with.
        iteration: That it would go on from; 0 for a run that begins.
    """

    model: str
    parameters: int
    processes: int
    stages: tuple[StagePlan, ...]
    peak_memory_gib: float
    note: str
    begins: str
    iteration: int

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def plan_run(
    config: TrainConfig,
    model: ModelConfig,
    folder: Path,
    output: Path,
    *,
    resume: bool = False,
    backbone: Path | None = None,
    weights: Path | None = None,
    progress: Progress = silent,
) -> TrainPlan:
    """Plan a run, and find out what would keep it from beginning.

    Args:
        config: The recipe.
        model: The network.
        folder: What the recipe's data paths are relative to. Where the data is missing, the length
            of stages in epochs stays unknown.
        output: Folder of the run.
        resume: Whether it would go on from the state there.
        backbone: Published backbone weights to start from.
        weights: Whole weights to start from.
        progress: Told of every stage.

    Raises:
        ConfigError: The output folder holds a run that was not to be resumed, or another one.
        CheckpointError: The weights or the state do not fit.
        DatasetError: The annotations are there, but broken.
    """
    together = processes()
    found = config.data.kind == "shapes" or (folder / config.data.annotations).is_file()
    counted = config
    if found:
        source, _ = open_sources(config.data, folder, model)
        frames = sum(source.length(clip) for clip in range(len(source)))
        counted = config.counted(frames, together)
    elif not config.data.annotations:
        raise DatasetError("the recipe names no data", "Give data.annotations")
    elif any(stage.epochs for stage in config.stages) and (output / STATE_FILE).exists():
        raise DatasetError(
            f"{output} holds a run, and how many iterations its epochs are cannot be told: the data"
            " is not here",
            "Give --data, or another output folder",
        )
    set_up(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_model(model, config.seed)
    begun = begin(counted, network, output, resume=resume, backbone=backbone, weights=weights)
    objective = Objective(network, config.losses)
    begins, iteration = _beginning(begun, counted, objective, output, backbone, weights)
    objective = laid_out(objective, config).to(device).train()
    stages = []
    worked, began = _clock(torch.device("cpu")), time.perf_counter()
    for number, (stage, known) in enumerate(zip(config.stages, counted.stages, strict=True)):
        progress("measuring a few steps", number, len(config.stages))
        size = largest_size(stage, model)
        step = _step_seconds(objective, config, stage, size, device)
        if stage.pictures and (pictures := stage.on_pictures()):
            there = largest_size(pictures, model)
            step += _step_seconds(objective, config, pictures, there, device)
        each = stage.samples * config.accumulate * together
        hours = known.iterations * step / 3600 if known.iterations else None
        stages.append(
            StagePlan(
                stage.kind, known.iterations, stage.epochs, known.iterations * each,
                _rates(stage), size, step, hours,
            )
        )  # fmt: skip
    progress("measuring a few steps", len(config.stages), len(config.stages))
    share = (_clock(torch.device("cpu")) - worked) / (time.perf_counter() - began)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return TrainPlan(
        config.model,
        sum(p.numel() for p in objective.model.parameters()),
        together,
        tuple(stages),
        peak_kib / 2**20,
        f"estimated from steps of 2 and 3 samples on {device.type}, {torch.get_num_threads()} "
        "threads; reading the data comes on top"
        + ("" if found else "; the data is not here")
        + (_busy(share) if device.type == "cpu" else ""),
        begins,
        iteration,
    )


def _beginning(
    begun: Beginning,
    config: TrainConfig,
    objective: Objective,
    output: Path,
    backbone: Path | None,
    weights: Path | None,
) -> tuple[str, int]:
    """What a run would begin with, for people, and the iteration that it would go on from."""
    if begun.state is not None:
        require_state_of(
            output,
            begun.state,
            objective=objective,
            optimizer=fresh_optimizer(objective, config),
            average=Ema(objective.model, config.ema).state_dict() if config.ema else None,
            iterations=config.iterations,
        )
        iteration: int = begun.state["iteration"]
        return f"It goes on at iteration {iteration} of {config.iterations}", iteration
    if weights is not None:
        taken = "; ".join(filter(None, (f"It begins with {weights}", begun.note)))
        anew = f"; these begin anew: {', '.join(begun.anew)}" if begun.anew else ""
        return taken + anew, 0
    if backbone is not None:
        return f"It begins with the backbone of {backbone}", 0
    return f"It begins with the random weights of seed {config.seed}", 0


def _clock(device: torch.device) -> float:
    """What steps are timed by, s: the clock, or on a CPU the time of all threads over their number.

    Threads that wait for another one do so at work, and so that is the time by the clock where
    nothing else runs; and nearly the same where something does.
    """
    if device.type == "cpu":
        return time.process_time() / torch.get_num_threads()
    return time.perf_counter()


def _busy(share: float) -> str:
    """What to say of a processor that others used, too."""
    if share >= _BUSY:
        return ""
    return (
        "; that is processor time: others use this machine, and while they do it takes "
        f"{1 / share:.1f} times as long"
    )


def largest_size(stage: StageConfig, model: ModelConfig) -> tuple[int, int]:
    """(height, width) in pixels of the largest padded picture of a stage."""
    if stage.size:
        return stage.size[0], stage.size[1]
    if not stage.short_sides:
        return model.input_size
    sides = (max(stage.short_sides), stage.long_side)
    height, width = (-(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in sides)
    return height, width


def _rates(stage: StageConfig) -> tuple[tuple[float, float], ...]:
    if stage.schedule == "cosine":
        return ((0, stage.lr), (stage.iterations or stage.epochs, stage.lr * 0.01))
    drops = [(at, stage.lr * 0.1 ** (k + 1)) for k, at in enumerate(stage.decay_at)]
    return ((0, stage.lr), *drops)


def _step_seconds(
    objective: Objective,
    config: TrainConfig,
    stage: StageConfig,
    size: tuple[int, int],
    device: torch.device,
) -> float:
    """Time of one optimiser step, from batches of two and three."""
    two, three = (_fastest(objective, config, stage, size, batch, device) for batch in (2, 3))
    # What the third sample adds each one costs (one alone has no BatchNorm statistics); where noise
    # hides that, a sample costs its share of the batch of three.
    each = three - two if three > two else three / 3
    return max(two + each * (stage.batch - 2), each) * config.accumulate


def _fastest(
    objective: Objective,
    config: TrainConfig,
    stage: StageConfig,
    size: tuple[int, int],
    batch: int,
    device: torch.device,
) -> float:
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _LONG_S:
        times.append(_once(objective, config, stage, size, batch, device))
    return min(times)


def _once(
    objective: Objective,
    config: TrainConfig,
    stage: StageConfig,
    size: tuple[int, int],
    batch: int,
    device: torch.device,
) -> float:
    pair = 2 if stage.kind == "video" else 1
    images = torch.randint(0, 256, (pair * batch, 3, *size), dtype=torch.uint8, device=device)
    cells = size[0] // config.losses.mask_stride, size[1] // config.losses.mask_stride
    masks = torch.zeros(_INSTANCES, *cells, device=device)
    for i, mask in enumerate(masks):
        top, left = i * cells[0] // (2 * _INSTANCES), i * cells[1] // (2 * _INSTANCES)
        mask[top : top + cells[0] // 2, left : left + cells[1] // 2] = 1
    labels = torch.arange(_INSTANCES, device=device) % objective.model.config.num_classes
    targets = [Target(labels, masks)] * batch
    began = _clock(device)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        losses = objective(images, targets, targets if pair == 2 else None, stage.query_passing)
        losses["loss"].backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    objective.zero_grad(set_to_none=True)
    return _clock(device) - began
