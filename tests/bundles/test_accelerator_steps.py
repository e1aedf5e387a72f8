"""No training step waits for a GPU more than a few times, and none mixes devices; see `accelerator`."""

from pathlib import Path

import pytest
import torch
from accelerator import DEVICE, accelerator
from monai.bundle import ConfigParser

BUNDLES = Path(__file__).parents[2] / "bundles"
READS = 5
"""Most reads by the host in a step: of the modalities present (by method and network) and of the labels' range."""
COMPLETE = ("gss", "medmap/baselines/smunet", "medmap/recipes/acn", "medmap/recipes/smunet")
"""Methods that need complete subjects."""
STAGES = ("train", "pretrainer", "teacher", "teachers")


def configurations() -> list[str]:
    """Return every bundle, and every bundle with each of its baselines: ``gss``, ``gss/baselines/backbone``, ..."""
    found = []
    for bundle in sorted(path.parents[1] for path in BUNDLES.glob("*/configs/train.json")):
        overlays = sorted(bundle.glob("configs/baselines/*.json"))
        found += [bundle.name, *(f"{bundle.name}/baselines/{overlay.stem}" for overlay in overlays)]
    return found


def read(name: str, dataset_dir: Path) -> ConfigParser:
    bundle, *overlay = name.split("/")
    configs = BUNDLES / bundle / "configs"
    files = [configs / "train.json", *([configs.joinpath(*overlay).with_suffix(".json")] if overlay else [])]
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser.update({"bundle_root": str(BUNDLES / bundle), "dataset_dir": str(dataset_dir)})
    return parser


@pytest.mark.parametrize("name", configurations())
def test_a_step_mixes_no_devices_and_reads_a_few_values(name, phantom_dir):
    config = read(name, phantom_dir)
    absents = (None,) if name.startswith(COMPLETE) else (None, (0, 2))
    stages = [stage for stage in STAGES if f"{stage}#trainer" in config]
    assert stages
    for stage in stages:
        method = config.get_parsed_content(f"{stage}#trainer#network").to(DEVICE).train()
        loss = config.get_parsed_content(f"{stage}#loss").to(DEVICE)
        modalities = len(config.get_parsed_content("cohort_def").modalities)
        regions = len(config.get_parsed_content("cohort_def").labels.regions)
        crop = config.get_parsed_content("crop")
        soft = name.startswith("m3ae")
        for absent in absents:
            with accelerator(absent) as reads:
                image = torch.empty(2, modalities, *crop, device=DEVICE)
                label = torch.zeros(2, regions if soft else 1, *crop, device=DEVICE)
                loss(method(image), label).backward()
            assert len(reads) <= READS, "\n".join(reads)
