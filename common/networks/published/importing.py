"""Import of authors' checkpoint files into weights files for our networks."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from common.cohorts import get_cohort
from common.io import read_weights, write_checkpoint
from common.io.facts import SETTINGS, TrainingFacts
from common.io.settings import check_number
from common.modalities import resolve_subset
from common.networks.build import BACKBONES, build_network
from common.networks.published.cotraining_keys import import_cotraining
from common.networks.published.fusion_keys import KEY_MAPS, import_fusion
from common.networks.published.m3ae_keys import import_m3ae

LARGEST = 1024  # maximum of the width, classes and crop of an authors' network


def convert_m3ae(checkpoint: str, output: str) -> None:
    """Write and print what the verb ``import_m3ae`` describes."""
    state = read_weights(checkpoint)
    with _named(checkpoint):
        weights = _floats(import_m3ae(state))
    sizes = {"width": weights["unet.head.weight"].shape[1], "grid": list(weights["x_sub"].shape[2:])}
    write_checkpoint(weights, output, _facts("m3ae", "M3AE", checkpoint, **sizes, crop=[128, 128, 128]))
    print(f"{output}: {len(weights)} tensors")


def convert_fusion(backbone: str, checkpoint: str, output: str, width: int, crop: Sequence[int], classes: int) -> None:
    """Write and print what the verb ``import_fusion`` describes."""
    known = [name for name, network in BACKBONES.items() if network.__name__ in KEY_MAPS]
    if backbone not in known:
        raise ValueError(f"backbone {backbone!r}: expected one of {', '.join(known)}.")
    for name, number in (("width", width), ("classes", classes), *(("crop", size) for size in crop)):
        check_number(f"--{name}", number, 1, LARGEST)
    with torch.device("meta"):  # only its shapes are needed
        network = build_network(backbone, 4, classes, width, crop)
    state = read_weights(checkpoint)
    with _named(checkpoint):
        weights, match = import_fusion(state, network)
        _floats(weights)
    defaults = {name: given.default for name, given in inspect.signature(BACKBONES[backbone]).parameters.items()}
    sizes = {key: value for key, value in defaults.items() if key in SETTINGS}
    sizes |= {"backbone": backbone, "width": width, "crop": list(crop)}
    facts = _facts("gss", backbone, checkpoint, **sizes)
    write_checkpoint(weights, output, facts)
    print(f"{output}: {match}")


def convert_cotraining(network: str, full: str, output: str, missing: Sequence[str], width: int) -> None:
    """Write and print what the verb ``import_cotraining`` describes."""
    if network not in ("ACN", "SMU-Net"):
        raise ValueError(f"network {network!r}: expected ACN or SMU-Net.")
    modalities = get_cohort("brats2018").modalities
    files = {resolve_subset(name, modalities): file for name, _, file in (word.partition("=") for word in missing)}
    if len(files) < len(missing) or not all(files.values()):
        raise ValueError(f"missing {list(missing)}: expected SUBSET=FILE, each subset once.")
    channels = {tuple(modalities.index(name) for name in subset): file for subset, file in files.items()}
    check_number("--width", width, 1, LARGEST)
    with torch.device("meta"):  # only its shapes are needed
        model = build_network(network, 4, 4, width, (), subsets=list(channels))
    weights = {}
    for subset, file in {None: full, **channels}.items():
        state = read_weights(file)
        with _named(file):
            part, match = import_cotraining(state, model, subset)
            _floats(part)
        print(f"{file}: {match}")
        weights |= part
    subsets = [[modalities[channel] for channel in subset] for subset in channels]
    facts = _facts("medmap", network, full, backbone=network, width=width, dedicated=subsets, feature_encoder=None)
    write_checkpoint(weights, output, facts)
    print(f"{output}: {len(weights)} tensors")


def _facts(bundle: str, method: str, checkpoint: str, **settings: Any) -> TrainingFacts:
    """Return what imported weights say of their training; the authors of all trained at 1 mm."""
    before = f"what its authors say of {Path(checkpoint).name}"
    settings |= {"spacing": [1.0, 1.0, 1.0]}
    return TrainingFacts(method=f"{method}, authors' weights", bundle=bundle, before=before, settings=settings)


@contextmanager
def _named(file: str) -> Iterator[None]:
    """Add the file's name to errors about an authors' checkpoint."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _floats(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return imported weights after checking that all are floating-point, as in all of these networks."""
    for name, value in weights.items():
        if not value.is_floating_point():
            raise ValueError(f"the weight for {name!r} has type {value.dtype}; expected floating-point numbers.")
    return weights
