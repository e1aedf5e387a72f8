"""Every bundle trains under MONAI's own federated client, which any engine of federated learning can run."""

import pytest
import torch
from bundles.running import Bundle
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject

ONE_CASE = {"train_on": ["validation"], "val_subsets": [["t1", "t1c", "t2", "flair"]], "batch_size": 1, "quiet": True}
SMALL = {**ONE_CASE, "spacing": [6, 6, 6], "crop": [16, 16, 16], "epochs": 2, "val_interval": 2}
FUSION = {**SMALL, "backbone": "RFNet"}
SETTINGS = {
    "m3ae": {**SMALL, "crop": [24, 24, 24], "grid": [40, 40, 26]},
    "passion": {**FUSION, "missing_rates": "$None"},
    "gss": FUSION,
    "medmap": FUSION,
    "mag_ms": {**SMALL, "crop": [32, 32, 32], "width": 4, "hidden": 16, "mlp_dim": 16, "heads": 2},
}


def client(name, dataset_dir, output_dir):
    settings = {**SETTINGS[name], "dataset_dir": str(dataset_dir), "output_dir": str(output_dir)}
    folder = str(Bundle(name).folder)
    return MonaiAlgo(
        folder, config_evaluate_filename="configs/train.json", train_kwargs={**settings}, eval_kwargs={**settings}
    )


@pytest.mark.parametrize("name", ["m3ae", "passion"])
def test_a_round_starts_from_the_weights_it_is_given_and_returns_how_they_changed(name, coarse_dir, tmp_path):
    algo = client(name, coarse_dir, tmp_path)
    algo.initialize({ExtraItems.CLIENT_NAME: "hospital"})
    network = algo.train_workflow.network_def
    weights = {key: value.detach().clone() for key, value in network.state_dict().items()}
    for rounds in (1, 2):
        algo.train(ExchangeObject(weights=weights))
        sent = algo.get_weights().weights
        assert sent.keys() == weights.keys()  # only names of the network, none of the method, loss or optimiser
        assert any(bool(change.any()) for change in sent.values())
        weights = {key: value + sent[key] for key, value in weights.items()}
        torch.testing.assert_close(dict(network.state_dict()), weights)
        assert algo.trainer.state.epoch == rounds  # also of the schedule, which continues from round to round
    others = {key: torch.zeros_like(value) for key, value in weights.items()}
    metrics = algo.evaluate(ExchangeObject(weights=others)).metrics
    assert 0 <= metrics["val_mean_dice"] <= 1
    evaluated = algo.evaluator.network.state_dict()
    assert not any(bool(value.any()) for value in evaluated.values())
    torch.testing.assert_close(dict(network.state_dict()), weights)  # the next round does not start from these
    algo.finalize()
