"""Authors' checkpoint files as weights files for our networks."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from common.cohorts import get_cohort
from common.io import read_weights, write_checkpoint
from common.io.facts import SETTINGS, TrainingFacts
from common.io.settings import check_number
from common.modalities import resolve_subset
from common.networks.build import BACKBONES, build_network
from common.networks.published.cotraining_keys import fits_cotraining, import_cotraining
from common.networks.published.fusion_keys import fits_fusion, import_fusion
from common.networks.published.m3ae_keys import fits_m3ae, import_m3ae

PAIRED = ("ACN", "SMU-Net")  # a file for each path
OPTIONS = {"M3AE": {}} | {method: {"width": 16} for method in PAIRED}
OPTIONS |= {method: {"width": 8, "crop": (80, 80, 80), "classes": 4} for method in ("RFNet", "mmFormer", "M2FTrans")}
"""Method -> its options and their defaults."""
LARGEST = 1024  # maximum of the width, classes and crop of an authors' network
Weights = dict[str, torch.Tensor]


def convert(checkpoint: str, output: str, missing: Sequence[str] = (), method: str | None = None, **given: Any) -> None:
    """Write weights, and print how many tensors they are; the arguments are those of `tools.import_weights`.

    Raises ValueError if an option is out of range or not one of the method's, a file holds other weights, or no method
    is given and the file's keys are those of none.
    """
    if output in OPTIONS:
        raise ValueError(f"{output}: expected the file to write; a method is named by --method {output}.")
    if method is None:
        method = method_of(checkpoint)
        print(f"{checkpoint}: has the keys of {method}")
    if method not in OPTIONS:
        raise ValueError(f"{method}: no such method; expected one of {', '.join(OPTIONS)}.")
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name not in OPTIONS[method]:
            raise ValueError(f"--{name} {value}: not an option of {method}.")
        for number in value if name == "crop" else [value]:
            check_number(f"--{name}", number, 1, LARGEST)
    options = OPTIONS[method] | given
    if method in PAIRED:
        bundle, (weights, settings) = "medmap", _cotraining(method, checkpoint, missing, **options)
    elif missing:
        raise ValueError(f"{' '.join(missing)}: the weights of {method} are in one file, for all subsets.")
    elif method == "M3AE":
        bundle, (weights, settings) = "m3ae", _m3ae(checkpoint)
    else:
        bundle, (weights, settings) = "gss", _fusion(method, checkpoint, **options)
    before = f"what its authors say of {Path(checkpoint).name}"
    settings |= {"spacing": [1.0, 1.0, 1.0]}  # at which all of these authors trained
    facts = TrainingFacts(method=f"{method}, authors' weights", bundle=bundle, before=before, settings=settings)
    write_checkpoint(weights, output, facts)
    print(f"{output}: {len(weights)} tensors")


def method_of(checkpoint: str) -> str:
    """Return the method whose network has the keys of an authors' file; raises ValueError if not exactly one has."""
    keys = [key.removeprefix("module.") for key in read_weights(checkpoint)]
    fitting = [method for method in OPTIONS if _fits(method, keys)]
    if len(fitting) != 1:
        whose = " and of ".join(fitting) or f"none of {', '.join(OPTIONS)}"
        raise ValueError(
            f"{checkpoint}: its {len(keys)} keys, {', '.join(keys[:3])}, ..., are those of {whose}. If you "
            "know whose they are, name the method by --method; what does not fit is then listed."
        )
    return fitting[0]


def _fits(method: str, keys: Sequence[str]) -> bool:
    if method == "M3AE":
        return fits_m3ae(keys)
    with torch.device("meta"):  # only its keys are needed
        network = build_network(method, 4, 4, OPTIONS[method]["width"], OPTIONS[method].get("crop", ()))
    return (fits_cotraining if method in PAIRED else fits_fusion)(keys, network)


def _m3ae(checkpoint: str) -> tuple[Weights, dict[str, Any]]:
    weights = _mapped(checkpoint, import_m3ae)
    sizes = {"width": weights["unet.head.weight"].shape[1], "grid": list(weights["x_sub"].shape[2:])}
    return weights, {**sizes, "crop": [128, 128, 128]}


def _fusion(
    method: str, checkpoint: str, width: int, crop: Sequence[int], classes: int
) -> tuple[Weights, dict[str, Any]]:
    with torch.device("meta"):  # only its shapes are needed
        network = build_network(method, 4, classes, width, crop)
    parameters = inspect.signature(BACKBONES[method]).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items() if name in SETTINGS}
    settings = {**defaults, "backbone": method, "width": width, "crop": list(crop)}
    return _mapped(checkpoint, lambda state: import_fusion(state, network)), settings


def _cotraining(method: str, full: str, missing: Sequence[str], width: int) -> tuple[Weights, dict[str, Any]]:
    modalities = get_cohort("brats2018").modalities
    files = {resolve_subset(name, modalities): file for name, _, file in (word.partition("=") for word in missing)}
    if len(files) < len(missing) or not all(files.values()):
        raise ValueError(f"missing {list(missing)}: expected SUBSET=FILE, each subset once.")
    channels = {tuple(modalities.index(name) for name in subset): file for subset, file in files.items()}
    with torch.device("meta"):  # only its shapes are needed
        network = build_network(method, 4, 4, width, (), subsets=list(channels))
    weights = {}
    for subset, file in {None: full, **channels}.items():
        weights |= _mapped(file, lambda state, subset=subset: import_cotraining(state, network, subset))
    subsets = [list(subset) for subset in files]
    return weights, {"backbone": method, "width": width, "dedicated": subsets, "feature_encoder": None}


def _mapped(file: str, to_ours: Callable[[Weights], Weights]) -> Weights:
    """Return an authors' file as weights of ours; errors name the file."""
    state = read_weights(file)
    try:
        return to_ours(state)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
