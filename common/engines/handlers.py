"""Ignite handlers: reproducible epochs, epoch means of loss terms, weight averages, resumable checkpoints."""

import copy
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, EMAHandler
from monai.engines import Evaluator, Trainer
from monai.utils import set_determinism
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from common.io.checkpoints import read_checkpoint, write_checkpoint
from common.io.facts import TrainingFacts
from common.modalities import IGNORED

logger = logging.getLogger(__name__)
DIVERGED = 1000
"""A loss this many times its start cannot be one that still learns."""
SMALL_LOSS = 1e-3
"""Smallest loss that is taken for the start, so that one near 0 does not count as small."""
DEAD = 1e-6
"""Largest weight up to which a filter counts as dead."""


def seed_all(seed: int, deterministic: bool = True) -> None:
    """Seed torch, numpy and random, and choose whether cuDNN is deterministic.

    If so, results are repeatable as far as operations allow, as MONAI's `set_determinism` makes them. If not, cuDNN
    benchmarks its algorithms and uses the fastest, whose sums may differ from run to run.
    """
    set_determinism(seed=seed)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, not deterministic


def counted_voxels(output: Sequence[Mapping[str, Any]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the region masks ``pred`` and ``label`` of all items, with 0 where the label is `IGNORED`."""
    ignored = [item["label"] == IGNORED for item in output]
    pred, label = (
        [item[key].masked_fill(where, 0) for item, where in zip(output, ignored, strict=True)]
        for key in ("pred", "label")
    )
    return pred, label


class Reseed:
    """Seed torch, numpy, random and the transforms from (seed, epoch, rank) at the start of each epoch.

    So a run that was killed during an epoch, and resumes from the checkpoint before it, repeats the epoch with the same
    result. The loader's dataset needs a ``transform``; its sampler may be a DistributedSampler. For ``deterministic``
    see `seed_all`.
    """

    def __init__(self, seed: int, loader: torch.utils.data.DataLoader, deterministic: bool = True) -> None:
        self.seed, self.loader, self.deterministic = seed, loader, deterministic

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        seed = self.seed + 100_003 * epoch + idist.get_rank()
        seed_all(seed, self.deterministic)
        dataset: Any = self.loader.dataset
        dataset.transform.set_random_state(seed=seed)
        if hasattr(self.loader.sampler, "set_epoch"):
            self.loader.sampler.set_epoch(epoch)


class EpochLosses:
    """Put the epoch's mean loss, and the means of ``loss.terms`` if there are any, into ``engine.state.metrics``.

    StatsHandler then prints them, and MLFlowHandler logs them; attach this handler before those two. Means are over all
    ranks, and their names begin with ``prefix``.
    """

    def __init__(self, loss: nn.Module, prefix: str = "train_") -> None:
        self.loss, self.prefix = loss, prefix
        self._sums: dict[str, torch.Tensor] = {}
        self._count = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._publish)

    def _reset(self) -> None:
        self._sums, self._count = {}, 0

    def _add(self, engine: Engine) -> None:
        output: Any = engine.state.output
        terms = {"loss": output["loss"].detach(), **getattr(self.loss, "terms", {})}
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value  # stays on the device, so that steps do not wait
        self._count += 1

    def _publish(self, engine: Engine) -> None:
        count = idist.all_reduce(float(self._count))
        for name, value in self._sums.items():
            engine.state.metrics[self.prefix + name] = idist.all_reduce(float(value)) / count


class DivergenceCheck:
    """Stop a training whose mean loss of an epoch is not finite, or `DIVERGED` times its first step's.

    Attach it after `EpochLosses`, whose prefix it needs, and before what saves weights, so that those of an earlier
    epoch stay. Raises ValueError.
    """

    def __init__(self, prefix: str = "train_") -> None:
        self.key = f"{prefix}loss"
        self._first: torch.Tensor | None = None

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._begin)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _reset(self) -> None:
        self._first = None

    def _begin(self, engine: Engine) -> None:
        if self._first is None:
            output: Any = engine.state.output
            self._first = output["loss"].detach().clone()  # stays on the device, as in `EpochLosses`

    def __call__(self, engine: Engine) -> None:
        loss = engine.state.metrics[self.key]
        own = 0.0 if self._first is None else float(self._first)
        first = float(idist.all_reduce(own)) / idist.get_world_size()
        if math.isfinite(loss) and abs(loss) <= DIVERGED * max(abs(first), SMALL_LOSS):
            return
        kept = "are those of an earlier epoch" if engine.state.epoch > 1 else "were not saved"
        raise ValueError(
            f"{self.key}: {loss:.4g} in epoch {engine.state.epoch}, {first:.4g} at the start: the training diverges. "
            f"Its weights {kept}. Start anew with a lower learning_rate, or with gentler settings of the loss."
        )


def tell_epoch(name: str, engine: Engine) -> None:
    """Log a stage's epoch, its metrics, and how long the stage's others will take if they take as long as this one."""
    state, took = engine.state, engine.state.times[Events.EPOCH_COMPLETED.name]
    left = timedelta(seconds=round(((state.max_epochs or 0) - state.epoch) * (took or 0)))
    told = ", ".join(f"{key} {value:.4f}" for key, value in state.metrics.items())
    until = f"; about {left} left in this stage" if left else ""
    logger.info(f"{name}, epoch {state.epoch} of {state.max_epochs}: {told}{until}")


class Record(Protocol):
    """What a training is made of, to be written into its output folder when it starts."""

    def write(self) -> None:
        """Write it."""


class ResumableCheckpoint:
    """Save the last state, to resume from, and the best weights.

    ``<folder>/<name>_last.pt`` holds the states of all objects, the trainer's position and the best score. It is
    replaced every ``interval`` epochs. ``<folder>/<name>.pt`` is a plain state dict of the network, or of its average:
    the best one in validation so far or, before the first validation, the latest one. Rank 0 writes both atomically,
    which MONAI's CheckpointSaver does not; nor can it put facts into the file of weights. Attach this handler after the
    learning-rate and validation handlers. Raises ValueError if the checkpoint to resume from is damaged, of another
    configuration, or of more epochs. A run of fewer epochs is extended: its learning rate goes on where that of the
    longer run would be. A warning says when filters of convolutions have died, as by Adam's weight decay.

    Args:
        name: name of the stage, e.g. ``finetuned``.
        objects: other objects needed to resume: name -> optimiser, scheduler, loss with buffers ...
        validator: evaluator whose key metric (higher is better) decides which weights are best.
        interval: number of epochs between two checkpoints; the final epoch is always saved.
        resume: whether to continue from ``<name>_last.pt`` if it exists.
        average: average of the network's weights, for ``<name>.pt``; attached together with this handler.
        facts: record of the training, to be stored in ``<name>.pt``.
        record: what the run is made of, written beside the checkpoints when the training starts.
    """

    def __init__(
        self,
        folder: str,
        name: str,
        network: nn.Module,
        objects: dict[str, Any],
        validator: Evaluator | None = None,
        interval: int = 1,
        resume: bool = False,
        average: EMAHandler | None = None,
        facts: TrainingFacts | None = None,
        record: Record | None = None,
    ) -> None:
        self.last, self.weights = Path(folder) / f"{name}_last.pt", Path(folder) / f"{name}.pt"
        self.network, self.average, self.validator = network, average, validator
        self.objects = objects if average is None else {**objects, "average": average.ema_model}
        self.interval, self.resume, self.facts, self.record = interval, resume, facts, record
        self._restored, self._dead = False, 0

    def attach(self, engine: Trainer) -> None:
        if self.average is not None:
            self.average.attach(engine)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def state_dict(self) -> dict[str, float]:
        if self.validator is None:
            return {}
        state = self.validator.state
        return {"best_metric": float(state.best_metric), "best_metric_epoch": int(state.best_metric_epoch)}

    def load_state_dict(self, state: dict[str, float]) -> None:
        for name, value in state.items():
            if self.validator is None:
                raise ValueError("a best score, but this run has no validation")
            setattr(self.validator.state, name, value)

    def _everything(self, trainer: Trainer) -> dict[str, Any]:
        scaler = {} if trainer.scaler is None else {"scaler": trainer.scaler}
        return {"network": self.network, **self.objects, **scaler, "trainer": trainer, "best": self}

    def _save(self, trainer: Trainer) -> None:
        epoch = trainer.state.epoch
        due = epoch % self.interval == 0 or epoch == trainer.state.max_epochs
        best_epoch = -1 if self.validator is None else self.validator.state.best_metric_epoch
        if idist.get_rank() == 0:
            if best_epoch == epoch or (best_epoch < 1 and due):
                weights = self.network if self.average is None else self.average.ema_model
                write_checkpoint(weights.state_dict(), self.weights, self.facts)
            if due:
                write_checkpoint({k: o.state_dict() for k, o in self._everything(trainer).items()}, self.last)
                self._tell_dead(epoch)
        idist.barrier()  # the next stage, on any rank, reads what rank 0 has written here

    def _tell_dead(self, epoch: int) -> None:
        before, (self._dead, filters) = self._dead, dead_filters(self.network)
        if self._dead > before:
            logger.warning(
                f"epoch {epoch}: {self._dead} of {filters} filters have no weight above {DEAD:g} now. Weight decay "
                "drives them to 0 where it is part of the gradient, as in Adam: lower weight_decay, or use AdamW."
            )

    def _start(self, trainer: Trainer) -> None:
        if self.average is not None and not self._restored:  # others may have been loaded since it was made
            self.average.ema_model.load_state_dict(self.network.state_dict())
        self._restored = True
        logger.info(f"{self.weights}: to be trained for {trainer.state.max_epochs} epochs on {trainer.state.device}")
        if self.record is not None:
            self.record.write()
        if not self.resume:
            return
        if not self.last.is_file():
            logger.warning(f"resume: no checkpoint {self.last}, starting from the beginning")
            return
        epochs = trainer.state.max_epochs
        state = read_checkpoint(self.last)  # on the CPU, where Adam's step counts have to stay; others are copied
        schedules = [each for each in self.objects.values() if isinstance(each, LRScheduler)]
        fresh = [copy.deepcopy(schedule.state_dict()) for schedule in schedules]
        rates = _rates(schedules)
        try:
            Checkpoint.load_objects(self._everything(trainer), state)
        except (ValueError, RuntimeError, KeyError) as error:
            raise ValueError(
                f"{self.last}: not a checkpoint of this configuration ({str(error).splitlines()[0]}). "
                "Resume with the config that it was trained with, or choose another output_dir."
            ) from error
        before, trainer.state.max_epochs = trainer.state.max_epochs, epochs
        if epochs < before:
            raise ValueError(
                f"{self.last}: a run of {before} epochs; expected {before} or more, not {epochs}. Its learning-rate "
                "schedule ends there: resume with as many epochs or more, or choose another output_dir."
            )
        restored, finished = _rates(schedules), trainer.state.epoch == epochs
        if restored != rates and not finished:
            logger.warning(f"{self.last}: the learning rate was {restored}, is {rates}: its schedule goes on with that")
        if epochs > before:
            logger.info(f"{self.last}: extended from {before} to {epochs} epochs")
        if epochs > before or (restored != rates and not finished):
            for schedule, state in zip(schedules, fresh, strict=True):
                self._advance(schedule, state, trainer.state.epoch)
        logger.info(f"resumed {self.last} after epoch {trainer.state.epoch} of {epochs}")

    def _advance(self, schedule: LRScheduler, fresh: dict[str, Any], epoch: int) -> None:
        """Put the schedule of a longer run where it is after some epochs."""
        schedule.load_state_dict(fresh)
        for group, rate in zip(schedule.optimizer.param_groups, schedule.base_lrs, strict=True):
            group["lr"] = rate
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of steps of the schedule before any of the optimiser
            for _ in range(epoch):
                schedule.step()
        if not any(group["lr"] for group in schedule.optimizer.param_groups):
            raise ValueError(
                f"{self.last}: the learning rate of this schedule is 0 after epoch {epoch}. A training in rounds is "
                "extended by whole rounds (key `rounds`), once it is finished."
            )


def dead_filters(network: nn.Module) -> tuple[int, int]:
    """Return how many filters of convolutions have no weight above `DEAD`, and how many there are."""
    kernels = [each.weight.detach() for each in network.modules() if isinstance(each, nn.Conv2d | nn.Conv3d)]
    return sum(int((each.flatten(1).abs().amax(1) <= DEAD).sum()) for each in kernels), sum(map(len, kernels))


def _rates(schedules: Sequence[LRScheduler]) -> list[float]:
    """Return the learning rates that schedules were made with."""
    return [float(group.get("initial_lr", group["lr"])) for each in schedules for group in each.optimizer.param_groups]
