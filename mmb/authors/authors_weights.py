"""Authors' checkpoint files as weights files for our networks."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from common.cohorts import get_cohort
from common.io.checkpoints import read_weights, write_checkpoint
from common.io.facts import TrainingFacts
from common.io.settings import check_number
from common.modalities import resolve_subset
from common.networks.build import build_network, network_class
from mmb.authors.cotraining_keys import fits_cotraining, import_cotraining
from mmb.authors.fusion_keys import fits_fusion, import_fusion
from mmb.authors.m3ae_keys import fits_m3ae, import_m3ae

PAIRED = ("ACN", "SMU-Net")  # a file for each path
FUSED = ("RFNet", "mmFormer", "M2FTrans")
METHODS = ("M3AE", *PAIRED, *FUSED)
HEAD = {**dict.fromkeys(PAIRED, "unet.up1conv.weight"), **dict.fromkeys(FUSED, "decoder_sep.seg_layer.weight")}
"""Method -> the authors' key of the weights of a head ``(classes, width, ...)``."""
TOKENS = {"mmFormer": "flair_pos", "M2FTrans": "fusion"}
"""Method -> the authors' key of an embedding ``(1, tokens, channels)`` of the training crop."""
STRIDE = 16  # voxels per token along an axis
CROP = (80, 80, 80)
"""Training crop in voxels of RFNet's, GSS's and PASSION's releases."""
SIZES = ("width", "hidden", "embed_dim", "mlp_dim", "heads", "feature_encoder", "crop")  # arguments of networks
OF_2015 = 5  # classes of BraTS 2015, with the background
LARGEST = 1024  # maximum of the crop of an authors' network
Weights = dict[str, torch.Tensor]


def convert(
    checkpoint: str,
    output: str,
    missing: Sequence[str] = (),
    method: str | None = None,
    crop: Sequence[int] | None = None,
) -> None:
    """Write weights, and print how many tensors they are; the arguments are those of `mmb.verbs.import_weights`."""
    if output in METHODS:
        raise ValueError(f"{output}: expected the file to write; a method is named by --method {output}.")
    files = (checkpoint, *(word.partition("=")[2] for word in missing))
    if Path(output).resolve() in [Path(file).resolve() for file in files]:
        raise ValueError(f"{output}: is the authors' file; expected another one to write.")
    if method is None:
        method = method_of(checkpoint)
        print(f"{checkpoint}: has the keys of {method}")
    if method not in METHODS:
        raise ValueError(f"{method}: no such method; expected one of {', '.join(METHODS)}.")
    if crop and method not in FUSED:
        raise ValueError(f"--crop {crop}: not an option of {method}.")
    for number in crop or ():
        check_number("--crop", number, 1, LARGEST)
    if method in PAIRED:
        bundle, (weights, settings) = "medmap", _cotraining(method, checkpoint, missing)
    elif missing:
        raise ValueError(f"{' '.join(missing)}: the weights of {method} are in one file, for all subsets.")
    elif method == "M3AE":
        bundle, (weights, settings) = "m3ae", _m3ae(checkpoint)
    else:
        bundle, (weights, settings) = "gss", _fusion(method, checkpoint, crop)
    before = f"what its authors say of {Path(checkpoint).name}"
    settings |= {"spacing": [1.0, 1.0, 1.0]}  # at which all of these authors trained
    facts = TrainingFacts(method=f"{method}, authors' weights", bundle=bundle, before=before, settings=settings)
    write_checkpoint(weights, output, facts)
    print(f"{output}: {len(weights)} tensors")


def method_of(checkpoint: str) -> str:
    """Return the method whose network has the keys of an authors' file; raises ValueError if not exactly one has."""
    state = _read(checkpoint)
    keys, fitting = [*state], [method for method in METHODS if _fits(method, state)]
    if len(fitting) != 1:
        whose = " and of ".join(fitting) or f"none of {', '.join(METHODS)}"
        raise ValueError(
            f"{checkpoint}: its {len(keys)} keys, {', '.join(keys[:3])}, ..., are those of {whose}. If you "
            "know whose they are, name the method by --method; what does not fit is then listed."
        )
    return fitting[0]


def _fits(method: str, state: Weights) -> bool:
    if method == "M3AE":
        return fits_m3ae(state)
    try:
        with torch.device("meta"):  # only its keys are needed
            network = build_network(method, 4, *_sizes(state, method), CROP)  # some have parts for each class
    except ValueError:  # a network of this method cannot have this width
        return False
    return (fits_cotraining if method in PAIRED else fits_fusion)(state, network)


def _m3ae(checkpoint: str) -> tuple[Weights, dict[str, Any]]:
    weights = _mapped(checkpoint, import_m3ae)
    sizes = {"width": weights["unet.head.weight"].shape[1], "grid": list(weights["x_sub"].shape[2:])}
    return weights, {**sizes, "crop": [128, 128, 128]}


def _fusion(method: str, checkpoint: str, crop: Sequence[int] | None) -> tuple[Weights, dict[str, Any]]:
    state = _read(checkpoint)
    classes, width = _sizes(state, method)
    tokens = state.get(TOKENS.get(method, ""))
    side = STRIDE * round(tokens.shape[1] ** (1 / 3)) if tokens is not None and tokens.ndim == 3 else CROP[0]
    crop = tuple(crop or [side] * 3)
    with torch.device("meta"):  # only its shapes are needed
        network = build_network(method, 4, classes, width, crop)
    parameters = inspect.signature(network_class(method)).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items() if name in SIZES}
    settings = {**defaults, "backbone": method, "width": width, "crop": list(crop)}
    settings |= {"cohort": "brats2015"} if classes == OF_2015 else {}
    return _mapped(checkpoint, lambda state: import_fusion(state, network)), settings


def _cotraining(method: str, full: str, missing: Sequence[str]) -> tuple[Weights, dict[str, Any]]:
    modalities = get_cohort("brats2018").modalities
    files = {resolve_subset(name, modalities): file for name, _, file in (word.partition("=") for word in missing)}
    if len(files) < len(missing) or not all(files.values()):
        raise ValueError(f"missing {list(missing)}: expected SUBSET=FILE, each subset once.")
    channels = {tuple(modalities.index(name) for name in subset): file for subset, file in files.items()}
    _, width = _sizes(_read(full), method)
    with torch.device("meta"):  # only its shapes are needed
        network = build_network(method, 4, 4, width, (), subsets=list(channels))
    weights = _mapped(full, lambda state: import_cotraining(state, network))
    for subset, file in channels.items():
        weights |= _mapped(file, partial(import_cotraining, network=network, subset=subset))
    subsets = [list(subset) for subset in files]
    return weights, {"backbone": method, "width": width, "dedicated": subsets, "feature_encoder": None}


def _read(file: str) -> Weights:
    return {key.removeprefix("module."): value for key, value in read_weights(file).items()}


def _sizes(state: Weights, method: str) -> tuple[int, int]:
    """Return classes and width of a method's network; without its head, those of one that the file does not fit."""
    head = state.get(HEAD[method])
    return (head.shape[0], head.shape[1]) if head is not None and head.ndim > 2 else (4, 16)


def _mapped(file: str, to_ours: Callable[[Weights], Weights]) -> Weights:
    """Return an authors' file as weights of ours; errors name the file."""
    state = read_weights(file)
    try:
        return to_ours(state)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
