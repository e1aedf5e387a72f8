"""Run a bundle as its users do, in a process of its own, or faster within this process."""

import json
import os
import re
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle import run as run_bundle
from processes import ROOT, run, run_module, start

from common.io.bundle import bundle_names
from common.modalities import subsets

MODALITIES = ("t1", "t1c", "t2", "flair")
DEMO = ("inference.json", "recipes/phantom.json")
"""Configs for inference with the demo weights, which are meant for the phantom's images."""
DEMO_EVALUATION = ("inference.json", "evaluate.json", "recipes/phantom.json")


def having(file: str) -> list[str]:
    """Return the bundles that have a file."""
    return [name for name in bundle_names() if (ROOT / "bundles" / name / file).is_file()]


def shipped() -> list[str]:
    """Return the bundles that have weights for patients."""
    return having("models/model.pt")


def configurations() -> list[str]:
    """Return every bundle, alone and with each backbone or baseline: ``gss``, ``gss/baselines/backbone``, ..."""
    overlays = sorted(ROOT.glob("bundles/*/configs/ba*/*.json"))
    return [*bundle_names(), *(f"{path.parts[-4]}/{path.parent.name}/{path.stem}" for path in overlays)]


def read_configuration(name: str, *recipes: str, **settings: Any) -> ConfigParser:
    """Return the training config of one of `configurations`, with recipes beneath its overlay, and with keys set."""
    bundle, *overlay = name.split("/")
    folder, parser = ROOT / "bundles" / bundle, ConfigParser()
    files = ["train", *recipes, *["/".join(overlay)] * bool(overlay)]
    parser.read_config([str(folder / "configs" / f"{file}.json") for file in files])
    parser.update({"bundle_root": str(folder), **settings})
    return parser


class Bundle:
    """One of the bundles of this repository, by the name of its folder."""

    def __init__(self, name: str) -> None:
        self.name, self.folder = name, ROOT / "bundles" / name
        tiny = json.loads((self.folder / "configs" / "recipes" / "tiny.json").read_text())
        self.tiny = {key: value for key, value in tiny.items() if key[0] not in "_+"}

    def words(self, configs: Sequence[str], overrides: Mapping[str, Any], run_id: str = "run") -> list[str]:
        """Return the words after ``python -m`` that run configs, given relative to ``configs/``, with keys set."""
        files = str([f"bundles/{self.name}/configs/{config}" for config in configs])
        options = [word for key, value in overrides.items() for word in (f"--{key}", str(value))]
        return ["monai.bundle", "run", run_id, "--config_file", files, *options]

    def run(
        self, configs: Sequence[str], overrides: Mapping[str, Any], run_id: str = "run", processes: int = 1
    ) -> tuple[int, str]:
        """Run configs from the repository in separate processes; return the exit code and all output."""
        return run(run_module, *self.words(configs, overrides, run_id), processes=processes)

    def succeed(self, configs: Sequence[str], overrides: Mapping[str, Any], **kwargs: Any) -> str:
        """Run configs as `run` does and require success; return the output."""
        code, said = self.run(configs, overrides, **kwargs)
        assert code == 0, said[-6000:]
        return said

    def kill_in_epoch_two(self, configs: Sequence[str], overrides: Mapping[str, Any], stage: str) -> None:
        """Start a training and kill -9 it as soon as its progress bar shows a step of the stage's second epoch."""
        with tempfile.NamedTemporaryFile() as log:
            process = start(run_module, *self.words(configs, overrides), log=Path(log.name))
            while not re.search(rf"{stage} \[2/3\]: \[[1-9]".encode(), said := Path(log.name).read_bytes()):
                assert process.is_alive(), said[-2000:].decode()
                time.sleep(0.005)
            process.kill()
            process.join()
        assert process.exitcode == -signal.SIGKILL

    def run_here(self, configs: Sequence[str], run_id: str = "run", **overrides: Any) -> None:
        """Run configs within this process, which saves starting another one."""
        workflow = ConfigWorkflow(
            config_file=[str(self.folder / "configs" / name) for name in configs],
            workflow_type="infer",
            logging_file=False,
            run_id=run_id,
            bundle_root=str(self.folder),
            **{key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()},
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()

    def get(self, *configs: str, **overrides: Any) -> Callable[[str], Any]:
        """Return a function that looks up a key in configs, of which the last one wins, and instantiates it."""
        files = [str(self.folder / "configs" / name) for name in configs]
        overrides = {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()}
        return ConfigWorkflow(files, logging_file=False, **overrides).parser.get_parsed_content

    def complaint(self, configs: Sequence[str], run_id: str = "run", **overrides: Any) -> str:
        """Return the messages of a run that should fail, including those of its causes; '' if it does not fail.

        As in `run`, the settings are refused that can be recognised at once; but all happens in this process.
        """
        try:
            files = [str(self.folder / "configs" / name) for name in configs]
            given = {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()}
            run_bundle(run_id, config_file=files, logging_file=False, bundle_root=str(self.folder), **given)
        except Exception as error:
            return "".join(traceback.format_exception(error))
        return ""


def copy_subset(case: Mapping[str, Any], subset: Sequence[str], folder: Path) -> Path:
    """Link a case's files of some modalities into a separate folder."""
    folder.mkdir(parents=True)
    for path, name in zip(case["image"], case["modalities"], strict=True):
        if name in subset:
            os.symlink(path, folder / Path(path).name)
    return folder


def assert_every_subset_is_segmented(bundle: Bundle, case: Mapping[str, Any], folder: Path, least_dice: float) -> None:
    """Run inference once, on a copy of a case for each subset of its modalities; compare the Dice of all of them."""
    reference = nib.load(case["label"])
    names = {f"case_{number}": subset for number, subset in enumerate(subsets(case["modalities"]))}
    for name, subset in names.items():
        copy_subset(case, subset, folder / "in" / name)
    bundle.run_here(DEMO, dataset_dir=folder / "in", output_dir=folder / "out")
    for name in names:
        written = nib.load(folder / "out" / name / f"{name}_seg.nii.gz")
        assert written.shape == reference.shape
        assert np.array_equal(written.affine, reference.affine)
        label = np.asarray(written.dataobj)
        assert label.dtype == np.uint8
        assert set(np.unique(label)) <= {0, 1, 2, 4}
    truth = np.asarray(reference.dataobj) > 0  # the last subset is that of all modalities
    assert 2 * ((label > 0) & truth).sum() / ((label > 0).sum() + truth.sum()) > least_dice
