"""An evaluation: the cases that it shows and may evaluate, costs and latents of the network; MLflow."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from bundles.running import shipped
from mlflow import MlflowClient
from torch import nn

from common import cohorts
from common.cohorts.registry import patient
from common.engines.efficiency import network_facts
from common.engines.evaluate import Report, _cost, _shown
from common.engines.latents import LatentProbe
from common.engines.tracking import store_uri
from common.evaluation.metrics.case import CaseResult
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import COLUMNS, Evaluation
from common.evaluation.metrics.store import CaseStore
from common.io.checkpoints import write_checkpoint
from common.io.facts import patient_digest, read_facts
from common.io.weights import trained_patients
from common.networks import RFNet
from common.run import trained_cases, training_facts
from mmb.experiments.comparison.side_by_side import side_by_side

DICE = {"a": 0.2, "b": 0.9, "c": 0.5, "d": 0.7, "e": 0.6}
SHOWN = {"t1": 0.1, "t2": 0.2, "t1+t2": 0.0}
"""Subset -> Dice that it loses."""


def evaluated(
    folder: Path, cases: str, name: str = "toy", lost: float = 0.0, drawn: int = 0, size: int = 2
) -> tuple[Evaluation, CaseStore]:
    """Return the results of cases with these names, and the store of their slices, labelled ``drawn``."""
    store = CaseStore(folder, [lost], [{"case": case, "image": [], "label": None} for case in cases])
    rows = [(case, subset, "WT", "dice", DICE[case] - lost - less) for case in cases for subset, less in SHOWN.items()]
    results, facts = pd.DataFrame(rows, columns=COLUMNS), {"decision": "threshold"}
    for case in cases:
        plane = np.full((size, size), drawn, np.uint8)
        planes = {"image": np.zeros((2, size, size), np.float16), "reference": plane, "spacing": np.ones(2)}
        measured = results[results["case"] == case].assign(decision="threshold")
        store.write(CaseResult(case, measured, planes=planes | {f"threshold/{name}": plane for name in SHOWN}))
    return Evaluation(name, "made up", ("t1", "t2"), ("WT",), Conventions(), results, facts=facts), store


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ("abcde", ["best case: b", "median case: e", "worst case: a"]),
        ("abcd", ["best case: b", "median case: c", "worst case: a"]),
        ("ab", ["best case: b", "worst case: a"]),
        ("a", ["best case: a"]),
    ],
)
def test_best_median_and_worst_case_are_shown(tmp_path, cases, expected):
    slices = list(_shown(*evaluated(tmp_path, cases), None, None))
    assert list(dict.fromkeys(row.title for row in slices)) == expected
    assert [row.subset for row in slices] == ["t1", "t2", "t1+t2"] * len(expected)


def test_chosen_cases_and_subsets_are_shown_in_their_order(tmp_path):
    slices = list(_shown(*evaluated(tmp_path, "abc"), ["c", "a"], ["t1+t2", "t1"]))
    titles = ["chosen case: c", "chosen case: c", "chosen case: a", "chosen case: a"]
    assert [(row.title, row.subset) for row in slices] == list(zip(titles, ["t1+t2", "t1"] * 2, strict=True))


def test_methods_are_shown_side_by_side_by_the_slices_of_their_evaluations(tmp_path):
    evaluated(tmp_path / "a" / "cases", "abc", lost=0.05, drawn=9)  # of earlier weights, in the same folder
    methods = [evaluated(tmp_path / name / "cases", "abc", name, 0.1 * (name == "b"), name == "b")[0] for name in "ab"]
    folders = {name: str(tmp_path / name) for name in "ab"}
    slices = [*side_by_side(methods, folders, ["c"], ["t1+t2", "t1"])]
    titles = ["c, from T1 + T2", "c, from T1 + T2", "c, from T1", "c, from T1"]
    found = [(row.title, row.method, row.prediction.max()) for row in slices]
    assert found == [*zip(titles, "abab", (0, 1, 0, 1), strict=True)]
    assert [row.dice[0] for row in slices] == pytest.approx([0.5, 0.4, 0.4, 0.3])
    with pytest.raises(ValueError, match=r"a: .*cases has no slices of d"):
        [*side_by_side(methods, folders, ["d"])]
    with pytest.raises(ValueError, match=r"a: c was not segmented from t3"):
        [*side_by_side(methods, folders, ["c"], ["t3"])]
    coarse, _ = evaluated(tmp_path / "coarse" / "cases", "abc", "coarse", size=1)
    with pytest.raises(ValueError, match="several sizes"):
        [*side_by_side([methods[0], coarse], folders | {"coarse": str(tmp_path / "coarse")}, ["c"])]


def test_costs_are_the_median_time_and_the_largest_memory_as_far_as_they_are_known():
    costs = [(1.0, 500.0), (2.0, 700.0), (9.0, 600.0), (float("nan"), float("nan"))]
    results = [CaseResult(name, seconds=s, memory_mb=mb) for name, (s, mb) in zip("abcd", costs, strict=True)]
    assert _cost(results) == {"seconds": 2.0, "memory_mb": 700.0}
    assert _cost(results[3:]) == {}


RIGHT = {
    **{"method": "M", "cohort": "phantom", "conventions": {}, "decision": "threshold"},
    **{"data": {}, "cases": [{"case": "a"}, {"case": "b"}], "calibration_cases": []},
    **{"subsets": [("t1",), ("t1", "t2")], "window": (8, 8, 8), "spacing": (1, 1, 1), "facts": {}},
}


@pytest.mark.parametrize("panels", [{"panel_subsets": None}, {"panel_cases": "a,b", "panel_subsets": ["t1+t2"]}])
def test_panels_may_be_chosen(tmp_path, panels):
    report = Report(**RIGHT, output_dir=str(tmp_path), **panels)
    assert report.panel_cases == (["a", "b"] if "panel_cases" in panels else None)


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"panel_cases": ["x"]}, "panel_cases: 'x' .* a, b"),
        ({"panel_subsets": "t1,t2+t1"}, r"panel_subsets: 't2\+t1' .* t1, t1\+t2"),
        ({"method": ("U-Net", "ModDrop")}, r"method \('U-Net', 'ModDrop'\): .* two pairs of quotes"),
        ({"cases": []}, "part of the split is empty"),
    ],
)
def test_wrong_settings_are_refused_before_the_evaluation(tmp_path, settings, facts):
    with pytest.raises(ValueError, match=facts):
        Report(**RIGHT | {"output_dir": str(tmp_path)} | settings)


ROOT = Path(__file__).parents[2]
GSS = str(ROOT / "bundles" / "gss")
SETTINGS = {"method": "GSS", "cohort": "brats2021", "recipe": ["brats2021.json"]}


def item(case: str, **more: str) -> dict:
    return {"case": case, "modalities": ["t1"], **more}


@pytest.fixture
def weights(tmp_path) -> Path:
    """Weights trained on cases 1 and 2 of BraTS 2021, before that on case 3, and pretrained on case 4."""
    path, earlier = tmp_path / "weights.pt", tmp_path / "earlier.pt"
    write_checkpoint({"w": torch.ones(1)}, earlier, training_facts(GSS, SETTINGS, [item("BraTS2021_00003")], None))
    cases = [item("BraTS2021_00001"), item("scan", patient="BraTS2021_00002")]
    facts = training_facts(GSS, SETTINGS, cases, str(earlier), [item("BraTS2021_00004")])
    write_checkpoint({"w": torch.ones(1)}, path, facts)
    return path


def test_weights_know_the_patients_of_all_their_trainings_by_digests(weights):
    names = [f"BraTS2021_0000{number}" for number in (1, 2, 3, 4)]
    assert read_facts(weights).patients == sorted(patient_digest("brats2021", patient(name)) for name in names)
    assert b"BraTS2021_0000" not in weights.read_bytes()


@pytest.mark.parametrize("cohort", ["brats2021", "open_glioma"])  # whatever the cohort is called this time
def test_a_case_that_the_weights_were_trained_on_is_refused_by_name_or_marked(weights, cohort, caplog):
    cases = [item("BraTS2021_00005"), item("BraTS2021_00003"), item("BraTS2021_00006")]
    with pytest.raises(ValueError, match=r"trained on 1 of the 3 cases to evaluate \(BraTS2021_00003\)"):
        trained_cases(cases, cohort, str(weights), GSS, "refuse")
    assert trained_cases(cases, cohort, str(weights), GSS, "mark") == 1
    assert "BraTS2021_00003" in caplog.text
    assert trained_cases(cases[::2], cohort, str(weights), GSS, "refuse") is None
    with pytest.raises(ValueError, match="trained_cases 'no': expected one of 'refuse', 'mark'"):
        trained_cases(cases, cohort, str(weights), GSS, "no")


def test_weights_without_a_list_cause_a_warning(tmp_path, caplog):
    torch.save({"w": torch.ones(1)}, tmp_path / "weights.pt")
    assert trained_cases([item("BraTS2021_00001")], "brats2021", str(tmp_path / "weights.pt"), GSS, "refuse") is None
    assert "does not say which patients it was trained on" in caplog.text


@pytest.mark.parametrize("bundle", shipped())
def test_the_weights_for_patients_were_trained_on_the_training_cases_of_fixed50(bundle):
    splits = pd.read_csv(Path(cohorts.__file__).parent / "data" / "brats_splits.csv")
    training = splits[(splits["split"] == "fixed50") & (splits["part"] == "train")]["case"]
    root = ROOT / "bundles" / bundle
    listed = trained_patients(root / "models" / "model.pt", root)
    assert listed == sorted({patient_digest("open_glioma", patient(case)) for case in training})
    assert len(training) == 36
    assert len(listed) == 35  # two cases are of one patient


class Attention(nn.Module):
    """Attend to 500 tokens with 8 heads of 64 channels."""

    def __init__(self):
        super().__init__()
        self.query = nn.Linear(4, 8 * 64, bias=False)

    def forward(self, image):
        query = self.query(image.flatten(2).transpose(1, 2)).unflatten(2, (8, 64)).transpose(1, 2)
        return F.scaled_dot_product_attention(query, query, query)


def test_attention_counts_on_a_cpu_too():
    """PyTorch's counter takes the CPU's fused attention for free."""
    facts = network_facts(Attention(), 4, (10, 10, 5))
    assert facts == {"parameters": 4 * 512, "gflops": round((2 * 500 * 4 * 512 + 2 * 2 * 8 * 500 * 500 * 64) / 1e9, 3)}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return RFNet(width=4).eval()


@torch.no_grad()
@pytest.mark.parametrize("modality", range(4))
def test_pattern_looks_at_the_coarsest_level_of_the_modality_that_runs(network, modality):
    image = torch.full((1, 4, 16, 16, 16), torch.nan)
    image[:, modality] = torch.randn(1, 16, 16, 16)
    probe = LatentProbe(network, "encoders.*")
    network(image)
    coarsest = network.encoders[modality](image[:, modality][:, None])[-1]
    assert np.allclose(probe.take(), coarsest[0].flatten(1).mean(dim=1).numpy(), atol=1e-6)


def test_pattern_is_of_one_depth(network):
    LatentProbe(network, "encoders.*")
    assert all(encoder._forward_hooks for encoder in network.encoders)
    assert not any(module._forward_hooks for encoder in network.encoders for module in encoder.levels.modules())
    with pytest.raises(ValueError, match=r"latent_layer 'encoder\.\*': .*encoders"):
        LatentProbe(network, "encoder.*")


@torch.no_grad()
def test_features_of_all_modalities_side_by_side_are_refused():
    network = RFNet(width=4, feature_encoder="shared").eval()
    LatentProbe(network, "feature_encoder")
    with pytest.raises(ValueError, match=r"output shape \(1, 4, 4, 16, 16, 16\); expected \(B, C, X, Y, Z\)"):
        network(torch.randn(1, 4, 16, 16, 16))


@pytest.mark.slow  # a store of MLflow
def test_nothing_appears_beside_a_folder_with_spaces(tmp_path):
    place = tmp_path / "data" / "ümlaut é [1]"
    place.mkdir(parents=True)
    MlflowClient(store_uri(place / "mlruns.db")).create_experiment("x")
    assert [*(tmp_path / "data").iterdir()] == [place]
    assert (place / "mlruns.db").is_file()


@pytest.mark.slow  # a process of its own
def test_an_import_does_not_need_mlflow():
    code = "import sys; sys.modules['mlflow'] = None; import common.run"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
