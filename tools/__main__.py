"""The verbs of ``python -m tools``.

Each verb imports its modules when it is called, since PyTorch and MONAI take seconds to load, which help texts and
errors in arguments should not wait for.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tools.arguments import parse
from tools.messages import complaint, printable

if TYPE_CHECKING:
    import torch

LARGEST = 1024
"""Maximum of the width, classes and crop of an authors' network."""


def datalist(cohort: str, dataset_dir: str, output: str, split: str | None = None, seed: int = 0) -> None:
    """Write a datalist JSON for a cohort's folder.

    Args:
        cohort: phantom, brats2015, brats2018, brats2019, brats2020, brats2021, brats2023 (and later),
            open_glioma, msd_task01, iseg2017 or myops2020.
        dataset_dir: the folder as downloaded.
        output: the JSON file to write; its paths are relative to dataset_dir.
        split: a published split, namely robustseg (brats2015), fold1 to fold3 (brats2018), fixed (brats2020,
            brats2021), imfuse (brats2023), mag_ms (msd_task01, iseg2017), fixed50, fixed or fold0 to fold4
            (open_glioma); cv1of5 etc. for cross-validation; full (train on all cases); all_test; or seeded, the
            default.
        seed: seed of a split that is drawn at random.
    """
    from common.cohorts import get_cohort
    from common.cohorts.datalist import PARTS, make_datalist, write_datalist

    made = make_datalist(get_cohort(cohort), dataset_dir, split, seed)
    write_datalist(made, output)
    print(f"{output}: " + ", ".join(f"{len(made[part])} {part}" for part in PARTS))


def check(cohort: str, dataset_dir: str) -> None:
    """Print a table of the cases in a data folder, then their problems; exit with 1 if there are any.

    It also counts the cases without a label and the image files that are ignored; neither is a problem.

    Args:
        cohort: phantom, brats2015, brats2018, brats2019, brats2020, brats2021, brats2023 (and later),
            open_glioma, msd_task01, iseg2017 or myops2020.
        dataset_dir: the folder as downloaded, or the folder of one subject.
    """
    from common.cohorts import get_cohort
    from common.cohorts.brats import named_after
    from common.cohorts.check import check_folder

    definition = get_cohort(cohort)
    table = check_folder(definition, dataset_dir)
    bad = table[table["problems"] != ""]
    counts = f"{len(table)} cases, {len(bad)} with problems"
    if unlabelled := (table["label_values"] == "").sum():
        counts += f", {unlabelled} without a readable label"
    if ignored := [*named_after(dataset_dir, definition).values()].count(None):
        counts += f"; image files ignored because of their names: {ignored}"
    print(printable(table.drop(columns="problems").to_string(index=False, na_rep="")))
    print(printable("\n".join([counts, *(bad["case"] + ": " + bad["problems"])])))
    if len(bad):
        sys.exit(1)


def import_m3ae(checkpoint: str, output: str) -> None:
    """Convert a checkpoint by M3AE's authors (a plain state dict) into weights for this bundle.

    Args:
        checkpoint: the authors' file; it is read with weights_only=True.
        output: the file to write, for ckpt_path.
    """
    from common.io import read_weights, write_checkpoint
    from common.networks.published.m3ae_keys import import_m3ae as m3ae_state

    state = read_weights(checkpoint)
    with _named(checkpoint):
        weights = _floats(m3ae_state(state))
    write_checkpoint(weights, output)
    print(f"{output}: {len(weights)} tensors")


def import_fusion(
    backbone: str,
    checkpoint: str,
    output: str,
    width: int = 8,
    crop: Sequence[int] = (80, 80, 80),
    classes: int = 4,
) -> None:
    """Convert a checkpoint by the authors of RFNet, mmFormer, M2FTrans, PASSION or GSS into weights for our network.

    Args:
        backbone: RFNet, mmFormer or M2FTrans.
        checkpoint: the authors' file; it is read with weights_only=True.
        output: the file to write, for ckpt_path or init_from.
        width: width of the network: 8 in PASSION's releases, 16 in the releases of RFNet, GSS and M2FTrans.
        crop: training crop in voxels: [128,128,128] in mmFormer's own release.
        classes: number of classes of its head, including the background: 5 for BraTS 2015.
    """
    import torch

    from common.io import read_weights, write_checkpoint
    from common.io.settings import check_number
    from common.networks import BACKBONES, build_network
    from common.networks.published.fusion_keys import KEY_MAPS
    from common.networks.published.fusion_keys import import_fusion as fusion_state

    known = [name for name, network in BACKBONES.items() if network.__name__ in KEY_MAPS]
    if backbone not in known:
        raise ValueError(f"backbone {backbone!r}: expected one of {', '.join(known)}.")
    for name, number in (("width", width), ("classes", classes), *(("crop", size) for size in crop)):
        check_number(f"--{name}", number, 1, LARGEST)
    with torch.device("meta"):  # only its shapes are needed
        network = build_network(backbone, 4, classes, width, crop)
    state = read_weights(checkpoint)
    with _named(checkpoint):
        weights, match = fusion_state(state, network)
        _floats(weights)
    write_checkpoint(weights, output)
    print(f"{output}: {match}")


def import_cotraining(network: str, full: str, output: str, *missing: str, width: int = 16) -> None:
    """Convert checkpoints by the authors of ACN or SMU-Net, one for each path, into weights for our network.

    Args:
        network: ACN or SMU-Net.
        full: the authors' file of the path for all modalities; it is read with weights_only=True.
        output: the file to write, for ckpt_path; set the subsets with the key dedicated.
        missing: one or more SUBSET=FILE, the authors' files of the paths for incomplete subsets, e.g. t1c=mono.pth.
        width: width of the paths.
    """
    import torch

    from common.cohorts import get_cohort
    from common.io import read_weights, write_checkpoint
    from common.io.settings import check_number
    from common.modalities import resolve_subset
    from common.networks import build_network
    from common.networks.published.cotraining_keys import import_cotraining as cotraining_state

    if network not in ("ACN", "SMU-Net"):
        raise ValueError(f"network {network!r}: expected ACN or SMU-Net.")
    modalities = get_cohort("brats2018").modalities
    files = {resolve_subset(name, modalities): file for name, _, file in (word.partition("=") for word in missing)}
    if len(files) < len(missing) or not all(files.values()):
        raise ValueError(f"missing {list(missing)}: expected SUBSET=FILE, each subset once.")
    channels = {tuple(modalities.index(name) for name in subset): file for subset, file in files.items()}
    check_number("--width", width, 1, LARGEST)
    with torch.device("meta"):  # only its shapes are needed
        made = build_network(network, 4, 4, width, (), subsets=list(channels))
    weights = {}
    for subset, file in {None: full, **channels}.items():
        state = read_weights(file)
        with _named(file):
            found, match = cotraining_state(state, made, subset)
            _floats(found)
        print(f"{file}: {match}")
        weights |= found
    write_checkpoint(weights, output)
    print(f"{output}: {len(weights)} tensors")


def train_content(dataset_dir: str, output: str) -> None:
    """Train the network that checks what images show on open_glioma, and print its accuracy in cross-validation.

    Args:
        dataset_dir: the folder as downloaded.
        output: the file to write, e.g. common/cohorts/data/content.pt.
    """
    import pandas as pd

    from common.cohorts.content import CLASSES, SEQUENCES
    from common.io import require_writable
    from common.release.content import confusion
    from common.release.content import train_content as train_on

    require_writable(Path(output).parent)
    counts = pd.DataFrame(confusion(train_on(dataset_dir, output)).numpy(), SEQUENCES, CLASSES)
    print(f"{output}: classes found by cross-validation over patients (columns) for images of each sequence (rows):")
    print(counts.to_string())


def ship(run: str, bundle: str, name: str, data_source: str) -> None:
    """Make a training's weights those of a bundle: models/NAME.pt, calibration tables, and entries in metadata.json.

    The weights are stored in half precision, except small tensors.

    Args:
        run: output_dir of a training that has been evaluated.
        bundle: folder of the bundle.
        name: model, for the default weights of inference, or phantom.
        data_source: short description of the training data.
    """
    from common.release.shipping import ship as ship_weights

    target = ship_weights(run, bundle, name, data_source)
    print(f"{target}: {os.path.getsize(target) / 1e6:.1f} MB")


def compare(
    output_dir: str,
    *methods: str,
    reference: str | None = None,
    cohort: str | None = None,
    datalist: str | None = None,
    part: str = "test",
    published: str | None = None,
    coverage: float | None = None,
    cases: Sequence[str] | None = None,
    allow_missing: bool = False,
    force: bool = False,
    empty: str | None = None,
    hd95: str | None = None,
    et_min_voxels: int | None = None,
    average: str | None = None,
    surface_tolerance: float | None = None,
) -> None:
    """Write one report on several methods: tables, paired tests and figures, as HTML and Markdown.

    Args:
        output_dir: the folder to write. Measurements of label maps are stored in its folder evaluations/, and can be
            given as FOLDER the next time.
        methods: two or more NAME=FOLDER; the other methods are tested against the first one. A folder is the output
            of an evaluation (or the results.csv in it), or holds label maps from any program, with one folder per
            subset of the modalities (t1c+flair, ...), or without such folders if all modalities were used.
        reference: the folder of the reference label maps; required for label maps.
        cohort: the cohort that defines the label values; required for label maps.
        datalist: a JSON file with the cases that need label maps; by default those of the evaluations among the
            methods, or else all references.
        part: part of the datalist: training, validation or test.
        published: a published table to show beside, as PAPER/TABLE/DATASET, e.g. "M3AE/1/BraTS2018 test split (57)".
        coverage: coverage of the volume intervals; by default that of the first evaluation that has one, or else 0.9.
        cases: names or patterns of the cases to compare, such as "BraTS2021_*,case_01", e.g. those of one hospital;
            for results only.
        allow_missing: compare only the cases that all methods have, instead of refusing if cases are missing.
        force: compare results of different cohorts or conventions; the report is marked.
        empty: scoring of empty regions in label maps: brats, released, nan or skip. By default, this and the following
            conventions are those of the first evaluation, or else the general defaults.
        hd95: kind of HD95: max or pooled.
        et_min_voxels: number of voxels below which predicted enhancing tumour counts as necrosis.
        average: average of overlap metrics: case or voxel.
        surface_tolerance: tolerance of the surface Dice in mm.
    """
    from common.cohorts import get_cohort
    from common.cohorts.datalist import PARTS
    from common.evaluation.analysis.comparable import require_comparable, select_cases
    from common.evaluation.analysis.label_maps import evaluate_label_maps
    from common.evaluation.analysis.published import published as read_published
    from common.evaluation.analysis.reliability import check_coverage
    from common.evaluation.metrics.conventions import Conventions
    from common.evaluation.metrics.results import read_evaluation, write_evaluation
    from common.evaluation.report.report import write_report
    from common.evaluation.report.sections import stems
    from common.io import require_writable
    from common.io.settings import check_choice

    folders = _by_name(methods)
    _require_output(output_dir, [*folders.values()])
    check_choice("--part", part, PARTS)
    if coverage is not None:
        check_coverage(coverage)
    given = {"empty": empty, "hd95": hd95, "et_min_voxels": et_min_voxels, "average": average}
    given |= {"surface_tolerance": surface_tolerance}
    conventions = {key: value for key, value in given.items() if value is not None}
    if published is not None and published.count("/") < 2:
        raise ValueError(f"--published {published}: expected PAPER/TABLE/DATASET.")
    beside = None if published is None else read_published(*published.split("/", 2))
    evaluations = {name: read_evaluation(folder, name) for name, folder in folders.items() if _is_evaluation(folder)}
    left_out = []
    if cases is not None:
        patterns = [cases] if isinstance(cases, str) else list(cases)
        evaluations = {name: select_cases(evaluation, patterns) for name, evaluation in evaluations.items()}
        left_out.append(f"Only the cases {', '.join(patterns)}.")
    label_maps = {name: folder for name, folder in folders.items() if name not in evaluations}
    if label_maps and (reference is None or cohort is None):
        folder = next(iter(label_maps.values()))
        raise ValueError(f"{folder}: has no results.csv; for label maps give --reference and --cohort.")
    if conventions and not label_maps:
        raise ValueError(f"--{next(iter(conventions))}: is for label maps; results keep their own conventions.")
    if cases is not None and label_maps:
        raise ValueError("--cases: is for results; for label maps name the cases in a --datalist.")
    if datalist is not None and not label_maps:
        raise ValueError("--datalist: is for label maps; results keep their own cases.")
    others = next((asdict(evaluation.conventions) for evaluation in evaluations.values()), {})
    settings, places = Conventions(**others | conventions), stems(folders)
    require_writable(output_dir)
    if coverage is None:
        coverage = next((e.facts["coverage"] for e in evaluations.values() if "coverage" in e.facts), 0.9)
    if label_maps:
        definition = get_cohort(cohort)
        evaluated = {c for e in evaluations.values() if e.cohort == definition.name for c in e.results["case"]}
        listed = _listed(datalist, part) if datalist else evaluated or None
    for name, folder in label_maps.items():
        measured, said = evaluate_label_maps(name, folder, reference, definition, settings, allow_missing, listed)
        write_evaluation(measured, Path(output_dir, "evaluations", places[name]))
        evaluations[name] = measured
        left_out += said
    ordered, remarks = require_comparable([evaluations[name] for name in folders], allow_missing, force)
    write_report(ordered, output_dir, coverage, beside, [*left_out, *remarks])
    print(f"{Path(output_dir, 'report.html')}: {len(ordered)} methods, {ordered[0].results['case'].nunique()} cases")


def average(output_dir: str, name: str, *folders: str) -> None:
    """Average the evaluations of several trainings of one method, e.g. with other seeds, case by case.

    Args:
        output_dir: the folder to write, which compare accepts like any evaluation.
        name: name of the method.
        folders: two or more output folders of evaluations.
    """
    from common.evaluation.analysis.repeats import average_repeats, spread
    from common.evaluation.metrics.results import read_evaluation, write_evaluation

    _require_apart(output_dir, name, folders)
    repeats = [read_evaluation(folder) for folder in folders]
    write_evaluation(average_repeats(name, repeats), output_dir)
    print(f"{output_dir}: {name}, {len(folders)} trainings; mean Dice (%) and its spread over trainings:")
    print((100 * spread(repeats)).round(1).to_string())


def pool(output_dir: str, name: str, *folders: str) -> None:
    """Combine the evaluations of all folds of a cross-validation, with each case from the fold that tested it.

    Args:
        output_dir: the folder to write, which compare accepts like any evaluation.
        name: name of the method.
        folders: the output folders of all folds' evaluations.
    """
    from common.evaluation.analysis.folds import pool_folds
    from common.evaluation.metrics.results import read_evaluation, write_evaluation
    from common.evaluation.report.layout import counted

    _require_apart(output_dir, name, folders)
    pooled = pool_folds(name, [read_evaluation(folder, folder) for folder in folders])
    write_evaluation(pooled, output_dir)
    cases = counted(pooled.results["case"].nunique(), noun="case")
    print(f"{output_dir}: {name}, {cases} from {len(folders)} folds")


def leaderboard(
    methods: str,
    output_dir: str,
    cohort: str | None = None,
    dataset_dir: str | None = None,
    coverage: float | None = None,
    at_once: int | None = None,
    dry_run: bool = False,
    slurm: bool = False,
    only: str | None = None,
) -> None:
    """Train and evaluate a list of methods on one cohort, and write a report on all of them and the papers' tables.

    Finished methods are not run again, and interrupted ones are resumed: repeat the same command after a stop.

    Args:
        methods: JSON file, e.g. bundles/leaderboard.json: config keys for all methods (settings) and, by name, each
            method's bundle, overlays on its train.json (configs), and settings. The lists in bundles/tables also
            produce the tables of a paper, with the published numbers beside the measured ones.
        output_dir: the folder to write: a folder for each method, leaderboard.csv with the times, report/, tables/.
        cohort: cohort to train on; by default the list's own, or the phantom.
        dataset_dir: the cohort's folder; the phantom is generated if none is given.
        coverage: coverage of the volume intervals; by default that of the evaluations.
        at_once: number of methods that run in parallel; by default one per GPU, or one on the CPU. 0 trains none, and
            reports on the finished ones.
        dry_run: run the whole list in minutes, with one epoch of a small network for each method, on a few fake cases
            instead of the cohort's data. The measured numbers mean nothing.
        slurm: train nothing here, but write a Slurm job array with a task for each training, OUTPUT_DIR/array.sh.
        only: train and evaluate only the method of this name, without a report, as a task of that array does.
    """
    from common.cohorts import generate_phantom, get_cohort
    from common.evaluation.analysis.reliability import check_coverage
    from common.evaluation.metrics.results import read_evaluation
    from common.evaluation.report.paper_tables import paper_tables
    from common.evaluation.report.report import write_table
    from common.io import require_writable
    from common.io.settings import check_number
    from common.release.dry_run import made_small
    from common.release.leaderboard import folders_of, gather, prepare_entries, require_same_settings, run_entries
    from common.release.lists import read_list
    from common.release.slurm import write_array

    if at_once is not None:
        check_number("--at_once", at_once, 0)
    if [slurm, only is not None, at_once is not None].count(True) > 1:
        raise ValueError("--slurm, --only and --at_once: expected at most one of them.")
    if coverage is not None:
        check_coverage(coverage)
        if only is not None:
            raise ValueError(f"--coverage {coverage}: is for the report, which --only does not write; leave one out.")
    made = read_list(methods, cohort)
    definition = get_cohort(cohort or made.cohort or "phantom")
    entries, shared, notes = made.trainings(), {"cohort": definition.name}, list(made.notes)
    if dry_run and dataset_dir is not None:
        raise ValueError(f"--dataset_dir {dataset_dir}: --dry_run makes its own data; give only one of the two.")
    if dataset_dir is None and not dry_run and definition.name != "phantom":
        raise ValueError(f"--dataset_dir: missing; expected the folder of cohort {definition.name}.")
    if dataset_dir is not None and not Path(dataset_dir).is_dir():
        raise FileNotFoundError(f"--dataset_dir {dataset_dir}: no such folder; expected that of {definition.name}.")
    require_writable(output_dir)
    if dry_run:
        entries = made_small(entries, definition, Path(output_dir, "stand_in"))
        notes.insert(
            0, "Dry run: invented images, one epoch of a small network each; the measured numbers mean nothing."
        )
    else:
        if dataset_dir is None:
            dataset_dir = generate_phantom(Path(output_dir).resolve() / "phantom")
        shared["dataset_dir"] = str(Path(dataset_dir).resolve())
    if slurm:
        prepare_entries(entries, folders_of(entries, output_dir), shared)
        options = {"cohort": cohort, "dataset_dir": shared.get("dataset_dir")}
        words = [f"--{key}={value}" for key, value in options.items() if value is not None]
        command = ["leaderboard", str(Path(methods).resolve()), str(Path(output_dir).resolve()), *words]
        command += ["--dry_run"] if dry_run else []
        script = write_array([entry.name for entry in entries], command, output_dir)
        command += [] if coverage is None else [f"--coverage={coverage}"]
        print(f"{script}: {len(entries)} trainings. Submit them, and when they are finished make the report:")
        print(f"    sbatch {shlex.quote(str(script))}")
        print(f"    {shlex.join(['python', '-m', 'tools', *command, '--at_once', '0'])}")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the running trainings too
    if at_once == 0:
        require_same_settings(entries, folders_of(entries, output_dir), definition.name)
        failed = []
    else:
        failed = run_entries(entries, output_dir, shared, at_once, only)
    if only is not None:
        if failed:
            raise ValueError(f"{only}: failed; see log.txt in its folder.")
        return
    done = gather(made, output_dir)
    if len(done) >= 2:
        named = [f"{name}={folder}" for name, folder in done.items()]
        compare(str(Path(output_dir, "report")), *named, coverage=coverage)
    if made.blocks:
        evaluations = [read_evaluation(folder, name) for name, folder in done.items()]
        for stem, table in paper_tables(made.blocks, evaluations, definition.modalities, notes).items():
            write_table(table, Path(output_dir, "tables"), stem)
            print(f"\n{printable(table.to_markdown())}")
    if failed:
        raise ValueError(f"{', '.join(failed)}: failed; see log.txt in each folder, then repeat the command.")


def federate(plan: str, output_dir: str, simulate: bool = False) -> None:
    """Write a federation of hospitals as a job of NVIDIA FLARE.

    Args:
        plan: a JSON file with a bundle, rounds and sites; see docs/many_machines.md.
        output_dir: parent folder of the job folder, which has the plan's name; an older job is replaced.
        simulate: run the federation on this machine instead, in the folder simulation of output_dir.
    """
    from federated import job
    from federated.plan import read_plan

    read = read_plan(Path(plan).read_text(), plan)
    if simulate:
        print(f"weights: {job.simulate(read, output_dir)}")
    else:
        print(f"nvflare job submit -j {shlex.quote(str(job.write_job(read, output_dir)))}")


def provision(plan: str, output_dir: str, server: str, admin: str, port: int = 8002) -> None:
    """Make the startup kits of a federation: keys, certificates and settings of its server, sites and administrator.

    Args:
        plan: a JSON file with the sites; see docs/many_machines.md.
        output_dir: the folder to write.
        server: host name by which the sites reach the server.
        admin: e-mail address of the administrator, who may submit jobs.
        port: port of the server.
    """
    from federated.plan import read_plan
    from federated.provision import provision as make

    print(make(read_plan(Path(plan).read_text(), plan), output_dir, server, port, admin))


def package(bundle: str, output_dir: str) -> None:
    """Make a zip of a bundle that needs no other files of the repository, and list it in the index beside it.

    Args:
        bundle: the bundle's folder, e.g. bundles/m3ae.
        output_dir: the folder to write: NAME_vVERSION.zip, and index.json of all packages there.
    """
    from common.io import file_digest, require_writable
    from common.release.index import write_index
    from common.release.package import make_package

    made = make_package(bundle, require_writable(output_dir))
    index = write_index(made.parent)
    print(f"{made}: {made.stat().st_size / 1e6:.1f} MB, listed in {index}")
    print(f"{file_digest(index)} is the index's SHA-256; publish it elsewhere, too, for users to pass as --sha256")


def download(
    name: str,
    index: str,
    output_dir: str,
    version: str | None = None,
    sha256: str | None = None,
    allow_http: bool = False,
) -> None:
    """Download a packaged bundle, verify its SHA-256 and those of its files, and place its folder atomically.

    A bundle is code: using it means running what its publisher wrote, with all your rights. Get it only from publishers
    that you trust.

    Args:
        name: name of the bundle, e.g. m3ae.
        index: URL or path of the index.json that lists it.
        output_dir: the folder in which the bundle's folder is placed.
        version: version of the bundle, e.g. 0.1.0; by default the newest.
        sha256: SHA-256 of the index, as its publisher published it elsewhere; another index is refused.
        allow_http: also allow downloads by http, which can be changed on the way.
    """
    from common.release.index import download_bundle

    placed = download_bundle(name, index, output_dir, version, sha256, allow_http)
    print(f"{placed}: see requirements.txt for its dependencies and docs/README.md for its use")
    if sha256 is None:
        print("It is code that runs with your rights. Verify with --sha256 of the index that it is its publisher's.")


def predict(
    study: str,
    output_dir: str,
    bundle: str,
    series: dict | None = None,
    modalities: Sequence[str] | None = None,
    reference: str | None = None,
    recipe: str | None = None,
    ckpt_path: str | None = None,
    device: str | None = None,
    skull_strip: str = "auto",
    upright: bool = False,
) -> None:
    """Segment a patient's study with any non-empty subset of the sequences, and print what was used as which sequence.

    Args:
        study: the folder: DICOM series, or NIfTI files named after their sequences.
        output_dir: the folder to write: label.nii.gz, seg.dcm (for DICOM) and summary.html.
        bundle: name or folder of a bundle, e.g. m3ae.
        series: SeriesNumbers for series that are not recognised, or wrongly, e.g. "{'t1c': 7}"; None leaves a sequence
            out.
        modalities: the sequences to use, e.g. t1c,flair; by default all.
        reference: the sequence, or the SeriesInstanceUID of a series, that defines the grid of the result; by default
            T1c, or else the finest one.
        recipe: recipe that the weights were trained with, e.g. brats2018; by default that of the bundle's own weights.
        ckpt_path: path of the weights; by default the bundle's own.
        device: cpu, cuda or cuda:1; by default a GPU if there is one.
        skull_strip: auto extracts the brain from images that show more, yes from all, no from none.
        upright: align a tilted head with the training cases, by registration to their mean brain.
    """
    from common.study.predict import predict as predict_study

    made = predict_study(
        study, output_dir, bundle, series, modalities, reference, recipe, ckpt_path, device, skull_strip, upright,
        explain=lambda lines: _show("In the study", lines),
    )  # fmt: skip
    summary = made.summary
    said = {"Warnings": summary.warnings}  # most important first, as on the page
    said["Volumes"] = [
        f"{region}: {volume:.1f} ml" + _interval(summary.intervals.get(region))
        for region, volume in summary.volumes.items()
    ]
    said["Geometry"] = summary.notes
    said["Bundle"] = [f"{summary.bundle} {summary.version}"]
    if summary.trained_on:
        said["Bundle"].append(f"The weights were trained on {summary.trained_on}.")
    said["Written (research only, not for clinical use)"] = [f"{what}: {file}" for what, file in made.files.items()]
    for title, lines in said.items():
        _show(title, lines)


def _show(title: str, lines: Sequence[str]) -> None:
    if lines:
        print(printable("\n  ".join([f"{title}:", *lines])), flush=True)


def _interval(interval: tuple[float, float, float] | None) -> str:
    if interval is None:
        return ""
    low, high, coverage = interval
    return f" ({low:.1f} to {high:.1f} with {coverage:.0%})"


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


def _by_name(methods: Sequence[str]) -> dict[str, str]:
    """Return name -> folder from NAME=FOLDER, or from NAME=FOLDER/results.csv."""
    named = [method.partition("=") for method in methods]
    if len(named) < 2 or not all(name and folder for name, _, folder in named):
        raise ValueError(f"methods {list(methods)}: expected two or more NAME=FOLDER.")
    folders = {
        name: str(Path(folder).parent) if Path(folder).name == "results.csv" else folder for name, _, folder in named
    }
    if len(folders) < len(named):
        raise ValueError(f"methods {list(methods)}: two have the same name; give each its own.")
    absent = [folder for folder in folders.values() if not Path(folder).is_dir()]
    if absent:
        raise FileNotFoundError(f"{absent[0]}: no such folder; expected an evaluation's output, or label maps.")
    return folders


def _require_apart(output_dir: str, name: str, folders: Sequence[str]) -> None:
    """Refuse a folder that is given twice, one in the place of the name, and an output folder that is also read."""
    if Path(name).is_dir():
        raise ValueError(f"name {name}: is a folder; expected OUTPUT_DIR and the method's NAME before the folders.")
    places = [Path(folder).resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise ValueError(f"folders {', '.join(folders)}: one is given twice; expected one for each training.")
    _require_output(output_dir, folders)


def _require_output(output_dir: str, folders: Sequence[str]) -> None:
    """Refuse an output folder that is also read, and NAME=FOLDER in its place."""
    if Path(output_dir).resolve() in [Path(folder).resolve() for folder in folders]:
        raise ValueError(f"output_dir {output_dir}: is one of the folders to read; expected another one.")
    if Path(output_dir.partition("=")[2] or os.devnull).is_dir():
        raise ValueError(f"output_dir {output_dir}: looks like NAME=FOLDER; expected the folder to write first.")


def _listed(datalist: str, part: str) -> list[str]:
    """Return the cases of a part of a datalist; their files need not exist here."""
    try:
        cases = [item["case"] for item in json.loads(Path(datalist).read_text())[part]]
        if foreign := [case for case in cases if not isinstance(case, str)]:
            raise TypeError(f"case {foreign[0]!r} is not text")
        return cases
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{datalist}: not a datalist with cases in part {part} ({error}). Make it with `python -m tools datalist`."
        ) from error


def _is_evaluation(folder: str) -> bool:
    return Path(folder, "results.csv").is_file()


VERBS = (datalist, check, compare, average, pool, leaderboard, predict, federate, provision)
VERBS += (package, download, import_m3ae, import_fusion, import_cotraining, ship, train_content)


def main() -> None:
    """Run a verb; errors in the user's files are reported in one line, without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    sys.stdout.reconfigure(errors="backslashreplace")  # paths may have undecodable characters
    try:
        parse({verb.__name__: verb for verb in VERBS}, sys.argv[1:])()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {complaint(error)}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
