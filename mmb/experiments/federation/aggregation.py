"""Aggregation of the sites' updates: for each part of the network, a mean over the sites that train it."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator
from nvflare.app_common.app_constant import AppConstants

from mmb.experiments.federation.joining import RefusedError, require_same, require_same_shapes

logger = logging.getLogger(__name__)
REPORT, REFUSED = "site", "refused"
"""Keys in an answer's metadata: a site's report, or the reason why it does not take part."""


class Update(NamedTuple):
    """A site's update in a round.

    Attributes:
        change: change of the weights, arrays by name.
        cases: number of its training cases.
        cases_with: sequence -> number of these cases that have it.
        metrics: metrics of the weights that it received, on its own validation cases; empty if it has none.
    """

    change: Mapping[str, np.ndarray]
    cases: int
    cases_with: Mapping[str, int]
    metrics: Mapping[str, float]


def aggregate(updates: Sequence[Update], parts: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Return the mean change of each weight.

    ``parts`` are the parts of the network for each sequence; see `common.networks.modality_modules`. Their weights are
    averaged over the sites that have the sequence, weighted by their cases with it. All other weights are averaged over
    all sites, weighted by their cases. A weight that a site does not send is averaged over the others. A weight that no
    site sends, or has cases for, is left out, so that it does not change. Without ``parts`` this is FedAvg (McMahan et
    al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017).
    """
    changes, sequences = {}, {part: sequence for sequence, names in parts.items() for part in names}
    for name in dict.fromkeys(name for update in updates for name in update.change):
        sequence = next((of for part, of in sequences.items() if f"{name}.".startswith(f"{part}.")), None)
        sites = [update for update in updates if name in update.change]
        shares = [site.cases if sequence is None else site.cases_with[sequence] for site in sites]
        if total := sum(shares):
            sent = [site.change[name] for site in sites]
            terms = (share * change.astype(np.float64) for share, change in zip(shares, sent, strict=True))
            changes[name] = (sum(terms) / total).astype(sent[0].dtype)
    return changes


def mean_metrics(updates: Sequence[Update]) -> dict[str, float]:
    """Return the means of the metrics over the sites that have them, weighted by their numbers of cases."""
    names = sorted({name for update in updates for name in update.metrics})
    having = {name: [update for update in updates if name in update.metrics] for name in names}
    return {
        name: sum(site.cases * site.metrics[name] for site in sites) / sum(site.cases for site in sites)
        for name, sites in having.items()
    }


class SiteAverage(ModelAggregator):
    """`aggregate` within NVFlare's FedAvg. A site that does not fit is named and left out; the round continues.

    All ``sites`` of the plan must share the identity ``expected``; see `mmb.experiments.federation.joining.identity`.
    """

    def __init__(self, expected: dict[str, str], parts: dict[str, list[str]], sites: list[str]) -> None:
        super().__init__()
        self.expected, self.parts, self.sites = expected, parts, sites
        self.reset_stats()

    def accept_model(self, model: FLModel) -> None:
        """Store a site's answer until the round ends, or log the site and the reason for refusing it."""
        site, meta = model.meta.get("client_name", "?"), model.meta
        self._answered.add(site)
        try:
            if REFUSED in meta:
                raise RefusedError(meta[REFUSED])
            self._updates[site] = self._checked(model.params, meta[REPORT], model.metrics or {})
        except RefusedError as refusal:
            logger.error(f"{site} does not take part in round {model.current_round}: {refusal}.")

    def aggregate_model(self) -> FLModel:
        """Return the round's mean change, which does not depend on the order of the answers."""
        for site in [site for site in self.sites if site not in self._answered]:
            logger.error(f"{site} has not answered and is left out of this round.")
        if not self._updates:
            raise RuntimeError("No site took part in this round; the reasons are in the log above.")
        updates = [update for _, update in sorted(self._updates.items())]
        taken = ", ".join(f"{site} ({update.cases} cases)" for site, update in sorted(self._updates.items()))
        logger.info(f"Averaged {taken}.")
        return FLModel(
            params_type=ParamsType.DIFF, params=aggregate(updates, self.parts), metrics=mean_metrics(updates) or None
        )

    def reset_stats(self) -> None:
        """Reset the updates at the start of a round."""
        self._updates: dict[str, Update] = {}
        self._answered: set[str] = set()

    def _checked(self, change: Mapping[str, Any], report: Mapping[str, Any], metrics: Mapping[str, float]) -> Update:
        require_same(report["identity"], self.expected)
        weights = self.fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS]
        require_same_shapes(change, {name: weights[name] for name in change if name in weights})
        if bad := [name for name, value in change.items() if not np.isfinite(value).all()]:
            raise RefusedError(f"its weights are no longer finite, e.g. {bad[0]}")
        return Update(change, report["cases"], report["cases_with"], metrics)
