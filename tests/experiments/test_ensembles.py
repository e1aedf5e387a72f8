"""One file of several networks: what it says, what it computes, and which files are refused."""

import sys

import pytest
import torch
from refusals import refused

from common.engines.efficiency import network_facts
from common.engines.inferers import SubstituteInferer
from common.io.bundle import bundle_root
from common.io.checkpoints import load_weights, read_weights, write_checkpoint
from common.io.facts import TrainingFacts, read_facts, setting_of_weights
from common.networks import M3AE, Ensemble, replicated
from mmb.__main__ import main
from mmb.experiments.ensembles import write_ensemble
from mmb.predictors.bundle import Inference

GRID = (24, 24, 16)
SIZES = {"modalities": 2, "out_channels": 3, "width": 8, "grid": GRID}


def network(seed: int, width: int = 8) -> M3AE:
    torch.manual_seed(seed)
    return M3AE(modalities=2, out_channels=3, width=width, grid=GRID).eval()


def facts(method: str, patient: str, spacing: float = 2.0) -> TrainingFacts:
    settings = {"cohort": "phantom", "width": 8, "spacing": [spacing] * 3}
    return TrainingFacts(
        method=method, bundle="m3ae", cases=3, modalities=["t1"], patients=[patient], settings=settings
    )


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "a.pt", tmp_path / "b.pt"]
    write_checkpoint(network(1).state_dict(), paths[0], facts("M3AE", "2"))
    write_checkpoint(network(2).state_dict(), paths[1], facts("ModDrop", "1"))
    return paths


def test_the_mean_of_the_logits_each_network_with_its_own_substitute_image(files, tmp_path):
    write_ensemble(files, tmp_path / "both.pt")
    ensemble = load_weights(replicated("common.networks.M3AE", 2, **SIZES), tmp_path / "both.pt").eval()
    image = torch.rand(1, 2, 20, 18, 16, generator=torch.Generator().manual_seed(0))
    image[:, 1] = torch.nan
    inferer = SubstituteInferer(roi_size=(16, 16, 16), overlap=0.5)
    first, second = (inferer(image, network(seed)) for seed in (1, 2))
    torch.testing.assert_close(inferer(image, ensemble), (first + second) / 2)
    window = image[..., :16, :16, :16]
    mean = (network(1)(window) + network(2)(window)) / 2
    torch.testing.assert_close(ensemble(window), mean)
    torch.testing.assert_close(torch.jit.script(ensemble)(window), mean)


def test_substitute_images_of_all_networks_are_no_parameters():
    one, three = (
        network_facts(replicated("common.networks.M3AE", count, **SIZES), 2, (16, 16, 16)) for count in (1, 3)
    )
    assert three == {name: pytest.approx(3 * value, rel=1e-2) for name, value in one.items()}
    assert "substitute_values" in one


def test_the_record_counts_the_networks_and_has_all_patients(files, tmp_path):
    write_ensemble(files, tmp_path / "both.pt")
    record = read_facts(tmp_path / "both.pt")
    assert (record.method, record.patients) == ("Mean of 2 networks (M3AE, ModDrop)", ["1", "2"])
    assert record.trained_on == "3 cases of phantom with images of T1"
    assert setting_of_weights(tmp_path / "both.pt", "ensemble", 1) == 2
    assert setting_of_weights(tmp_path / "both.pt", "mirror_axes", []) == []
    write_ensemble(files, tmp_path / "mirrored.pt", [0])
    assert setting_of_weights(tmp_path / "mirrored.pt", "mirror_axes", []) == [0]
    for axes in ([3], [0, 0], [True]):
        with pytest.raises(ValueError, match=r"mirror_axes .*: expected distinct axes"):
            write_ensemble(files, tmp_path / "mirrored.pt", axes)
    assert setting_of_weights(files[0], "ensemble", 1) == 1


def test_others_are_refused_by_name(files, tmp_path):
    output = tmp_path / "both.pt"
    with refused(ValueError, "1 weights file; expected at least two"):
        write_ensemble(files[:1], output)
    write_checkpoint(network(1).state_dict(), tmp_path / "coarse.pt", facts("M3AE", "1", 3.0))
    with refused(ValueError, "coarse.pt: was trained with spacing [3.0, 3.0, 3.0]", "a.pt with [2.0, 2.0, 2.0]"):
        write_ensemble([files[0], tmp_path / "coarse.pt"], output)
    write_checkpoint(network(1, width=16).state_dict(), tmp_path / "wide.pt", facts("M3AE", "1"))
    with refused(ValueError, "wide.pt: a checkpoint of another architecture than", "a.pt"):
        write_ensemble([files[0], tmp_path / "wide.pt"], output)
    write_checkpoint(network(1).state_dict(), tmp_path / "unknown.pt")
    with refused(ValueError, "unknown.pt: does not record its training"):
        write_ensemble([files[0], tmp_path / "unknown.pt"], output)
    assert not output.exists()
    write_ensemble(files, output)
    with refused(ValueError, "both.pt: holds 2 networks; give the files that it was made of"):
        write_ensemble([output, *files], tmp_path / "more.pt")


def test_patients_of_whom_one_file_says_nothing_are_unknown(files, tmp_path):
    write_checkpoint(network(2).state_dict(), files[1], facts("ModDrop", "1").model_copy(update={"patients": []}))
    write_ensemble(files, tmp_path / "both.pt")
    assert read_facts(tmp_path / "both.pt").patients == []


def test_a_bundle_takes_the_file_as_any_other(tmp_path, monkeypatch):
    weights, both = read_weights(bundle_root("m3ae") + "/models/phantom.pt"), tmp_path / "both.pt"
    settings = {"cohort": "phantom", "width": 8, "grid": [80, 80, 52], "spacing": [3.0] * 3, "crop": [40, 48, 40]}
    write_checkpoint(weights, tmp_path / "one.pt", TrainingFacts(method="M3AE", bundle="m3ae", settings=settings))
    monkeypatch.setattr(sys, "argv", ["mmb", "ensemble", str(both), *[str(tmp_path / "one.pt")] * 2])
    main()
    ensemble = Inference("m3ae", None, str(both), "cpu").workflow.parser.get_parsed_content("network")
    assert isinstance(ensemble, Ensemble)
    for member in ensemble.members:
        torch.testing.assert_close(dict(member.state_dict()), weights, rtol=0, atol=0, check_dtype=False)
