"""Weights say which patients they were trained on, and an evaluation on these is refused or marked."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from common import cohorts
from common.cohorts.registry import patient
from common.engines import trained_cases, training_facts
from common.io import write_checkpoint
from common.io.facts import patient_digest, read_facts
from common.io.weights import trained_patients

ROOT = Path(__file__).parents[2]
GSS = str(ROOT / "bundles" / "gss")
SETTINGS = {"method": "GSS", "cohort": "brats2021"}


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


@pytest.mark.parametrize("bundle", ["m3ae", "mag_ms", "medmap", "passion", "gss"])
def test_the_weights_for_patients_were_trained_on_the_training_cases_of_fixed50(bundle):
    splits = pd.read_csv(Path(cohorts.__file__).parent / "data" / "brats_splits.csv")
    training = splits[(splits["split"] == "fixed50") & (splits["part"] == "train")]["case"]
    root = ROOT / "bundles" / bundle
    listed = trained_patients(root / "models" / "model.pt", root)
    assert listed == sorted({patient_digest("open_glioma", patient(case)) for case in training})
    assert len(training) == 36
    assert len(listed) == 35  # two cases are of one patient
