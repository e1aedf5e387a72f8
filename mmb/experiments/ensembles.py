"""One weights file of several networks, so that an ensemble has one digest, one calibration and one record."""

import os
from collections.abc import Sequence

from common.engines.windows import check_mirror_axes
from common.io.bundle import bundle_root
from common.io.checkpoints import read_weights, write_checkpoint
from common.io.facts import TrainingFacts, read_facts
from common.io.weights import trained_on, trained_patients


def write_ensemble(
    paths: Sequence[str | os.PathLike], output: str | os.PathLike, mirror_axes: Sequence[int] = ()
) -> None:
    """Write the weights of several networks into one file, for `common.networks.Ensemble`.

    Args:
        paths: weights of one architecture, trained for the same sequences, classes, windows and voxel size.
        output: the file to write.
        mirror_axes: axes along which inference with the file also flips each window, 0 for left and right.

    Raises:
        ValueError: if there are fewer than two weights, if some do not record their training, or differ from the first;
            if an axis does not exist, or is given twice.
    """
    if len(paths) < 2:
        raise ValueError(f"{len(paths)} weights file; expected at least two of one architecture.")
    states, records = [read_weights(path) for path in paths], [_record(path) for path in paths]
    axes = check_mirror_axes(mirror_axes, records[0].settings.get("crop", 3))
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    for path, record, shape in zip(paths, records, shapes, strict=True):
        _require_same(path, record, paths[0], records[0])
        if shape != shapes[0]:
            raise ValueError(f"{path}: a checkpoint of another architecture than {paths[0]}; all have to be of one.")
    joined = {f"members.{n}.{name}": value for n, state in enumerate(states) for name, value in state.items()}
    facts = _joined(paths, records)
    facts.settings.update({"mirror_axes": [*axes]} if axes else {})
    write_checkpoint(joined, output, facts)


def _record(path: str | os.PathLike) -> TrainingFacts:
    facts = read_facts(path)
    if facts is None:
        raise ValueError(f"{path}: does not record its training; expected weights that a training here has saved.")
    if facts.settings.get("ensemble", 1) != 1:
        raise ValueError(f"{path}: holds {facts.settings['ensemble']} networks; give the files that it was made of.")
    return facts


def _require_same(path: str | os.PathLike, own: TrainingFacts, first: str | os.PathLike, other: TrainingFacts) -> None:
    said, known = (
        {"bundle": facts.bundle, "preprocessing": facts.preprocessing, **facts.settings} for facts in (own, other)
    )
    for key in sorted(said.keys() | known.keys()):
        unknown = key == "preprocessing" and not (said[key] and known[key])
        if said.get(key) != known.get(key) and not unknown:
            raise ValueError(
                f"{path}: was trained with {key} {said.get(key)!r}, {first} with {known.get(key)!r}; the networks of "
                "an ensemble have to get the same images and to have the same architecture."
            )


def _joined(paths: Sequence[str | os.PathLike], records: Sequence[TrainingFacts]) -> TrainingFacts:
    """Return the record of an ensemble; it has seen a sequence or a patient if one of its networks has."""
    root = bundle_root(records[0].bundle)
    patients = [trained_patients(path, root) for path in paths]
    trainings = dict.fromkeys(trained_on(path, root) or "unknown data" for path in paths)
    return TrainingFacts(
        method=f"Mean of {len(paths)} networks ({', '.join(dict.fromkeys(record.method for record in records))})",
        bundle=records[0].bundle,
        modalities=list(dict.fromkeys(name for record in records for name in record.modalities)),
        before="; ".join(trainings),
        patients=sorted(set().union(*patients)) if all(patients) else [],
        preprocessing=next((record.preprocessing for record in records if record.preprocessing), []),
        settings={**records[0].settings, "ensemble": len(paths)},
    )
