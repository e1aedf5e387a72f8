"""A site's side of NVIDIA FLARE: it answers each round's weights until the federation ends."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import nvflare.client as flare
import torch
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType

from federated.aggregation import REFUSED, REPORT
from federated.joining import RefusedError
from federated.plan import read_plan
from federated.site import Site

logger = logging.getLogger(__name__)


def take_part(arguments: str, output_dir: Path) -> None:
    """Answer each round by how the weights changed, or by why this site does not take part; then the others go on.

    Args:
        arguments: JSON, the plan as this site is told of it, and what all have in common.
        output_dir: for what stays at the site.
    """
    flare.init()
    given, site = json.loads(arguments), None
    while flare.is_running() and (model := flare.receive()) is not None:
        try:
            if site is None:
                plan = read_plan(json.dumps(given["plan"]), "plan")
                site = Site(plan, given["expected"], flare.get_site_name(), output_dir)
            change, metrics = site.train(model.params, model.current_round)
            answer = FLModel(ParamsType.DIFF, change, metrics=metrics or None, meta={REPORT: site.report})
        except RefusedError as refusal:
            logger.error(f"{flare.get_site_name()} does not take part in round {model.current_round}: {refusal}.")
            answer = _nothing(str(refusal))
        except Exception as error:  # the next round may do better: a full disk, a GPU that another process filled
            logger.exception(f"Round {model.current_round} failed here.")
            answer = _nothing(f"its training failed ({type(error).__name__}); its own log says why")
        flare.send(answer)
    if site is not None:
        site.finalize()


def _nothing(reason: str) -> FLModel:
    """Return an answer without weights. NVFlare does not pass on one that is empty, so it has a single number."""
    return FLModel(ParamsType.DIFF, {REFUSED: torch.zeros(1)}, meta={REFUSED: reason})
