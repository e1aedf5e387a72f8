"""An image that cannot be registered gives way to the next candidate, by name."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_studies import STUDY, write_study
from phantom_case import LPS, write_case

from common.cohorts.registry import PHANTOM
from mmb.clinic.study.doubts import study_warnings
from mmb.clinic.study.reading import align_and_assign, read_folder

BY_NUMBER = {scan.number: scan for scan in STUDY}


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "case"
    write_case(folder, "case", seed=7)
    return folder


def write_noise(folder, brain):
    """Write noise that has the outline of no head, named T2."""
    folder.mkdir()
    shape = np.asarray(nib.load(brain).dataobj).shape
    noise = np.random.default_rng(0).uniform(1, 1000, shape).astype(np.float32)
    nib.save(nib.Nifti1Image(noise, LPS), folder / "noise_t2.nii.gz")
    return folder


@pytest.mark.slow  # one registration of what cannot be registered
def test_what_cannot_be_registered_gives_way_by_name(subject, tmp_path):
    pytest.importorskip("itk.itkElastixRegistrationMethodPython")
    write_study(tmp_path / "study", subject, [BY_NUMBER[number] for number in (2, 3)])
    thin = replace(BY_NUMBER[3], number=9, spacing=(3, 3, 3), moved=((0, 0, 0), (0, 0, 0)))
    write_study(tmp_path / "study", write_noise(tmp_path / "noise", subject / "case_t2.nii.gz"), [thin])
    read = read_folder(tmp_path / "study", PHANTOM)
    assert read.sources["t2"] == "series 9"
    study, *_ = align_and_assign(read, None, torch.device("cpu"), "no")
    assert study.sources == {"t1": "series 2", "t2": "series 3"}
    (warning,) = (line for line in study_warnings(study) if "series 9" in line)
    assert warning.startswith("series 9, by its header T2, is not used: it cannot be registered (")
    (line,) = (line for line in study.explanations if line.startswith("series 9"))
    assert "cannot be used: it cannot be registered" in line


def test_what_is_misplaced_and_cannot_be_registered_is_not_judged_by_what_it_shows(subject, tmp_path, monkeypatch):
    def refuse(fixed, moving, name):
        raise ValueError(f"{name}: not registered.")

    monkeypatch.setattr("mmb.clinic.study.alignment.register", refuse)
    for name, moved in (("t1ce", 0), ("t2", 8), ("flair", 0)):
        image = nib.load(subject / f"case_{name}.nii.gz")
        nib.save(nib.Nifti1Image(np.roll(image.dataobj, moved, 1), LPS), tmp_path / f"x_{name}.nii.gz")
    study, *_ = align_and_assign(read_folder(tmp_path, PHANTOM), None, torch.device("cpu"), "no")
    names = {record.candidate.name: modality for modality, record in study.used.items()}
    assert [names[name] for name in study.evidence.aligned.failed] == ["t2"]
    assert "Do not trust the result" in " ".join(study.evidence.aligned.misplaced.values())
    assert {names[name] for name in study.evidence.log_probs} == {"t1c", "flair"}
