"""Bundles under other engines: MONAI's federated client, and an accelerator that no step waits for."""

import pytest
import torch
from accelerator import DEVICE, accelerator
from bundles.running import Bundle, configurations, read_configuration
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject

ONE_CASE = {"train_on": ["validation"], "batch_size": 1, "quiet": True, "epochs": 2, "val_interval": 2}


def client(name, dataset_dir, output_dir):
    settings = {**Bundle(name).tiny, **ONE_CASE, "dataset_dir": str(dataset_dir), "output_dir": str(output_dir)}
    folder, given = str(Bundle(name).folder), {"train_kwargs": {**settings}, "eval_kwargs": {**settings}}
    return MonaiAlgo(folder, config_evaluate_filename="configs/train.json", **given)


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
    assert 0 <= algo.evaluate(ExchangeObject(weights=others)).metrics["val_mean_dice"] <= 1
    assert not any(bool(value.any()) for value in algo.evaluator.network.state_dict().values())
    torch.testing.assert_close(dict(network.state_dict()), weights)  # the next round does not start from these
    algo.finalize()


READS = 5
"""Most reads by the host in a step: of the modalities present (by method and network) and of the labels' range."""
COMPLETE = ("gss", "medmap/baselines/smunet", "medmap/backbones/acn")
"""Methods that need complete subjects."""
STAGES = ("train", "pretrainer", "teacher", "teachers")


@pytest.mark.parametrize("name", configurations())
def test_a_step_mixes_no_devices_and_reads_a_few_values(name, phantom_dir):
    config = read_configuration(name, dataset_dir=str(phantom_dir))
    absents = (None,) if name.startswith(COMPLETE) else (None, (0, 2))
    stages = [stage for stage in STAGES if f"{stage}#trainer" in config]
    assert stages
    for stage in stages:
        method = config.get_parsed_content(f"{stage}#trainer#network").to(DEVICE).train()
        loss = config.get_parsed_content(f"{stage}#loss").to(DEVICE)
        modalities = len(config.get_parsed_content("cohort_def").modalities)
        regions = len(config.get_parsed_content("cohort_def").labels.regions)
        crop = config.get_parsed_content("crop")
        soft = name.startswith("m3ae")
        for absent in absents:
            with accelerator(absent) as reads:
                image = torch.empty(2, modalities, *crop, device=DEVICE)
                loss(method(image), torch.zeros(2, regions if soft else 1, *crop, device=DEVICE)).backward()
            assert len(reads) <= READS, "\n".join(reads)
