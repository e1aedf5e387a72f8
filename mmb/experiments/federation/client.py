"""A site's client of NVIDIA FLARE, which answers each round until the federation ends."""

import json
from pathlib import Path

import nvflare.client as flare
from nvflare.apis.fl_constant import FLMetaKey
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType

from mmb.experiments.federation.plan import Plan
from mmb.experiments.federation.site import Site


def take_part(arguments: str, output_dir: Path) -> None:
    """Answer each round with the change of the weights, weighted by the number of training cases.

    ``arguments`` is JSON with the site's part of the plan and the identity that all sites must share; files in
    ``output_dir`` stay at the site. An error, such as a RefusedError of a site that does not fit, is in the site's own
    log; NVFlare tells the server that the site failed, and the others go on.
    """
    flare.init()
    given, site = json.loads(arguments), None
    while flare.is_running() and (model := flare.receive()) is not None:
        if site is None:
            site = Site(Plan(**given["plan"]), given["expected"], flare.get_site_name(), output_dir)
        change, metrics = site.train(model.params, model.current_round)
        meta = {FLMetaKey.NUM_STEPS_CURRENT_ROUND: site.cases}
        flare.send(FLModel(ParamsType.DIFF, change, metrics=metrics or None, meta=meta))
    if site is not None:
        site.finalize()
