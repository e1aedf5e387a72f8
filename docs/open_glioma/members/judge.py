"""Results by which rules and weights were chosen: each case is segmented once, and every rule is measured on that.

``python docs/open_glioma/members/judge.py segment WEIGHTS DATA SPLIT PART LOGITS`` writes the logits of m3ae's network
with these weights into a folder LOGITS, for each subset of the sequences of each case in a part of a split (of a
datalist, if SPLIT ends in .json).

``python docs/open_glioma/members/judge.py measure DATA SPLIT PART TABLE NAME=LOGITS[,LOGITS ...] ...`` writes a CSV
file. Of several networks under one name the logits are averaged, and in further rows the probabilities.

``python docs/open_glioma/members/judge.py compare WEIGHTS OTHERS DATA SPLIT PART TABLE`` counts the voxels that have
another label with other weights.
"""

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from tqdm import tqdm

from common.cohorts import get_cohort, prepare, take
from common.io.checkpoints import load_weights
from common.modalities import drop, presence, subset_name, subsets
from common.transforms import LoadSubjectd, ToFileGridd
from common.transforms.decision import most_expected_dice
from mmb import Bundle

BUNDLE = Path(__file__).parents[3] / "bundles" / "m3ae"
COHORT = get_cohort("open_glioma")
MIRRORED = {"no": (), "left and right": (0,)}
"""Axes along which each window is segmented a second time."""
BY = {"t": "threshold", "e": "expected Dice"}
"""A rule has one of these letters for each region, as ``ett``."""


def items(data: str, split: str, part: str) -> list:
    """Return the datalist items of a part of a split, or of a datalist."""
    return take(prepare(COHORT.name, data, *((None, split) if split.endswith(".json") else (split,))), part)


@torch.inference_mode()
def segment(weights: str, data: str, split: str, part: str, logits: str) -> None:
    """Write ``LOGITS/case/subset.pt``; what is there already is not computed again."""
    config = ConfigParser()
    config.read_config(BUNDLE / "configs" / "inference.json")
    config.update({"bundle_root": str(BUNDLE), "ckpt_path": weights, "device": "$torch.device('cpu')"})
    network = load_weights(config.get_parsed_content("network"), weights).eval()
    inferer = config.get_parsed_content("inferer")
    for item in tqdm(items(data, split, part)):
        folder = Path(logits, item["case"])
        folder.mkdir(parents=True, exist_ok=True)
        image = config.get_parsed_content("preprocessing")(item)["image"]
        there = [name for name, used in zip(COHORT.modalities, presence(image[None])[0], strict=True) if used]
        for subset in subsets(there):
            path = folder / f"{subset_name(subset)}.pt"
            if path.is_file():
                continue
            keep = torch.tensor([[name in subset for name in COHORT.modalities]])
            made = {}
            for name, inferer.mirror_axes in MIRRORED.items():
                made[name] = inferer(drop(image[None], keep), network)[0].half().clone()
            size = [int(n) for n in image.meta["spatial_shape"]]
            grid = {"original_affine": torch.as_tensor(image.meta["original_affine"]), "spatial_shape": size}
            torch.save({"logits": made, "affine": image.affine, "grid": grid}, path)


def measure(data: str, split: str, part: str, table: str, *networks: str) -> None:
    """Write the Dice (%), volume (ml) and score of each network, case, subset, mirroring, rule and region.

    The score is the expected Dice (%) of the voxels that `most_expected_dice` chooses, whatever the rule.
    """
    rows = []
    for item in tqdm(items(data, split, part)):
        label = LoadSubjectd(COHORT.name, keys=["image", "label"])(item)["label"]
        truth = COHORT.labels.to_regions(label).bool()
        ml = float(label.affine[:3, :3].det().abs()) / 1000
        for network in networks:
            name, folders = network.split("=")
            places = [Path(folder, item["case"]) for folder in folders.split(",")]
            for path in sorted(places[0].glob("*.pt")):
                for how, mirrored, probabilities in _probabilities([place / path.name for place in places]):
                    each = _measured(probabilities, truth, ml)
                    start = {"network": name + how, "case": item["case"], "subset": path.stem, "mirrored": mirrored}
                    rows += [{**start, **row} for row in each]
    pd.DataFrame(rows).to_csv(table, index=False)


def _probabilities(paths: list[Path]) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Yield how networks are averaged, what is mirrored, and probabilities ``(R, X, Y, Z)`` on the file's grid."""
    saved = [torch.load(path, weights_only=True) for path in paths]
    shape = MetaTensor(torch.zeros(1), affine=saved[0]["affine"], meta=saved[0]["grid"])
    for mirrored in MIRRORED:
        logits = torch.stack([each["logits"][mirrored].float() for each in saved])
        means = {", logits": logits.mean(0).sigmoid(), ", probabilities": logits.sigmoid().mean(0)}
        for how, mean in means.items() if len(saved) > 1 else [("", logits[0].sigmoid())]:
            yield how, mirrored, ToFileGridd("pred")({"image": shape, "pred": mean})["pred"]


def _measured(probabilities: torch.Tensor, truth: torch.Tensor, ml: float) -> Iterator[dict]:
    """Yield a row for each rule. Regions are nested as in a label map: what is ET is also TC and WT."""
    true = [np.count_nonzero(mask) for mask in truth]
    box = (slice(None), *(slice(int(n.min()), int(n.max()) + 1) for n in torch.where(probabilities.amax(0) > 0)))
    probabilities, truth = probabilities[box], truth[box]
    masks = {"t": probabilities >= 0.5, "e": torch.stack([most_expected_dice(each) for each in probabilities])}
    names, scores = [*COHORT.labels.regions], {}
    for name, probability in zip(names, probabilities, strict=True):
        best = most_expected_dice(probability, 0)
        expected = 2 * float(probability[best].sum()) / max(np.count_nonzero(best) + float(probability.sum()), 1e-9)
        scores[f"{name}_score"] = round(100 * expected, 2)
    found: dict[str, dict[str, float]] = {}  # of a region, by the letters of this region and the smaller ones within it
    nested = {"": torch.zeros_like(truth[0])}
    for number in reversed(range(len(names))):
        for letters in map("".join, product(BY, repeat=len(names) - number)):
            mask = nested[letters] = nested[letters[1:]] | masks[letters[0]][number]
            size, both = np.count_nonzero(mask), np.count_nonzero(mask & truth[number])
            dice = 200 * both / (size + true[number]) if size + true[number] else 100.0
            found[letters] = {names[number]: round(dice, 1), f"{names[number]}_ml": round(size * ml, 2)}
    own = {f"{name}_true_ml": round(count * ml, 2) for name, count in zip(names, true, strict=True)}
    for rule in map("".join, product(BY, repeat=len(names))):
        regions = {key: value for start in range(len(names)) for key, value in found[rule[start:]].items()}
        yield {"rule": rule, **regions, **scores, **own}


def compare(weights: str, others: str, data: str, split: str, part: str, table: str) -> None:
    """Write how many voxels of each case and subset have another label with other weights, of how many marked ones."""
    both, rows = [Bundle(str(BUNDLE), ckpt_path=path) for path in (weights, others)], []
    for item in tqdm(items(data, split, part)):
        images = dict(zip(item["modalities"], item["image"], strict=True))
        for subset in subsets([*images]):
            one, other = (each.segment({name: images[name] for name in subset}).label for each in both)
            count = {"voxels": np.count_nonzero(one != other), "marked": np.count_nonzero(one)}
            rows.append({"case": item["case"], "subset": subset_name(subset), **count})
    pd.DataFrame(rows).to_csv(table, index=False)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"segment": segment, "measure": measure, "compare": compare}[command](*arguments)
