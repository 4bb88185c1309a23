"""The training loop: from a configuration to weights, through any interruption.

What the next step does depends on the weights, the optimiser and the step's number alone, and all
three are saved together; so a run that was killed continues as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed  # type: ignore[import-untyped]
from torch import Tensor

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.errors import ConfigError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.run_folder import LOG_FILE, WEIGHTS_FILE
from mobileinst_deploy.network import build_model
from mobileinst_deploy.network.checkpoint import save_checkpoint
from mobileinst_deploy.training.beginning import begin, fresh_optimizer
from mobileinst_deploy.training.checkpoints import require_state_of, save_state
from mobileinst_deploy.training.config import StageConfig, TrainConfig
from mobileinst_deploy.training.curves import draw_curves
from mobileinst_deploy.training.data import Batch, ClipSource, Samples
from mobileinst_deploy.training.ema import Ema
from mobileinst_deploy.training.engine import accelerator_of, laid_out, synchronised
from mobileinst_deploy.training.failures import explained, require_finite
from mobileinst_deploy.training.frozen import freeze
from mobileinst_deploy.training.loading import batches, require_room_for_sockets
from mobileinst_deploy.training.log import TrainingLog
from mobileinst_deploy.training.objective import Objective
from mobileinst_deploy.training.pace import Pace
from mobileinst_deploy.training.sources import CutoutSource, ShapesSource, repeat_weights, stills_of
from mobileinst_deploy.training.validate import picture_ap


@dataclass(frozen=True)
class TrainReport:
    """What a run came to.

    Attributes:
        iterations: Optimiser steps, of all sessions of the run.
        samples: Pictures and pairs seen in this session, by all processes.
        seconds: Wall time of this session.
        loss: The last logged loss of this session; None where nothing was left to do.
        metrics: The last evaluation's, by COCO's names; empty without held-out data.
        unreadable: Samples that could not be read and were replaced, in this session.
        weights: The weights' file.
        anew: Tensors that the whole weights to start from could not give, since they know other
            classes; these began with the seed's random values.
        note: Which weights of several in a file it started from; None where there was no choice.
        waiting: The share of this session's steps that was spent waiting for data, 0 to 1.
    """

    iterations: int
    samples: int
    seconds: float
    loss: float | None
    metrics: dict[str, float]
    unreadable: int
    weights: Path
    anew: tuple[str, ...] = ()
    note: str | None = None
    waiting: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**self.__dict__, "weights": str(self.weights)}


def train(
    config: TrainConfig,
    model_config: ModelConfig,
    source: ClipSource,
    folder: Path,
    *,
    held_out: ClipSource | None = None,
    resume: bool = False,
    backbone: Path | None = None,
    weights: Path | None = None,
    progress: Progress = silent,
) -> TrainReport:
    """Train a model, or go on training it.

    Under ``torchrun`` or ``accelerate launch`` every process calls this with the same arguments;
    only the first writes.

    Args:
        config: The recipe.
        model_config: The network.
        source: What to train on; its classes are the network's.
        folder: Where the state, the log and the weights go.
        held_out: What to evaluate on.
        resume: Whether to go on from the state in ``folder``.
        backbone: Published backbone weights to start from.
        weights: Whole weights to start from. They may know other classes; then the class head
            begins anew, which is how the paper goes from COCO to YouTube-VIS (section 4.2).
        progress: Told of every step.

    Raises:
        ConfigError: Classes differ, the model cannot do what the recipe asks, the folder holds a
            run that was not to be resumed or one of another configuration, the folder for temporary
            files has too long a name for workers, the loss or gradient is no finite number, or
            memory ran out.
        CheckpointError: The weights to start from do not fit.
        DatasetError: The data cannot be read.
        OutputError: The folder cannot be written or is full.
    """
    if source.classes != model_config.classes:
        raise ConfigError(
            "the data's classes are not the model's",
            f"Give the model the classes {', '.join(source.classes[:5])} ...",
        )
    if any(s.query_passing for s in config.stages) and model_config.stages != ("global", "local"):
        raise ConfigError(
            "query passing needs a model whose stages are global, then local",
            "Set query_passing to false, or use such a model",
        )
    if config.data.workers:
        require_room_for_sockets()
    run = _Run(config, model_config, source, folder, held_out, progress)
    run.start(resume, backbone, weights)
    with explained(config):
        return run.go()


def _in_epochs(config: TrainConfig) -> bool:
    return any(stage.epochs for stage in config.stages)


class _Run:
    """The moving parts of one session of a run."""

    def __init__(
        self,
        config: TrainConfig,
        model_config: ModelConfig,
        source: ClipSource,
        folder: Path,
        held_out: ClipSource | None,
        progress: Progress,
    ) -> None:
        self.source = source
        self.folder = folder
        self.held_out = held_out
        self.progress = progress
        self.accelerator = accelerator_of(config)
        self.config = config = config.counted(
            sum(source.length(clip) for clip in range(len(source))) if _in_epochs(config) else 0,
            self.accelerator.num_processes,
        )
        set_seed(config.seed)
        self.model = build_model(model_config, config.seed)
        self.iteration = self._saved = 0
        self.ema = Ema(self.model, config.ema) if config.ema else None
        self.metrics: dict[str, float] = {}

    def start(self, resume: bool, backbone: Path | None, weights: Path | None) -> None:
        """Load what the run begins with, and hand the parts to the engine."""
        self.begun = begin(
            self.config,
            self.model,
            self.folder,
            resume=resume,
            backbone=backbone,
            weights=weights,
        )
        state = self.begun.state
        if state is None and self.ema is not None:
            self.ema = Ema(self.model, self.config.ema)
        objective = laid_out(Objective(self.model, self.config.losses), self.config)
        self._module = objective
        optimizer = fresh_optimizer(objective, self.config)
        self.objective, self.optimizer = self.accelerator.prepare(objective, optimizer)
        if self.ema is not None:
            self.ema.to(self.accelerator.device)
        if state is not None:
            require_state_of(
                self.folder,
                state,
                objective=self._module,
                optimizer=self.optimizer,
                average=None if self.ema is None else self.ema.state_dict(),
                iterations=self.config.iterations,
            )
            self._module.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.iteration = self._saved = state["iteration"]
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])
        freeze(self.model, self.config.frozen)
        with self.accelerator.main_process_first():
            self.log = TrainingLog(
                self.folder / LOG_FILE, self.iteration, write=self.accelerator.is_main_process
            )

    def go(self) -> TrainReport:
        """Run the iterations that are left."""
        config, began = self.config, time.perf_counter()
        seen = unreadable = 0
        loss: float | None = None
        current = -1
        pace = Pace(config.data.workers, self.accelerator.num_processes)
        self._evaluate_again()
        with self._saying_what_is_kept(), ExitStack() as reading:
            while self.iteration < config.iterations:
                number, within = config.stage_at(self.iteration)
                stage = config.stages[number]
                if number != current or pace.changes():
                    current = number
                    reading.close()
                    stream = pace.timed(self._stream(number, within, pace.workers))
                    reading.callback(stream.close)
                losses, read = self._step(stage, within, stream)
                self.iteration += 1
                unreadable += read
                seen += stage.samples * config.accumulate * self.accelerator.num_processes
                ended = within + 1 == stage.iterations
                row_due = ended or self.iteration % config.log_every == 0
                if row_due:
                    speed = seen / (time.perf_counter() - began)
                    loss = self._record(stage, within, losses, speed, pace.waiting())
                self.progress(f"{stage.kind} stage", within + 1, stage.iterations)
                evaluation_due = self._evaluation_due(ended)
                # Before the evaluation, which takes a while and must not cost the steps before it.
                if ended or evaluation_due or self.iteration % config.save_every == 0:
                    self._save()
                if evaluation_due:
                    self._evaluate(stage)
        self._save()
        return TrainReport(
            self.iteration,
            seen,
            time.perf_counter() - began,
            loss,
            self.metrics,
            unreadable,
            self.folder / WEIGHTS_FILE,
            self.begun.anew,
            self.begun.note,
            pace.waited_share,
        )

    def _evaluation_due(self, ended: bool) -> bool:
        every = self.config.evaluate_every
        return ended or (every > 0 and self.iteration % every == 0)

    def _evaluate_again(self) -> None:
        """Make up for an evaluation that an earlier session was interrupted in."""
        if self.iteration == 0:
            return
        number, within = self.config.stage_at(self.iteration - 1)
        stage = self.config.stages[number]
        ended = within + 1 == stage.iterations
        if self._evaluation_due(ended) and not self.log.evaluated:
            self._evaluate(stage)

    def _stream(self, number: int, within: int, workers: int) -> Generator[Batch]:
        accelerator, config = self.accelerator, self.config
        stage, seed = config.stages[number], (config.seed, number)
        each = stage.samples * config.accumulate * accelerator.num_processes
        source = self._source(stage)
        samples = Samples(
            source,
            config.data,
            stage,
            seed,
            stage.iterations * each,
            stills_of(source),
            repeat_weights(source, config.data.repeat),
        )
        return batches(
            samples,
            config.losses,
            stage.samples,
            within * config.accumulate,
            accelerator.process_index,
            accelerator.num_processes,
            workers,
        )

    def _source(self, stage: StageConfig) -> ClipSource:
        size = stage.size[:2]
        if len(size) == 2 and isinstance(self.source, ShapesSource):
            return replace(self.source, size=size)
        if len(size) == 2 and isinstance(self.source, CutoutSource):
            return CutoutSource(replace(self.source.cutouts, size=size))
        return self.source

    def _step(
        self, stage: StageConfig, within: int, stream: Iterator[Batch]
    ) -> tuple[dict[str, Tensor], int]:
        config = self.config
        self.objective.train()
        for group in self.optimizer.param_groups:
            group["lr"] = stage.lr_at(within) * group["multiplier"]
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        unreadable = 0
        for piece in range(config.accumulate):
            batch = next(stream).to(self.accelerator.device)
            unreadable += batch.unreadable
            last = piece + 1 == config.accumulate
            with self.accelerator.autocast(), synchronised(self.accelerator, self.objective, last):
                losses = self.objective(
                    batch.images, batch.targets, batch.later, stage.query_passing
                )
                self.accelerator.backward(losses["loss"] / config.accumulate)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + value.detach() / config.accumulate
        norm = self.accelerator.clip_grad_norm_(
            self.objective.parameters(), config.clip_norm or math.inf
        )
        norm = torch.as_tensor(norm, device=self.accelerator.device)
        good = self.folder / WEIGHTS_FILE
        require_finite(totals["loss"], norm, config, self.iteration + 1, good)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model, self.iteration)
        totals["gradient"] = norm
        return totals, unreadable

    def _record(
        self,
        stage: StageConfig,
        within: int,
        losses: dict[str, Tensor],
        speed: float,
        waiting: float,
    ) -> float:
        means = {
            name: float(self.accelerator.reduce(value, "mean")) for name, value in losses.items()
        }
        if self.accelerator.is_main_process:
            lr = stage.lr_at(within)
            self.log.row(self.iteration, stage.kind, lr, means, speed, waiting)
        return means["loss"]

    def _evaluate(self, stage: StageConfig) -> None:
        if self.held_out is None:
            return
        with self._kept_weights():
            self.metrics = picture_ap(
                self.model,
                self.held_out,
                self.progress,
                process=self.accelerator.process_index,
                processes=self.accelerator.num_processes,
                upright=self.config.data.upright,
            )
        if self.accelerator.is_main_process:
            self.log.evaluation(self.iteration, stage.kind, self.metrics)
            draw_curves(self.folder)

    def _save(self) -> None:
        """Write the weights, then the state: a run killed between them saves both again."""
        if not self.accelerator.is_main_process:
            return
        with self._kept_weights():
            save_checkpoint(
                self.folder / WEIGHTS_FILE,
                self.model,
                {
                    "mobileinst.train": self.begun.fingerprint,
                    "mobileinst.iteration": str(self.iteration),
                },
            )
        state: dict[str, Any] = {
            "fingerprint": self.begun.fingerprint,
            "iteration": self.iteration,
            "objective": self._module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.ema is not None:
            state["ema"] = self.ema.state_dict()
        save_state(self.folder, state)
        self._saved = self.iteration
        draw_curves(self.folder)

    @contextmanager
    def _saying_what_is_kept(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt as error:
            if self._saved:
                error.add_note(
                    f"What {self._saved} steps trained is in {self.folder}; go on with --resume."
                )
            raise

    @contextmanager
    def _kept_weights(self) -> Iterator[None]:
        """The averaged weights inside the block, where there are any."""
        if self.ema is None:
            yield
        else:
            with self.ema.in_place_of(self.model):
                yield
