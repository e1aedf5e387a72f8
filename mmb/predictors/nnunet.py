"""Trained models of nnU-Net v2 as predictors (Isensee et al., Nature Methods 18, 2021; package ``nnunetv2``).

A model is the folder that nnU-Net trained into: ``plans.json``, ``dataset.json`` and ``fold_*`` with checkpoints.
nnU-Net preprocesses, mirrors and resamples by itself; here are only the way in and out. A model needs exactly its own
sequences, so a folder may hold one for each subset, as GlioMODA's weights do.
"""

import hashlib
import logging
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from functools import cached_property
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, Self

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy._core import multiarray
from pydantic import BaseModel, ConfigDict

from common.cohorts.brats import CAVITY, SINCE_2023
from common.cohorts.cohort import Cohort
from common.cohorts.nnunet import CLASS_NAMES, Described, Description, described, description
from common.cohorts.registry import NNUNET_IGNORED
from common.evaluation.metrics.overlap import region_masks
from common.io.documents import read_json
from common.io.settings import check_choice, usable_device
from common.modalities import ALIASES, GLIOMA, subset_name, subset_names, tumour_labels
from common.text import shortened
from common.transforms.decision import DECISIONS, decide
from mmb.errors import StudyError
from mmb.extras import required
from mmb.predictors.protocol import Predictor, Segmentation

logger = logging.getLogger(__name__)
PLANS = "plans.json"
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
"""Names of a fold's weights, of which the first that exists is taken."""
KNOWN_PARTS = re.compile(
    r"dynamic_network_architectures\.architectures\.unet\.(PlainConvUNet|ResidualEncoderUNet)"
    r"|torch\.nn\.(modules\.\w+\.)?[A-Z]\w*"
)
"""Classes that plans may name. nnU-Net imports and calls any, even a function such as ``os.system``."""
DEEPEST = 3
"""Number of folders between a collection of models and each model's ``plans.json``, at most."""
BRATS_AXES = "LPS"
"""Directions in which BraTS's files store voxels, and so those that models of its data have seen."""
REORIENTING = "NibabelIOWithReorient"
"""nnU-Net's reader that turns images to RAS; others leave them as they are stored."""
LARGER = "_ResEncL"
"""End of the name of a second, larger model for a subset, as GlioMODA's weights have; the other one is taken."""
COPY = f"Copy {PLANS} from the folder of the training."
PREPARING = ("spacing", "normalization_schemes", "use_mask_for_norm")
"""Settings of a configuration in plans that prepare images, compared with those of a checkpoint's own plans."""
EXPECTED = f"expected a folder of nnU-Net v2 with {PLANS}, dataset.json and fold_*/{CHECKPOINTS[0]}"


class _Configuration(BaseModel):
    model_config = ConfigDict(extra="allow")
    patch_size: list[int] = []
    spacing: list[float] = []
    previous_stage: str | None = None
    inherits_from: str | None = None


class _Plans(BaseModel):
    model_config = ConfigDict(extra="allow")
    configurations: dict[str, _Configuration]


def is_nnunet(folder: str | os.PathLike) -> bool:
    """Return whether a folder looks like a trained nnU-Net, or several, usable or not."""
    folder = Path(folder)
    return folder.is_dir() and (_own(folder) or bool(_models(folder)))


def load_nnunet(folder: str | os.PathLike, device: str | None = None, axes: str | None = None) -> "NnUNet | NnUNets":
    """Return the model in a folder, or the models in it for several subsets of the modalities.

    Raises FileNotFoundError or ValueError if the folder is incomplete, of nnU-Net v1, for single slices or a cascade,
    has unknown channels or classes, or ``nnunetv2`` is not installed. Networks are built when they are first used.
    They decide by the threshold, as nnU-Net does, unless `decide_by` says otherwise. ``axes`` are the directions in
    which voxels are given to the network, e.g. `BRATS_AXES`; None: as the images are stored, as nnU-Net reads files.
    """
    folder = Path(folder)
    options: dict[str, Any] = {
        "device": usable_device("--device", device or ("cuda" if torch.cuda.is_available() else "cpu")),
        "axes": axes,
    }
    if _own(folder):
        return NnUNet(folder, **options)
    if not (paths := _models(folder)):
        raise FileNotFoundError(f"{folder}: {EXPECTED}.")
    second = [path for path in paths if path.with_name(path.name.removesuffix(LARGER)) in {*paths} - {path}]
    return NnUNets(folder, [NnUNet(path, **options) for path in paths if path not in second])


class NnUNet(Predictor):
    """A trained nnU-Net; for the attributes see `mmb.predictors.protocol.Predictor`, for the rest `load_nnunet`.

    Results have the label values of BraTS since 2023, as those of the bundles' weights, whatever the model's own are;
    the latter if it distinguishes other classes.
    """

    def __init__(self, folder: Path, device: torch.device, axes: str | None) -> None:
        self.folder, self.device, self.axes = folder, device, axes
        self.decide_by(DECISIONS[0])
        self.described = _complete(folder)
        self.told = read_json(self.described.path, dict[str, Any])
        self.channels = _channels(self.described)
        values = self.described.values()
        values.pop(NNUNET_IGNORED, None)
        if "NCR" not in values and "NET" in values:  # as the Decathlon names what BraTS calls necrosis
            values["NCR"] = values.pop("NET")
        if not {"ED", "ET"} <= values.keys() <= CLASS_NAMES.keys():
            raise ValueError(
                f"{self.described.path}: its classes are {', '.join(values)}; expected those of a glioma, at least "
                "oedema and enhancing tumour."
            )
        usual = CAVITY if "RC" in values else SINCE_2023
        labels = usual if values.keys() == usual.values.keys() else tumour_labels(**values)
        self.numbers, self.cohort = values, Cohort("nnunet", GLIOMA, labels)
        if any(len(each) > 1 for each in self.described.labels.values()):
            heads = [{*each} for each in self.described.labels.values()]
            regions = {name: {values[part] for part in parts} for name, parts in labels.regions.items()}
            if lacking := [name for name, each in regions.items() if each not in heads]:
                raise ValueError(f"{self.described.path}: trained on regions, but not on {', '.join(lacking)}.")
            if "regions_class_order" not in self.told:
                raise ValueError(f"{self.described.path}: trained on regions, but without regions_class_order.")
        self.plans = read_json(folder / PLANS, _Plans, f"E{EXPECTED[1:]}.").model_dump(exclude_unset=True)
        self.weights = _weights(folder)
        self.checkpoints = [read_checkpoint(path) for path in self.weights]
        self.configuration = str(self.checkpoints[0]["init_args"].get("configuration"))
        patch, spacing = self._settings()
        for path, checkpoint in zip(self.weights, self.checkpoints, strict=True):
            self._require_own(path, checkpoint["init_args"])
        self.window, self.spacing = tuple(map(int, patch[::-1])), tuple(map(float, spacing[::-1]))
        self.subsets: list[tuple[str, ...]] = [tuple(name for name in GLIOMA if name in self.channels)]
        self.method, self.version = f"nnU-Net {self.plans.get('dataset_name', folder.name)}", _installed(folder)
        self.software, self.title = f"nnU-Net {self.version}", self.method
        self.trained_on, self.seen, self.calibration, self.warnings = None, self.subsets[0], None, []

    @cached_property
    def weights_name(self) -> str:
        """Names of the checkpoints, and the SHA-256 of all of them, one after the other."""
        digest = hashlib.sha256()
        for path in self.weights:
            digest.update(np.memmap(path, mode="r").data)
        names = " + ".join(path.parent.name for path in self.weights)
        return f"{self.folder.name}, {names}/{self.weights[0].name}, SHA-256 {digest.hexdigest()}"

    def decide_by(self, decision: str) -> None:
        """Make label maps by one of `DECISIONS` from now on."""
        self.decision = check_choice("decision", decision, DECISIONS)

    def using(self, modalities: Sequence[str]) -> Self:
        """Return this model; ValueError if it needs other modalities."""
        if {*modalities} != {*self.channels}:
            raise _no_model(self.folder, self.subsets, modalities)
        return self

    def run(self, images: Mapping[str, nib.Nifti1Image]) -> Segmentation:
        """Segment a case: modality -> volume, all on one grid; those that the model does not know are ignored."""
        self.using([name for name in images if name in self.channels])
        affine = images[self.channels[0]].affine
        axes = "RAS" if self.plans.get("image_reader_writer") == REORIENTING else self.axes
        stored = io_orientation(affine)
        wanted = stored if axes is None else axcodes2ornt(axes)
        turn, back = ornt_transform(stored, wanted), ornt_transform(wanted, stored)
        volumes = [np.asarray(images[name].dataobj, np.float32) for name in self.channels]
        stack = np.stack([apply_orientation(volume, turn).transpose(2, 1, 0) for volume in volumes])  # (C, z, y, x)
        sizes = voxel_sizes(affine)[np.argsort(turn[:, 0])]
        with redirect_stdout(StringIO()):
            label, probabilities = self._predictor.predict_single_npy_array(
                np.ascontiguousarray(stack), {"spacing": [float(size) for size in sizes[::-1]]}, None, None, True
            )

        def restored(volume: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(apply_orientation(volume.transpose(2, 1, 0), back))

        regions, labels = self._regions(np.stack([restored(each) for each in probabilities])), self.cohort.labels
        numbers = restored(label)
        chosen = np.zeros(numbers.shape, np.uint8)
        for name, number in self.numbers.items():
            chosen[numbers == number] = labels.values[name]
        threshold, subset = torch.from_numpy(chosen)[None], subset_name(self.channels)
        chosen = decide(self.decision, threshold, torch.from_numpy(regions), labels, subset)[0].numpy()
        return Segmentation(chosen, region_masks(chosen, labels), regions)

    def _regions(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the probabilities of the cohort's regions from those of the network's head."""
        labels, manager = self.cohort.labels, self._predictor.label_manager
        wanted = [{self.numbers[part] for part in classes} for classes in labels.regions.values()]
        if manager.has_regions:
            heads = [{*each} if isinstance(each, list | tuple) else {each} for each in manager.foreground_regions]
            return np.stack([probabilities[heads.index(values)] for values in wanted])
        return np.stack([sum(probabilities[value] for value in sorted(values)) for values in wanted])

    @cached_property
    def _predictor(self) -> Any:
        """nnU-Net's own predictor with the weights of all folds."""
        with redirect_stdout(StringIO()):
            return _initialised(self)

    def _require_own(self, path: Path, trained: Mapping[str, Any]) -> None:
        """Refuse a checkpoint that was trained with other channels, classes or preprocessing than the files say."""
        if (configuration := str(trained.get("configuration"))) != self.configuration:
            raise ValueError(
                f"{path}: its network was trained with configuration {configuration}, "
                f"{self.weights[0]} with {self.configuration}."
            )
        pairs: dict[str, tuple[Any, Any]] = {}
        if isinstance(data := trained.get("dataset_json"), dict) and "channel_names" in data:
            own = description(Described.model_validate(data), path)
            names = zip(map(_sequence, own.channels), map(_sequence, self.described.channels), strict=False)
            if any(one != two for one, two in names if one and two) or len(own.channels) != len(self.channels):
                pairs["channels"] = ", ".join(own.channels), ", ".join(self.described.channels)
            with suppress(ValueError):  # names that are not known
                if (values := own.values()) != (asked := self.described.values()):
                    pairs["labels"] = values, asked
        if isinstance(plans := trained.get("plans"), dict):
            known = [each.get("configurations", {}).get(configuration, {}) for each in (plans, self.plans)]
            pairs |= {key: (known[0].get(key), known[1].get(key)) for key in PREPARING}
            pairs["transpose_forward"] = plans.get("transpose_forward"), self.plans.get("transpose_forward")
        for key, (one, two) in pairs.items():
            if one != two:
                raise ValueError(
                    f"{path}: its network was trained with {key} {one}, but its folder says {two}. Copy {PLANS} "
                    "and dataset.json from the folder of the training."
                )

    def _settings(self) -> tuple[Sequence[float], Sequence[float]]:
        """Return patch size and spacing of the configuration, some of which it may inherit from another one."""
        where, known = f"{self.folder}: configuration {self.configuration}", self.plans["configurations"]
        name = self.configuration
        settings: dict[str, Any] = {}
        if name not in known:
            raise ValueError(f"{where} of the checkpoint is not in {PLANS}; they belong to different trainings.")
        for _ in known:
            settings = known.get(name, {}) | settings
            name = known.get(name, {}).get("inherits_from")
        if settings.get("previous_stage"):
            raise ValueError(f"{where} is the second stage of a cascade; give a model of 3d_fullres or 3d_lowres.")
        patch, spacing = (settings.get(key) or () for key in ("patch_size", "spacing"))
        if len(patch) == 2:
            raise ValueError(f"{where} segments single slices; only 3d configurations are read.")
        if not len(patch) == len(spacing) == 3:
            raise ValueError(f"{where} has no patch_size and spacing along three axes. {COPY}")
        return patch, spacing


class NnUNets(Predictor):
    """Models of one folder, each for a subset of the modalities; one is loaded at a time."""

    def __init__(self, folder: Path, models: Sequence[NnUNet]) -> None:
        self.folder, first = folder, models[0]
        self.models: dict[tuple[str, ...], NnUNet] = {}
        for model in models:
            other = self.models.setdefault(model.subsets[0], model)
            twice = f"are both for {subset_name(model.subsets[0])}" if other is not model else ""
            other, differ = (other, twice) if twice else (first, "differ in label values")
            if twice or model.cohort != first.cohort:
                one, two = (each.folder.relative_to(folder) for each in (other, model))
                raise ValueError(f"{folder}: {one} and {two} {differ}; give the folder of one of them.")
        every = subset_names(GLIOMA)
        self.subsets: list[tuple[str, ...]] = sorted(self.models, key=lambda subset: every.index(subset_name(subset)))
        self.cohort, self.device, self.decision = first.cohort, first.device, first.decision
        self.spacing, self.window = first.spacing, first.window
        self.version, self.software = first.version, first.software
        self.method, self.trained_on, self.seen, self.calibration = f"nnU-Net {folder.name}", None, None, None
        self.warnings: list[str] = []
        known = {*map(subset_name, self.subsets)}
        self.lacking = [name for name in subset_names(GLIOMA) if name not in known]
        self.title = f"{self.method}, without models for {', '.join(self.lacking) or 'no subset'}"

    @cached_property
    def weights_name(self) -> str:
        """Names and SHA-256 of the weights of all models."""
        return "; ".join(self.models[subset].weights_name for subset in self.subsets)

    def decide_by(self, decision: str) -> None:
        """Make label maps by one of `DECISIONS` from now on."""
        self.decision = decision
        for model in self.models.values():
            model.decide_by(decision)

    def using(self, modalities: Sequence[str]) -> NnUNet:
        """Return the model for exactly these modalities; ValueError if there is none."""
        subset = tuple(name for name in GLIOMA if name in modalities)
        if subset not in self.models:
            raise _no_model(self.folder, self.subsets, modalities)
        for other in self.models.values():
            if other is not self.models[subset]:
                vars(other).pop("_predictor", None)  # its weights
        return self.models[subset]

    def run(self, images: Mapping[str, nib.Nifti1Image]) -> Segmentation:
        """Segment a case with the model for its modalities."""
        return self.using([*images]).run(images)


def _own(folder: Path) -> bool:
    """Return whether a folder is that of a model, or of one of its folds, which is refused."""
    return any(any(folder.glob(name)) for name in (PLANS, "plans.pkl", *CHECKPOINTS, "fold_*"))


def _models(folder: Path) -> list[Path]:
    """Return the folders of models below a folder."""
    plans = [path for depth in range(1, DEEPEST + 1) for path in folder.glob("*/" * depth + PLANS)]
    return sorted(path.parent for path in plans if any(path.parent.glob("fold_*")))


def _complete(folder: Path) -> Description:
    if (folder / "plans.pkl").exists() or [*folder.glob("fold_*/*.model.pkl")]:
        raise ValueError(f"{folder}: a model of nnU-Net v1, which v2 cannot read; train it again with nnU-Net v2.")
    if not (folder / PLANS).is_file():
        raise FileNotFoundError(f"{folder}: no {PLANS}; {EXPECTED}. {COPY}")
    if (told := described(folder)) is None:
        raise FileNotFoundError(f"{folder}: no dataset.json of nnU-Net v2; {EXPECTED}.")
    return told


def _channels(told: Description) -> tuple[str, ...]:
    """Return the modality of each channel, which in GlioMODA the folder's name tells, too (``t1c-t2f-t1n-t2w``)."""
    words = told.path.parent.name.removesuffix(LARGER).split("-")
    by_folder = tuple(ALIASES.get(word.lower(), "") for word in words)
    try:
        channels = told.modalities()
    except ValueError:
        if len(by_folder) != len(told.channels) or not all(by_folder) or len({*by_folder}) < len(by_folder):
            raise
        channels = by_folder
    if foreign := [name for name in channels if name not in GLIOMA]:
        raise ValueError(f"{told.path}: channel {foreign[0]}; expected some of {', '.join(GLIOMA)}.")
    return channels


def _sequence(name: str) -> str:
    """Return the modality that a channel's name means; empty if that is unknown."""
    return ALIASES.get(re.sub("[^a-z0-9]", "", name.lower()), "")


def _weights(folder: Path) -> list[Path]:
    """Return the weights of each fold, or those of ``fold_all`` if that is the only one."""
    folds = sorted(path for path in folder.glob("fold_*") if path.is_dir())
    numbered = [path for path in folds if path.name != "fold_all"] or folds
    for name in CHECKPOINTS:
        if paths := [path / name for path in numbered if (path / name).is_file()]:
            if without := [path.name for path in numbered if path / name not in paths]:
                logger.warning(f"{folder}: {', '.join(without)} without {name}; the result is that of the other folds.")
            return paths
    raise FileNotFoundError(f"{folder}: no weights, fold_*/{' or '.join(CHECKPOINTS)}; {EXPECTED}.")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint of nnU-Net v2 without running code from it; ValueError if it holds more than data.

    Besides tensors it may hold NumPy's scalars, in which nnU-Net keeps its losses.
    """
    scalars: list[Any] = [np.dtype, multiarray.scalar, (multiarray.scalar, "numpy.core.multiarray.scalar")]
    scalars += {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"}
    try:
        with torch.serialization.safe_globals(scalars):  # tensors stay on the disk until they are used
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, OSError) as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = f"it holds code ({refused[1]}), which is not run" if refused else "it is damaged or no checkpoint"
        raise ValueError(f"{path}: {why}; expected a checkpoint as nnU-Net v2 writes it.") from None
    needed = {"init_args": dict, "network_weights": dict, "trainer_name": str}
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in needed.items()):
        raise ValueError(f"{path}: no checkpoint of nnU-Net v2, which has {', '.join(needed)}.")
    return content


def _initialised(model: NnUNet) -> Any:
    """Return nnU-Net's predictor with the network that the plans describe.

    `nnUNetPredictor.initialize_from_trained_model_folder` would do this too, but loads checkpoints with code in them.
    """
    with required("nnunet", f"{model.folder}: a trained nnU-Net"):
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    told, trainer_name = model.told, model.checkpoints[0]["trainer_name"]
    manager = PlansManager(model.plans)
    settings = manager.get_configuration(model.configuration)
    _require_known_parts(model.folder / PLANS, settings)
    try:
        trainer = recursive_find_trainer_class_by_name(trainer_name)
    except (RuntimeError, ImportError) as error:  # other trainers are imported on the way to it
        raise ValueError(
            f"{model.weights[0]}: trained by {trainer_name}, which nnunetv2 {model.version} does not find "
            f"({str(error)[:200]}). If it is a class of your own, set nnUNet_extTrainer to its folder."
        ) from None
    heads = manager.get_label_manager(told).num_segmentation_heads
    inputs = determine_num_input_channels(manager, settings, told)
    network = trainer.build_network_architecture(manager, settings, inputs, heads, enable_deep_supervision=False)
    weights = [checkpoint["network_weights"] for checkpoint in model.checkpoints]
    for path, each in zip(model.weights, weights, strict=True):
        try:
            network.load_state_dict(each)
        except RuntimeError as error:
            why = " ".join(str(error).split())[:200]
            raise ValueError(f"{path}: does not fit the network of {PLANS}: {why}") from None
    predictor = nnUNetPredictor(device=model.device, allow_tqdm=False)
    mirror = model.checkpoints[0].get("inference_allowed_mirroring_axes")
    predictor.manual_initialization(network, manager, settings, weights, told, trainer_name, mirror)
    return predictor


def _require_known_parts(path: Path, settings: Any) -> None:
    """Refuse plans that name classes other than the two encoders and PyTorch's layers, since they would be imported."""
    name, arguments = settings.network_arch_class_name, settings.network_arch_init_kwargs
    parts = [arguments.get(key) for key in settings.network_arch_init_kwargs_req_import]
    if strange := [part for part in (name, *parts) if part is not None and not KNOWN_PARTS.fullmatch(str(part))]:
        raise ValueError(
            f"{path}: network {strange[0]}; expected the plain or the residual encoder, with layers of torch.nn."
        )


def _no_model(folder: Path, subsets: Sequence[Sequence[str]], modalities: Sequence[str]) -> StudyError:
    """Return the error that there is no model for these modalities, and with which of them there is."""
    within = [",".join(subset) for subset in subsets if {*subset} <= {*modalities}]
    fewer = f"Use fewer: --modalities {' or '.join(within[-3:])}." if within else ""
    names = shortened([subset_name(subset) for subset in subsets], 15)
    other = "" if within else " Use a bundle, which takes any subset."
    what = f"no model for {subset_name([*modalities])}; nnU-Net needs exactly {names}.{other}"
    return StudyError.of(folder, what, folder.name, code="no_model", command=fewer)


def _installed(folder: Path) -> str:
    with required("nnunet", f"{folder}: a trained nnU-Net"):
        return version("nnunetv2")
