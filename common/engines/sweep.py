"""Evaluation of every case with every subset of its modalities."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

import torch
from monai.data import decollate_batch
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, Orientationd
from nibabel.affines import voxel_sizes
from torch import nn
from tqdm import tqdm

from common.cohorts import get_cohort
from common.engines.efficiency import peak_memory_mb, reset_peak_memory, synchronise
from common.engines.inferers import ForegroundInferer, paste_box
from common.engines.latents import LatentProbe
from common.engines.precision import autocast
from common.engines.windows import decode_subsets, mirrored
from common.evaluation.metrics.case import CaseMeasure, CaseResult
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.store import CaseStore
from common.modalities import drop, presence, resolve_subset, subset_name
from common.modalities import subsets as all_subsets
from common.networks import Ensemble
from common.transforms.decision import DECISIONS, DecideLabelsd, region_probabilities
from common.transforms.file_grid import ToFileGridd


class SubsetSweep:
    """The ``iteration_update`` of an evaluator that segments a case with each subset of its modalities and measures it.

    A case is read once for all subsets, and all decisions (`DecideLabelsd`) are measured on the same probabilities. A
    network with ``encode`` and ``decode`` encodes each window once for all subsets that have the same foreground box;
    other networks run once per subset. Predictions are the same as if only the subset's files existed.

    Args:
        subsets: modality subsets, each given by names or aliases; a case skips those with modalities that it lacks.
        inferer: inferer for a batch of images.
        to_probabilities: transforms from ``pred``, logits on the network's grid, to probabilities on the files' grid.
        latent_layer: layer for `LatentProbe`; its features are recorded for single modalities, which then run
            separately. Of an `Ensemble` none are recorded.
        store: where the result of each case is written as soon as it is computed; None: nowhere.
        subsets_at_once: number of subsets in one batch. With 1, results equal those of separate inferences bit for bit.
            More are faster on a GPU; probabilities are then equal up to rounding.
    """

    def __init__(
        self,
        cohort: str,
        subsets: Sequence[Sequence[str]],
        network: nn.Module,
        inferer: ForegroundInferer,
        to_probabilities: Compose,
        conventions: Mapping[str, Any],
        latent_layer: str | None = None,
        subsets_at_once: int = 1,
        store: CaseStore | None = None,
    ) -> None:
        self.cohort = get_cohort(cohort)
        wanted = [resolve_subset(subset, self.cohort.modalities) for subset in subsets]
        self.subsets = [subset for subset in all_subsets(self.cohort.modalities) if subset in wanted]
        if hasattr(network, "encode") and type(inferer).fill_missing is not ForegroundInferer.fill_missing:
            raise ValueError(
                f"{type(inferer).__name__} fills in missing modalities, so windows cannot be encoded once for all "
                f"subsets; use a ForegroundInferer with {type(network).__name__}."
            )
        self.inferer, self.to_probabilities = inferer, to_probabilities
        self.decide = {decision: DecideLabelsd("pred", cohort, decision, inferer.softmax) for decision in DECISIONS}
        self.conventions = Conventions(**conventions)
        self.probe = LatentProbe(network, None if isinstance(network, Ensemble) else latent_layer)
        self.subsets_at_once, self.store = subsets_at_once, store
        self.to_file_grid = ToFileGridd("shown")
        self.to_ras = Orientationd(["shown", "label", "pred"], axcodes="RAS", labels=None, allow_missing_keys=True)

    def __call__(self, engine: SupervisedEvaluator, batch: Mapping[str, Any]) -> CaseResult:
        """Return the results of a batch with one case; a subset needs files that were loaded (else ValueError)."""
        item, *others = decollate_batch(batch)
        if others:
            raise ValueError(f"A batch of {1 + len(others)} cases; expected one at a time. Set batch_size to 1.")
        measure = self._measure(item)
        subsets = sorted(self._available(item), key=len, reverse=True)  # the others are compared with the largest
        device, latents, seconds = engine.state.device, {}, 0.0
        reset_peak_memory(device)
        predictions = self.predictions(batch["image"].to(device), engine.network, subsets)
        for _ in tqdm(subsets, desc=item["case"], unit="subset", leave=False):
            start = perf_counter()
            with engine.mode(engine.network), autocast(self.inferer.precision, device):
                subset, logits = next(predictions)
            synchronise(device)
            seconds += perf_counter() - start
            features = self.probe.take()
            if features is not None and len(subset) == 1:
                latents[subset[0]] = features
            output = self.to_probabilities({**item, "pred": logits[0]})
            upright: dict[Any, Any] = self.to_ras({"pred": output["pred"]})
            upright["subset"] = subset_name(subset)
            labels = {name: decide(upright)["pred"][0].cpu().numpy() for name, decide in self.decide.items()}
            regions = region_probabilities(upright["pred"], self.cohort.labels, self.inferer.softmax)
            measure.add(upright["subset"], labels, regions.cpu().numpy())
        latents = {name: latents[name] for name in self.cohort.modalities if name in latents}
        result = measure.result(latents, seconds / len(subsets) if subsets else float("nan"))
        result.memory_mb = peak_memory_mb(device)
        if self.store is not None:
            self.store.write(result)
        return result

    def predictions(
        self, image: torch.Tensor, network: nn.Module, subsets: Sequence[tuple[str, ...]]
    ) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
        """Yield each subset with its logits ``(1, C, X, Y, Z)``; those with the same foreground box are neighbours.

        The image is one sample ``(1, M, X, Y, Z)``; the network is in evaluation mode. ``subsets`` begins with all
        modalities, since divergences are measured from them, and these also come first here. If latents are recorded,
        single modalities come after the other subsets with their box.
        """
        keep = torch.tensor([[name in subset for name in self.cohort.modalities] for subset in subsets])
        keep = keep.to(image.device)
        for box, numbers in self._by_box(image, keep):
            # A single modality is run separately if its latents are recorded.
            alone = [number for number in numbers if self.probe.layer is not None and len(subsets[number]) == 1]
            others = [number for number in numbers if number not in alone]
            if others:
                run = self._decoded if hasattr(network, "encode") else self._forwarded
                yield from zip([subsets[n] for n in others], run(image, network, keep[others], box), strict=True)
            for number in alone:
                yield subsets[number], self.inferer(drop(image, keep[number][None]), network)

    def _decoded(
        self, image: torch.Tensor, network: nn.Module, keep: torch.Tensor, box: tuple
    ) -> Iterator[torch.Tensor]:
        crop = image.as_subclass(torch.Tensor)[box]
        network = mirrored(network, self.inferer.mirror_axes)
        for logits in decode_subsets(crop, network, keep, self.inferer, self.subsets_at_once):
            yield paste_box(logits, box, image.shape[2:], self.inferer.softmax)

    def _forwarded(
        self, image: torch.Tensor, network: nn.Module, keep: torch.Tensor, _: tuple
    ) -> Iterator[torch.Tensor]:
        for rows in keep.split(self.subsets_at_once):
            yield from self.inferer(drop(image, rows), network).split(1)

    def _by_box(self, image: torch.Tensor, keep: torch.Tensor) -> Iterable[tuple[tuple, list[int]]]:
        groups: dict[str, tuple[tuple, list[int]]] = {}
        for number, row in enumerate(keep):
            box = self.inferer.box(image[:, row])
            groups.setdefault(str(box), (box, []))[1].append(number)
        return groups.values()

    def _available(self, item: Mapping[str, Any]) -> list[tuple[str, ...]]:
        there = presence(item["image"][None])[0].tolist()
        loaded = {name for name, used in zip(self.cohort.modalities, there, strict=True) if used}
        wanted = [subset for subset in self.subsets if set(subset) <= set(item["modalities"])]
        for subset in wanted:
            if not set(subset) <= loaded:
                raise ValueError(
                    f"{item['case']}: subset {subset_name(subset)} was requested, but not all of it was loaded; "
                    "request its modalities (key `modalities`) or leave the subset out (key `subsets`)."
                )
        return wanted

    def _measure(self, item: Mapping[Hashable, Any]) -> CaseMeasure:
        in_files: dict[Hashable, Any] = self.to_ras(self.to_file_grid({**item, "shown": item["image"]}))
        label, image = in_files["label"], in_files["shown"]
        return CaseMeasure(
            item["case"],
            label[0].numpy(),
            image.numpy(),
            self.cohort.modalities,
            voxel_sizes(label.affine.numpy()),
            self.cohort.labels,
            self.conventions,
        )
