"""Predictors: bundles from Python, and trained nnU-Nets, which ``nnunetv2`` trains here; refusals of other folders."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from bundles.running import DEMO
from bundles.running import Bundle as Command

from common.cohorts import get_cohort
from common.cohorts.datalist import load_datalist
from common.cohorts.phantom.cohort import generate
from common.cohorts.phantom.simulation import simulate
from common.evaluation import Reference
from common.modalities import GLIOMA
from mmb import Bundle
from mmb.clinic.batch import segment_each
from mmb.clinic.options import Options
from mmb.clinic.study import predict
from mmb.predictors.bundle import load_predictor
from mmb.predictors.nnunet import KNOWN_PARTS, is_nnunet, load_nnunet, read_checkpoint
from mmb.verbs.datalist import datalist

DATASET, NUMBER = "Dataset137_Phantom", 137
TOLD = {
    "channel_names": {"0": "T1", "1": "T1c", "2": "T2", "3": "FLAIR"},
    "labels": {"background": 0, "ED": 1, "NCR": 2, "ET": 3},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The phantom, nnU-Net's predictions of it, and the folder of the trained model."""
    pytest.importorskip("nnunetv2")
    folder = tmp_path_factory.mktemp("nnunet")
    generate(folder / "phantom", 5)
    datalist("brats2021", str(folder / "phantom"), str(folder / "raw" / DATASET), "cv1of3", nnunet=True)
    variables = {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    variables["nnUNet_def_n_proc"] = "1"
    program = [sys.executable, str(Path(__file__).with_name("trained_nnunet.py")), str(folder), DATASET]
    program.append(str(NUMBER))
    done = subprocess.run(program, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "phantom", folder / "predicted", Path(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_predictions_equal_those_of_nnunet(trained: tuple[Path, Path, Path]) -> None:
    phantom, predicted, model = trained
    predictor = load_nnunet(model, "cpu")
    files = sorted(predicted.glob("*.nii.gz"))
    assert files
    for file in files:
        case = file.name.removesuffix(".nii.gz")
        paths = {name: phantom / case / f"{case}_{'t1ce' if name == 't1c' else name}.nii.gz" for name in GLIOMA}
        own = predictor.run({name: nib.load(path) for name, path in paths.items()})
        theirs = np.asarray(nib.load(file).dataobj)
        meant = np.array([0, 2, 1, 3])[theirs]  # nnU-Net's order of the classes, as BraTS's
        assert (own.label == meant).mean() >= 0.999
        assert len(np.unique(meant)) > 1
        heads = np.load(file.with_name(f"{case}.npz"))["probabilities"].transpose(0, 3, 2, 1)
        assert np.abs(own.probabilities - heads).max() < 1e-3  # WT, TC and ET, in this order


@pytest.mark.slow
def test_a_study_and_raw_data(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    phantom, predicted, model = trained
    made = predict(phantom / "Phantom_001", tmp_path / "study", Options(str(model), device="cpu"))
    assert made.summary.bundle.startswith("nnU-Net Dataset137")
    assert "SHA-256" in made.summary.weights
    raw = predicted.parent / "raw" / DATASET / "imagesTs"
    outcomes = [outcome for outcome, _ in segment_each(raw, tmp_path / "each", Options(str(model), device="cpu"))]
    assert [outcome.failure for outcome in outcomes] == [None] * len(list(predicted.glob("*.nii.gz")))


@pytest.mark.slow
def test_one_model_for_each_subset(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    phantom, _, model = trained
    shutil.copytree(model, tmp_path / "models" / "t1c-t2f-t1n-t2w")
    told = tmp_path / "models" / "t1c-t2f-t1n-t2w" / "dataset.json"
    content = json.loads(told.read_text())
    told.write_text(json.dumps(content | {"channel_names": {str(n): f"channel_{n}" for n in range(4)}}))
    shutil.copytree(told.parent, f"{told.parent}_ResEncL")  # GlioMODA's larger model, not taken by default
    predictor = load_predictor(str(tmp_path / "models"), device="cpu")
    assert predictor.using(GLIOMA).folder == told.parent
    assert predictor.using(GLIOMA).channels == ("t1c", "flair", "t1", "t2")  # as GlioMODA names its folders
    assert len(predictor.lacking) == 14
    with pytest.raises(ValueError, match="no model for t1c"):
        predict(phantom / "Phantom_001", tmp_path / "out", Options(str(tmp_path / "models"), modalities=["t1c"]))


def _model(folder: Path, configuration: str = "3d_fullres", **checkpoint: object) -> Path:
    """A model's folder as nnU-Net writes it, without weights that could be used."""
    fold = folder / "fold_0"
    fold.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(TOLD))
    full = {"patch_size": [32, 32, 32], "spacing": [1.0, 1.0, 1.0]}
    known = {"2d": {"patch_size": [32, 32], "spacing": [1.0, 1.0]}, "3d_fullres": full}
    known["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    (folder / "plans.json").write_text(json.dumps({"configurations": known}))
    content = {"network_weights": {}, "trainer_name": "nnUNetTrainer", "init_args": {"configuration": configuration}}
    torch.save({**content, "logging": [np.float64(1.5), np.float32(2)], **checkpoint}, fold / "checkpoint_final.pth")
    return folder


class Code:
    def __reduce__(self) -> tuple:
        return os.system, ("touch ran",)


def test_checkpoint_with_numbers_of_numpy_is_read_and_one_with_code_refused(tmp_path: Path) -> None:
    assert read_checkpoint(_model(tmp_path / "a") / "fold_0" / "checkpoint_final.pth")["logging"] == [1.5, 2]
    other = _model(tmp_path / "c", init_args=[])
    with pytest.raises(ValueError, match="no checkpoint of nnU-Net v2, which has init_args"):
        read_checkpoint(other / "fold_0" / "checkpoint_final.pth")
    bad = _model(tmp_path / "b", extra=Code())
    with pytest.raises(ValueError, match=r"holds code \(posix.system\), which is not run"):
        read_checkpoint(bad / "fold_0" / "checkpoint_final.pth")


def _told(**other: object) -> Callable[[Path], None]:
    """Change ``dataset.json``."""

    def change(model: Path) -> None:
        path = model / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | other))

    return change


def _plans(**configurations: object) -> Callable[[Path], None]:
    return lambda model: (model / "plans.json").write_text(json.dumps({"configurations": configurations or None}))


REGIONS = TOLD["labels"] | {"TC": [2, 3]}
REFUSED = [
    (lambda model: (model / "plans.json").unlink(), "no plans.json"),
    (lambda model: (model / "plans.json").rename(model / "plans.pkl"), "nnU-Net v1"),
    (lambda model: (model / "dataset.json").unlink(), "no dataset.json"),
    (lambda model: (model / "fold_0" / "checkpoint_final.pth").unlink(), "no weights"),
    (lambda model: (model / "fold_0" / "checkpoint_final.pth").write_bytes(b"x"), "damaged"),
    ("2d", "single slices"),
    ("3d_cascade_fullres", "cascade"),
    ("3d_lowres", "not in plans.json"),
    (_plans(**{"3d_fullres": {"patch_size": [32] * 3}}), "has no patch_size and spacing along three axes"),
    (_plans(), "plans.json: configurations: Input should be an object"),
    (_told(channel_names={"0": "CT"}), "channel 'CT' is no known sequence"),
    (_told(labels=REGIONS), "trained on regions, but not on WT"),
    (_told(labels=REGIONS | {"WT": [1, 2, 3]}), "trained on regions, but without regions_class_order"),
]


@pytest.mark.parametrize(("change", "said"), REFUSED)
def test_what_is_no_usable_model_is_refused_in_one_line(tmp_path: Path, change: str | Callable, said: str) -> None:
    model = _model(tmp_path / "model", **({"configuration": change} if isinstance(change, str) else {}))
    if callable(change):
        change(model)
    assert is_nnunet(model)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as error:
        load_predictor(str(model), device="cpu")
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"fold_0: no plans\.json; expected a folder of nnU-Net v2"):
        load_predictor(str(_model(tmp_path / "other") / "fold_0"), device="cpu")


OWN = {"dataset_json": TOLD, "plans": {"configurations": {"3d_fullres": {"spacing": [1.0, 1.0, 1.0]}}}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_told(channel_names={"0": "FLAIR", "1": "T1c", "2": "T2", "3": "T1"}), "channels T1, T1c, T2, FLAIR, but"),
        (_told(labels={"background": 0, "NCR": 1, "ED": 2, "ET": 3}), "labels .*, but its folder says"),
        (_plans(**{"3d_fullres": {"patch_size": [32] * 3, "spacing": [2.0] * 3}}), r"spacing \[1.0, .* but .* \[2.0, "),
    ],
)
def test_a_checkpoint_of_another_training_than_its_folder_is_refused(tmp_path, monkeypatch, change, said) -> None:
    monkeypatch.setattr("mmb.predictors.nnunet.version", lambda _: "2")
    model = _model(tmp_path / "model", init_args={"configuration": "3d_fullres", **OWN})
    load_nnunet(model, "cpu")
    change(model)
    with pytest.raises(ValueError, match=f"checkpoint_final.pth: its network was trained with {said}"):
        load_nnunet(model, "cpu")


def test_folds_of_two_configurations_are_refused(tmp_path) -> None:
    model, other = _model(tmp_path / "model"), _model(tmp_path / "other", "3d_lowres")
    shutil.copytree(other / "fold_0", model / "fold_1")
    with pytest.raises(ValueError, match=r"fold_1.*was trained with configuration 3d_lowres, .*fold_0.* 3d_fullres"):
        load_nnunet(model, "cpu")


def test_folds_without_weights_are_named(tmp_path, caplog, monkeypatch) -> None:
    monkeypatch.setattr("mmb.predictors.nnunet.version", lambda _: "2")  # also where it is not installed
    model = _model(tmp_path / "model")
    (model / "fold_1").mkdir()
    assert len(load_nnunet(model, "cpu").weights) == 1
    assert "fold_1 without checkpoint_final.pth" in caplog.text


def test_plans_may_name_only_known_parts() -> None:
    architectures = "dynamic_network_architectures.architectures"
    for part in (f"{architectures}.unet.ResidualEncoderUNet", "torch.nn.modules.conv.Conv3d", "torch.nn.LeakyReLU"):
        assert KNOWN_PARTS.fullmatch(part), part
    for part in ("torch.nn.parallel.distributed.os.system", f"{architectures}.primus.Primus"):
        assert not KNOWN_PARTS.fullmatch(part), part


class Answer:
    """nnU-Net's own predictor, of which the answer is known; it keeps what it is given."""

    def __init__(self, heads: list | None) -> None:
        self.label_manager = SimpleNamespace(has_regions=heads is not None, foreground_regions=heads)

    def predict_single_npy_array(self, stack: np.ndarray, properties: dict, *_: object) -> tuple:
        """Return classes ED, NCR and ET by the first channel's values, and shares of the classes, or of regions."""
        self.stack, self.spacing = stack, properties["spacing"]
        label = np.digitize(stack[0], [30, 60, 90])
        shares = stack / 10_000 if self.label_manager.has_regions is False else stack[:3] / 10_000
        return label, shares


STORED = {  # how a model is loaded and reads, and what nnU-Net gets, (z, y, x), of an array stored along (S, L, A)
    "as BraTS": (load_predictor, None, lambda voxels: voxels[:, :, ::-1].transpose(0, 2, 1), [3, 2, 1]),
    "as stored": (load_nnunet, None, lambda voxels: voxels.transpose(2, 1, 0), [2, 1, 3]),
    "as RAS": (load_predictor, "NibabelIOWithReorient", lambda voxels: voxels[:, ::-1].transpose(0, 2, 1), [3, 2, 1]),
}


@pytest.mark.parametrize("heads", [None, [3, (2, 3), (1, 2, 3)]], ids=["classes", "regions"])
@pytest.mark.parametrize("stored", STORED)
def test_voxels_and_spacing_in_and_regions_out_along_the_axes_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str, heads: list | None
) -> None:
    """Of an image of 3 x 1 x 2 mm whose axes run upwards, to the left and to the front."""
    monkeypatch.setattr("mmb.predictors.nnunet.version", lambda _: "2")
    load, reader, turned, spacing = STORED[stored]
    model = load(_model(tmp_path / "model"), device="cpu")
    if reader:
        model.plans["image_reader_writer"] = reader
    answer = vars(model)["_predictor"] = Answer(heads)
    affine = np.array([[0, -1.0, 0, 5], [0, 0, 2, 6], [3, 0, 0, 7], [0, 0, 0, 1]])
    first = np.arange(120, dtype=np.float32).reshape(4, 5, 6)
    volumes = {name: first + 1000 * number for number, name in enumerate(("t1", "t1c", "t2", "flair"))}
    made = model.run({name: nib.Nifti1Image(volume, affine) for name, volume in reversed(volumes.items())})
    assert answer.spacing == spacing
    for given, volume in zip(answer.stack, volumes.values(), strict=True):
        np.testing.assert_array_equal(given, turned(volume))
    np.testing.assert_array_equal(made.label, np.select([first >= 90, first >= 60, first >= 30], [3, 1, 2]))
    t1, t1c, t2, flair = (volume / 10_000 for volume in volumes.values())
    regions = (t1c + t2 + flair, t2 + flair, flair) if heads is None else (t2, t1c, t1)  # WT, TC and ET
    np.testing.assert_allclose(made.probabilities, regions, rtol=1e-6)
    np.testing.assert_array_equal(made.masks, [first >= 30, first >= 60, first >= 90])


def test_the_axes_that_were_mirrored_in_training_are_mirrored_in_prediction(tmp_path: Path) -> None:
    """The mean over an image and its mirror images is symmetric, which weights drawn at random are not."""
    unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")  # comes with nnunetv2
    sizes = {"n_stages": 2, "features_per_stage": [4, 4], "kernel_sizes": [[3] * 3] * 2, "strides": [[1] * 3, [2] * 3]}
    sizes |= {"n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1]}
    torch.manual_seed(0)
    weights = unet.PlainConvUNet(4, conv_op=torch.nn.Conv3d, num_classes=4, **sizes).state_dict()
    model = _model(tmp_path / "model", network_weights=weights, inference_allowed_mirroring_axes=(0, 2))
    built = {"network_class_name": f"{unet.__name__}.PlainConvUNet", "_kw_requires_import": ["conv_op"]}
    built["arch_kwargs"] = {"conv_op": "torch.nn.Conv3d", **sizes}
    _plans(**{"3d_fullres": {"patch_size": [8] * 3, "spacing": [1.0] * 3, "architecture": built}})(model)
    predictor, image = load_nnunet(model, "cpu")._predictor, torch.rand(4, 8, 8, 8)
    predictor.use_gaussian = False  # at the edges of this single window its weights would be lost to rounding
    predict = predictor.predict_logits_from_preprocessed_data
    mirrored = [predict(image.flip(axis)).flip(axis) for axis in (1, 2, 3)]
    assert [torch.allclose(each, predict(image), atol=1e-2) for each in mirrored] == [True, False, True]


@pytest.fixture(scope="module")
def bundle():
    return Bundle("m3ae", recipe="phantom")


@pytest.fixture(scope="module")
def files(phantom_dir):
    case = load_datalist(phantom_dir / "datalist.json", phantom_dir)["test"][0]
    images = dict(zip(case["modalities"], case["image"], strict=True))
    return {name: images[name] for name in ("t1c", "flair")}, case["label"]


def test_files_and_arrays_give_what_the_command_gives(bundle, files, tmp_path):
    images, truth = files
    result = bundle.segment(images)
    (folder := tmp_path / "case").mkdir()
    for name, file in images.items():
        (folder / f"case_{name}.nii.gz").symlink_to(file)
    Command("m3ae").run_here(DEMO, dataset_dir=folder, output_dir=tmp_path / "out")
    command = np.asarray(nib.load(tmp_path / "out" / "case" / "case_seg.nii.gz").dataobj)
    assert np.mean(result.label != command) < 1e-3  # orientations are turned before or after resampling
    first = nib.load(images["t1c"])
    arrays = {"t1ce": first.get_fdata(), "FLAIR": nib.load(images["flair"]).get_fdata()}
    assert np.array_equal(bundle.segment(arrays, first.affine).label, result.label)
    assert np.array_equal(result.affine, first.affine)
    assert list(result.regions) == list(result.probabilities) == ["WT", "TC", "ET"]
    labels = get_cohort("phantom").labels
    scores = Reference(np.asarray(nib.load(truth).dataobj), labels, (3, 3, 3)).measure(result.label)
    assert scores["WT", "dice"] > 0.6
    inside, mask = result.probabilities["WT"], result.regions["WT"]
    assert 0 <= inside.min() < inside.max() <= 1
    assert inside[mask].mean() > inside[~mask].mean() + 0.3


def test_what_cannot_be_segmented_is_refused(bundle, files):
    images, _ = files
    array, affine = nib.load(images["t1c"]).get_fdata(), np.diag([3, 3, 3, 1])
    for given, its_affine, fact in [
        ({}, None, "No modality was requested"),
        ({"t1c": array, "t1ce": array}, affine, "requested twice"),
        ({"t1c": array}, None, "t1c: an array has no voxel size"),
        ({"t1c": array}, np.diag([3, 3, 3, 1]) + np.eye(4, k=-3), "give the affine"),  # transposed
        ({"t1c": array}, np.diag([3, np.nan, 3, 1]), "t1c: its affine .* has NaN"),
        ({"t1c": array[0]}, affine, r"t1c: float64, shape \(80, 52\); expected real numbers \(X, Y, Z\)"),
        ({"t1c": array[:0]}, affine, r"shape \(0, 80, 52\)"),
        ({"t1c": array + 1j}, affine, "t1c: complex128"),
        ({"t1c": array, "t2": array[1:]}, affine, "not on the grid"),
    ]:
        with pytest.raises(ValueError, match=fact):
            bundle.segment(given, its_affine)
    with pytest.raises(ValueError, match="decision 'best'"):
        Bundle("m3ae", decision="best")


def test_logits_are_those_of_the_segmentation_on_the_networks_own_grid(bundle):
    images, _ = simulate(seed=1, shape=(48, 56, 40), spacing=4)
    given, affine = {"flair": images["flair"], "t1c": images["t1c"]}, np.diag([4.0, 4, 4, 1])
    logits = bundle.logits(given, affine)
    assert isinstance(bundle.network, torch.nn.Module)
    assert logits.shape[0] == 3  # WT, TC, ET
    assert torch.allclose(logits.pixdim, torch.full((3,), 3.0, dtype=torch.float64), atol=1e-3)  # mm
    volume = float((logits[0] > 0).sum()) * 3**3
    assert volume == pytest.approx(bundle.segment(given, affine).regions["WT"].sum() * 4**3, rel=0.05)
    with pytest.raises(ValueError, match="Unknown modality 'pd'"):
        bundle.logits({"pd": images["flair"]}, affine)
