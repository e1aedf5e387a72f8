"""A site of a federation, at which MONAI's client trains the bundle on the site's own data."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject

from common.engines.handlers import ResumableCheckpoint
from common.io.bundle import bundle_root
from common.io.errors import unwrapped_errors
from mmb.experiments.federation.identity import RefusedError, require_same, require_same_shapes
from mmb.experiments.federation.plan import Plan

logger = logging.getLogger(__name__)


class Site:
    """Trains a bundle in rounds on the data of one site.

    All state except the network's weights stays here from round to round, in the training's checkpoint: the optimiser's
    moments, the loss's state (PASSION's beta, MedMAP's mixture), and a moving average of the weights. Raises
    RefusedError if this site cannot take part.

    All sites must share the identity ``expected``; see `mmb.experiments.federation.identity`. ``output_dir`` is for
    checkpoints and the cache of prepared images; none of it is sent.
    """

    def __init__(self, plan: Plan, expected: Mapping[str, str], name: str, output_dir: Path) -> None:
        self.plan = plan
        require_same(plan.identity(), expected)
        settings = plan.settings_of(name, output_dir)
        self._require_data(settings)
        root, configs = bundle_root(plan.bundle), [f"configs/{config}" for config in plan.files]
        self.algo: Any = MonaiAlgo(  # whose attributes MONAI declares as optional; `initialize` sets them
            root,
            local_epochs=plan.local_epochs,
            config_train_filename=configs,
            train_kwargs=dict(settings),
            config_evaluate_filename=configs,
            eval_kwargs=dict(settings),
        )
        self.algo.initialize({ExtraItems.CLIENT_NAME: name})
        workflow: Any = self.algo.train_workflow
        self.cases = len(workflow.train_dataset_data)
        self.validates = len(workflow.val_dataset) > 0
        self._schedule = workflow.parser.get_parsed_content("lr_scheduler")
        handlers = workflow.parser.get_parsed_content("train#handlers")
        next(each for each in handlers if isinstance(each, ResumableCheckpoint)).restore_beside_weights()

    def train(
        self, weights: Mapping[str, torch.Tensor], number: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """Train for round ``number``, counted from 0.

        A site that missed rounds continues at this round's point of the schedule. Returns the change of the weights,
        and the metrics of the received weights on this site's validation cases. Raises RefusedError if weights are no
        longer finite, which would spoil those of all sites.
        """
        require_same_shapes(weights, self.algo.trainer.network.state_dict())
        given = ExchangeObject(weights=dict(weights))
        metrics = dict(self.algo.evaluate(given).metrics) if self.validates else {}
        self._go_to(number * self.plan.local_epochs)
        self.algo.train(given)
        change = self.algo.get_weights().weights
        if bad := [name for name, value in change.items() if not torch.as_tensor(value).isfinite().all()]:
            raise RefusedError(f"its weights are no longer finite, e.g. {bad[0]}")
        return change, metrics

    def finalize(self) -> None:
        """Release the output folder."""
        self.algo.finalize()

    def _go_to(self, epoch: int) -> None:
        trainer = self.algo.trainer
        trainer.state.epoch = epoch
        trainer.state.iteration = epoch * len(trainer.data_loader)
        while self._schedule.last_epoch < epoch:
            self._schedule.step()

    def _require_data(self, settings: Mapping[str, Any]) -> None:
        """Refuse a site whose folder has no training cases of the cohort, with a reason that names no files."""
        try:
            with unwrapped_errors():
                found = self.plan.parser(settings).get_parsed_content("data")
        except Exception as error:
            logger.error(error)
            raise RefusedError(
                f"no cases of the cohort {self.plan.cohort} could be read from its data folder; its own log says why"
            ) from error
        if not found["training"]:
            raise RefusedError("no training cases")
