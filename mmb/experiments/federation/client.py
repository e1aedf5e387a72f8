"""A site's client of NVIDIA FLARE, which answers each round until the federation ends."""

import json
import logging
from pathlib import Path

import nvflare.client as flare
import torch
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType

from mmb.experiments.federation.aggregation import REFUSED, REPORT
from mmb.experiments.federation.joining import RefusedError
from mmb.experiments.federation.plan import Plan
from mmb.experiments.federation.site import Site

logger = logging.getLogger(__name__)


def take_part(arguments: str, output_dir: Path) -> None:
    """Answer each round with the change of the weights, or with the reason why this site does not take part.

    ``arguments`` is JSON with the site's part of the plan and the identity that all sites must share; files in
    ``output_dir`` stay at the site.
    """
    flare.init()
    given, site = json.loads(arguments), None
    while flare.is_running() and (model := flare.receive()) is not None:
        try:
            if site is None:
                site = Site(Plan(**given["plan"]), given["expected"], flare.get_site_name(), output_dir)
            change, metrics = site.train(model.params, model.current_round)
            answer = FLModel(ParamsType.DIFF, change, metrics=metrics or None, meta={REPORT: site.report})
        except RefusedError as refusal:
            logger.error(f"{flare.get_site_name()} does not take part in round {model.current_round}: {refusal}.")
            answer = _nothing(str(refusal))
        except Exception as error:  # the next round may succeed, e.g. after a full disk or GPU memory
            logger.exception(f"Round {model.current_round} failed here.")
            answer = _nothing(f"its training failed ({type(error).__name__}); its own log says why")
        flare.send(answer)
    if site is not None:
        site.finalize()


def _nothing(reason: str) -> FLModel:
    """Return an answer without weights; it holds one number, since NVFlare does not forward an empty answer."""
    return FLModel(ParamsType.DIFF, {REFUSED: torch.zeros(1)}, meta={REFUSED: reason})
