"""Faults that a test has to find: each is put into a copy of the project, and its test has to fail there.

    python tests/mutations.py [REGEX]
    python tests/mutations.py draw COUNT SEED FOLDER ... TESTS

REGEX chooses faults by what `Mutation.name` says, e.g. ``m3ae`` or ``papers/``. Each takes about half a minute of a
core, and all tests named are first run without any. The exit status is 1 if a test does not find its fault, or if the
line of a fault is not there (any more). Add a fault when a test is written for something that the other tests would not
have noticed.

``draw`` prints faults that are drawn at random from all lines of folders, by `OPERATORS`, and whether the fast tests of
TESTS (folders and files, in quotes) find them: ``draw 20 1 mmb/clinic/report "clinic experiments"``.
"""

import ast
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutation(NamedTuple):
    """One line of a file, without its indentation, what replaces it, and tests that then have to fail."""

    file: str
    line: str
    change: str
    test: str

    @property
    def name(self) -> str:
        return f"{self.file}: {self.line} -> {self.change}"


MUTATIONS = [
    # What a training step draws.
    Mutation(
        "common/papers/m3ae.py",
        "subsets = [random_subsets(present), random_subsets(present)]",
        "subsets = [random_subsets(present)] * 2",
        "papers/test_m3ae_training.py",
    ),
    Mutation(
        "common/papers/m3ae.py",
        "visible = random_subsets(present)",
        "visible = present",
        "papers/test_m3ae_training.py",
    ),
    Mutation(
        "common/papers/gss.py",
        "from common.transforms import uniform_subsets",
        "from common.transforms import random_subsets as uniform_subsets",
        "papers/test_gss_training.py",
    ),
    Mutation(
        "common/papers/gss.py",
        "return (torch.rand(samples, 1, voxels, device=device) >= share).expand(-1, modalities, -1)",
        "return (torch.rand(samples, 1, voxels, device=device) >= 0).expand(-1, modalities, -1)",
        "papers/test_gss_training.py",
    ),
    Mutation(
        "common/baselines/hved.py",
        "chosen = random_subsets(present)",
        "chosen = present",
        "baselines/test_hved_training.py",
    ),
    Mutation(
        "common/transforms/augmentation.py",
        "self.drawn = self.R.uniform(self.thickness[0], self.thickness[1])",
        "self.drawn = self.thickness[0]",
        "transforms/test_intensity.py",
    ),
    Mutation(
        "common/transforms/augmentation.py",
        "self.transform.set_random_state(seed, state)",
        "pass",
        "transforms/test_intensity.py",
    ),
    Mutation(
        "common/cohorts/missing.py",
        'present = {item["case"]: of_patients[patient_of(item)] for item in items}',
        'present = draw_masks([item["case"] for item in items], drawn, modalities, seed)',
        "cohorts/test_missing.py",
    ),
    Mutation(
        "common/cohorts/missing.py",
        "counts = {subset: max(1, int(len(names) * chance)) if chance else 0 for subset, chance in chances.items()}",
        "counts = {subset: int(len(names) * chance) for subset, chance in chances.items()}",
        "cohorts/test_missing.py",
    ),
    Mutation(
        "common/engines/handlers.py",
        "seed = self.seed + 100_003 * epoch + idist.get_rank()",
        "seed = self.seed + 100_003 * epoch",
        "engines/test_handlers.py::test_each_rank_draws_its_own",
    ),
    Mutation(
        "common/networks/attention.py",
        "p = self.weight_dropout.p if self.training else 0.0",
        "p = 0.0",
        "networks/test_attention.py",
    ),
    Mutation(
        "common/networks/attention.py",
        "return self.dropout(self.proj(found.transpose(1, 2).flatten(2)))",
        "return self.proj(found.transpose(1, 2).flatten(2))",
        "networks/test_attention.py",
    ),
    Mutation("common/networks/blocks.py", "nn.init.kaiming_normal_(layer.weight)", "pass", "networks/test_blocks.py"),
    # Where its gradient goes.
    Mutation(
        "common/papers/m3ae.py",
        "consistency = F.mse_loss(first, second)",
        "consistency = F.mse_loss(first, second.detach())",
        "papers/test_m3ae_training.py",
    ),
    Mutation(
        "common/papers/m3ae.py",
        'groups.append({"params": [network.x_sub], "lr": learning_rate_x_sub})',
        'groups.append({"params": [network.x_sub], "lr": learning_rate})',
        "papers/test_m3ae_training.py",
    ),
    Mutation(
        "common/papers/m3ae.py",
        "self.network.x_sub.requires_grad_(False)",
        "pass",
        "papers/test_m3ae_training.py",
    ),
    Mutation(
        "common/papers/medmap.py",
        "return AlignedOutput(self.method(image), self.network.bottlenecks(image, present), present)",
        "return AlignedOutput(self.method(image), self.network.bottlenecks(image, present).detach(), present)",
        "papers/test_medmap_training.py",
    ),
    Mutation(
        "common/papers/medmap.py",
        "return features[:, k : k + 1].detach(), present[:, k : k + 1]",
        "return features[:, k : k + 1], present[:, k : k + 1]",
        "papers/test_medmap_training.py",
    ),
    Mutation(
        "common/papers/mag_ms.py",
        "taught = MagMSDecoded(*(part.detach() for part in teacher)) if self.detach_teacher else teacher",
        "taught = teacher",
        "papers/test_mag_ms_training.py",
    ),
    Mutation(
        "common/papers/passion.py",
        "target = probabilities(teacher.detach(), size, temperature).clamp(FLOOR, 1)",
        "target = probabilities(teacher, size, temperature).clamp(FLOOR, 1)",
        "papers/test_passion_training.py",
    ),
    Mutation(
        "common/papers/gss.py",
        "kept = random_mask(logits, self.alpha, self.mask) & counted",
        "kept = random_mask(logits, self.alpha, self.mask)",
        "losses/test_every_loss.py",
    ),
    Mutation(
        "common/networks/rfnet.py",
        "regions = logits.detach().softmax(dim=1)",
        "regions = logits.softmax(dim=1)",
        "networks/test_fusion_networks.py::TestSizes",
    ),
    Mutation(
        "common/baselines/cotraining.py",
        "logits = discriminator(torch.cat([full, missing]).detach()).float()",
        "logits = discriminator(torch.cat([full, missing])).float()",
        "baselines/test_cotraining_training.py",
    ),
    # What changes from epoch to epoch.
    Mutation(
        "common/papers/passion.py",
        "values = self.loss.end_epoch(engine.state.epoch - 1)  # the authors count from 0",
        "values = self.loss.end_epoch(engine.state.epoch)",
        "papers/test_passion_training.py",
    ),
    Mutation("common/papers/passion.py", "self.sums.zero_()", "pass", "papers/test_passion_training.py"),
    Mutation("common/engines/epoch.py", "self.optimizer.state.clear()", "pass", "engines/test_handlers.py"),
    Mutation(
        "common/engines/handlers.py",
        "if best_epoch == epoch or (best_epoch < 1 and due):",
        "if due:",
        "engines/test_handlers.py",
    ),
    Mutation(
        "common/engines/schedule.py",
        "passed = float(np.interp(epoch, *self.ends))",
        "passed = epoch / self.ends[0][-1]",
        "engines/test_schedule.py",
    ),
    Mutation(
        "common/transforms/staged.py",
        "return self.datasets[sum(self.epoch >= first for first in self.from_epoch) - 1][index]",
        "return self.datasets[sum(self.epoch > first for first in self.from_epoch) - 1][index]",
        "transforms/test_subsets.py",
    ),
    # Losses, networks and windows.
    Mutation(
        "common/papers/m3ae.py",
        'return F.interpolate(target, size=tuple(size), mode="area").masked_fill(ignored, IGNORED)',
        'return F.interpolate(target, size=tuple(size), mode="area")',
        "papers/test_m3ae_training.py",
    ),
    Mutation(
        "common/papers/m3ae.py",
        "total = total + weight * self.loss(logits, _pooled(target, logits.shape[2:]))",
        "total = total + self.loss(logits, _pooled(target, logits.shape[2:]))",
        "papers/test_m3ae_training.py",
    ),
    Mutation(
        "common/networks/residual_unet.py",
        "if self.upsample_deep:",
        "if True:",
        "networks/test_m3ae.py::test_deep_logits_at_their_own_size_are_those_before_they_are_upsampled",
    ),
    Mutation(
        "common/losses/fusion.py",
        "return weighted_cross_entropy(soft, label).mean() + dice_loss(soft, label, batch=True)",
        "return weighted_cross_entropy(soft, label).mean() + dice_loss(soft, label).mean()",
        "losses/test_every_loss.py",
    ),
    Mutation(
        "common/networks/mag_ms.py",
        "shares = (present / present.sum(dim=1, keepdim=True))[:, None].to(features[0].device, non_blocking=True)",
        "shares = (present / present.shape[1])[:, None].to(features[0].device, non_blocking=True)",
        "networks/test_mag_ms.py",
    ),
    Mutation(
        "common/engines/windows.py",
        "upright = [some.flip(flip).float() for some, flip in zip(logits, self.flips, strict=True)]",
        "upright = [some.float() for some in logits]",
        "engines/test_inferers.py",
    ),
    Mutation(
        "common/engines/inferers.py",
        "low, high = generate_spatial_bounding_box(inside, margin=1, allow_smaller=True)",
        "low, high = generate_spatial_bounding_box(inside, margin=0, allow_smaller=True)",
        "engines/test_inferers.py",
    ),
    # Grids and decisions.
    Mutation(
        "common/transforms/location.py",
        'volume = torch.nn.functional.pad(volume, pads, mode="replicate")',
        "volume = torch.nn.functional.pad(volume, pads)",
        "transforms/test_grids.py",
    ),
    Mutation(
        "common/transforms/decision.py",
        "while (better := half(chosen)) > threshold:",
        "if (better := half(chosen)) > threshold:",
        "transforms/test_labels.py",
    ),
    Mutation(
        "common/transforms/spacing.py",
        "reach = math.ceil((ratio - 1) / 2)",
        "reach = math.floor(ratio / 2)",
        "transforms/test_spacing.py",
    ),
    Mutation(
        "common/transforms/spacing.py",
        "padded = voxels.index_select(axis, torch.arange(-reach, extent + reach).clamp(0, extent - 1))",
        "padded = voxels.index_select(axis, torch.arange(-reach, extent + reach) % extent)",
        "transforms/test_spacing.py",
    ),
    Mutation(
        "common/transforms/spacing.py",
        'if mode == "bilinear":',
        "if True:",
        "transforms/test_spacing.py",
    ),
    Mutation(
        "common/transforms/staged.py",
        "CenterSpatialCropd(KEYS, crop),",
        "CenterSpatialCropd(KEYS, outer),",
        "transforms/test_staged.py",
    ),
    Mutation(
        "common/transforms/staged.py",
        'ResampleSpacingd(KEYS, spacing, ("bilinear", "nearest"), sampling),',
        'ResampleSpacingd(KEYS, spacing, ("bilinear", "nearest")),',
        "transforms/test_staged.py",
    ),
    Mutation(
        "common/transforms/file_grid.py",
        "weight = (at - below).to(volume).reshape(-1, *[1] * (rank - 1 - axis))",
        "weight = (at - below).round().to(volume).reshape(-1, *[1] * (rank - 1 - axis))",
        "transforms/test_spacing.py",
    ),
    # Evaluation and checks.
    Mutation(
        "common/engines/evaluate.py",
        "seconds = pd.Series([case.seconds for case in results]).median()",
        "seconds = pd.Series([case.seconds for case in results]).mean()",
        "engines/test_evaluate.py::test_costs_are_the_median_time_and_the_largest_memory_as_far_as_they_are_known",
    ),
    Mutation(
        "common/engines/sweep.py",
        'result = measure.result(latents, seconds / len(subsets) if subsets else float("nan"))',
        "result = measure.result(latents, seconds)",
        "engines/test_sweep.py",
    ),
    Mutation(
        "common/evaluation/metrics/case.py",
        "inside = [probability[self.whole_brain] for probability in probabilities]",
        "inside = [probability[brain] for probability in probabilities]",
        "evaluation/metrics",
    ),
    Mutation(
        "common/evaluation/analysis/statistics.py",
        'std = values.groupby("modalities", sort=False).std()',
        'std = values.groupby("modalities", sort=False).std(ddof=0)',
        "evaluation/analysis",
    ),
    Mutation(
        "common/cohorts/check.py",
        "CUT = 0.5  # a brain counts as cut off at a face if its cross-section there exceeds this fraction of its "
        "largest one",
        "CUT = 0.7",
        "cohorts/test_check.py",
    ),
    # What leaves the house: the truth is that of tests/clinic/truth.py.
    Mutation(
        "mmb/clinic/report/structured_report.py",
        "for number, each in enumerate(segments, start=1):",
        "for number, each in enumerate(reversed(segments), start=1):",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/structured_report.py",
        "shared = _group(*CLASSES[each], summary.classes[each], interval, verdict, algorithm)",
        "shared = _group(*CLASSES[each], summary.classes[segments[-number]], interval, verdict, algorithm)",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/structured_report.py",
        "if len(labels.regions[region]) > 1 or not classes:",
        "if len(labels.regions[region]) > 2 or not classes:",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/structured_report.py",
        'MILLILITRE = Code("ml", "UCUM", "ml")',
        'MILLILITRE = Code("mm", "UCUM", "mm")',
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/structured_report.py",
        '"finding_sites": [sr.FindingSite(codes.SCT.Brain)],',
        '"finding_sites": [sr.FindingSite(codes.SCT.Breast)],',
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/structured_report.py",
        "lower, upper = (round(abs(end - millilitres), 3) for end in interval)",
        "upper, lower = (round(abs(end - millilitres), 3) for end in interval)",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/structured_report.py",
        "evaluations += [sr.QualitativeEvaluation(VERDICT, VERDICTS[verdict.word])] if verdict else []",
        "evaluations += [sr.QualitativeEvaluation(VERDICT, VERDICTS[WORDS[0]])] if verdict else []",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/structured_report.py",
        "is_complete=all(verdict.word != UNRELIABLE for verdict in summary.verdicts.values()),",
        "is_complete=True,",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/study.py",
        'image.header.set_xyzt_units("mm")',
        'image.header.set_xyzt_units("micron")',
        "clinic/test_truth.py",
    ),
    Mutation("mmb/clinic/study.py", "if summary.stops:", "if not summary.stops:", "clinic/test_truth.py"),
    Mutation(
        "mmb/clinic/report/doubts.py",
        'ends = (("left", "right"), ("back", "front"), ("bottom", "top"))',
        'ends = (("right", "left"), ("back", "front"), ("bottom", "top"))',
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/pictures.py",
        'PLANES = {2: ((0, 0, 460, 560), "RL"), 1: ((468, 0, 390, 276), "RL"), 0: ((468, 284, 390, 276), "AP")}',
        'PLANES = {2: ((0, 0, 460, 560), "RL"), 1: ((468, 0, 390, 276), "LR"), 0: ((468, 284, 390, 276), "AP")}',
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/pictures.py",
        "_label(plane, sides, f\"{'RAS'[axis] if at[axis] >= 0 else 'LPI'[axis]} {abs(at[axis]):.0f} mm\")",
        "_label(plane, sides, f\"{'RAS'[axis] if at[axis] < 0 else 'LPI'[axis]} {abs(at[axis]):.0f} mm\")",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/result.py",
        "origin = affine[:3, 3] @ affine[:3, :3] / spacing if study.is_oriented else None  # along the grid's own axes",
        "origin = affine[:3, 3] if study.is_oriented else None",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/result.py",
        "region: expected_dice(p, mask, float(p.sum(dtype=np.float64))) if measured[region] else 0.0",
        "region: expected_dice(p, mask, float(p[mask].sum(dtype=np.float64))) if measured[region] else 0.0",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/result.py",
        "unfounded = [*measured] if stops else SHOWN_BY_T1C if partial else []",
        "unfounded = [*measured] if stops else []",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/lesions.py",
        "listed.append(Lesion(float(total * sizes[piece] / sizes.sum()), side, tuple(at.tolist())))",
        "listed.append(Lesion(float(total * sizes[piece] / sizes.max()), side, tuple(at.tolist())))",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/lesions.py",
        "offset = steps[0] - slope * steps[1]",
        "offset = steps[0] + slope * steps[1]",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/report/lesions.py",
        "slope = along[0] / along[1] if len(voxels) > 1 and abs(along[1]) > FRONT_TO_BACK else 0.0",
        "slope = 0.0",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/batch.py",
        "low, high = interval or (None, None)",
        "high, low = interval or (None, None)",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/batch.py",
        "files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]",
        "files = [(str(path), path.stat().st_size) for path in paths]",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/batch.py",
        "settings = (inference.software, inference.weights_name, inference.decision, others)",
        "settings = (inference.software, inference.decision, others)",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/clinic/console.py",
        "region: f\" (true volume probably {' to '.join(map(millilitres, ends))} ml)\"",
        "region: f\" (true volume probably {' to '.join(map(millilitres, ends[::-1]))} ml)\"",
        "clinic/test_truth.py",
    ),
    Mutation(
        "mmb/server/model.py",
        "return segment(study, results, _loaded(asked), asked, explain)",
        "return segment(study, results, _loaded(asked), Options(skull_strip=asked.skull_strip), explain)",
        "clinic/test_truth.py",
    ),
    # What nnU-Net gets and gives, and patients of several data sets.
    Mutation(
        "mmb/experiments/nnunet_raw.py",
        'split = {"train": parts["training"], "val": parts["validation"]}',
        'split = {"train": [*parts["training"], *parts["validation"]], "val": parts["validation"]}',
        "cohorts/test_described.py::test_raw_data_has_regions_and_consecutive_values",
    ),
    Mutation(
        "mmb/experiments/nnunet_raw.py",
        "written[label == IGNORED] = len(numbers) + 1",
        "pass",
        "cohorts/test_described.py::test_a_channel_of_a_file_and_voxels_that_do_not_count_are_written_as_such",
    ),
    Mutation(
        "mmb/experiments/nnunet_raw.py",
        "voxels = volume if channel is None else volume[..., channel]",
        "voxels = volume if channel is None else volume[..., 0]",
        "cohorts/test_described.py::test_a_channel_of_a_file_and_voxels_that_do_not_count_are_written_as_such",
    ),
    Mutation(
        "mmb/experiments/joining.py",
        'new = [item for item in labelled if item["patient"] not in part_of]  # the others follow an earlier source',
        "new = labelled",
        "experiments/test_label_maps.py::test_a_patient_known_under_two_names_stays_in_one_part",
    ),
    Mutation(
        "mmb/experiments/joining.py",
        'return re.sub(r"\\d+", lambda number: str(int(number[0])), name.strip().lower())',
        "return name.strip().lower()",
        "experiments/test_label_maps.py::test_a_patient_known_under_two_names_stays_in_one_part",
    ),
    Mutation(
        "mmb/predictors/nnunet.py",
        'BRATS_AXES = "LPS"',
        'BRATS_AXES = "RAS"',
        "clinic/test_predictors.py::test_voxels_and_spacing_in_and_regions_out_along_the_axes_of_the_image",
    ),
    Mutation(
        "mmb/predictors/bundle.py",
        "predictor = load_nnunet(bundle, device, BRATS_AXES)",
        "predictor = load_nnunet(bundle, device)",
        "clinic/test_predictors.py::test_voxels_and_spacing_in_and_regions_out_along_the_axes_of_the_image",
    ),
    Mutation(
        "mmb/predictors/nnunet.py",
        'mirror = model.checkpoints[0].get("inference_allowed_mirroring_axes")',
        "mirror = None",
        "clinic/test_predictors.py::test_the_axes_that_were_mirrored_in_training_are_mirrored_in_prediction",
    ),
]


COMPARED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
            ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}  # fmt: skip
SIGNS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


def other_comparison(node: ast.AST) -> str | None:
    if not isinstance(node, ast.Compare) or len(node.ops) != 1:
        return None
    return ast.unparse(ast.Compare(node.left, [COMPARED[type(node.ops[0])]()], node.comparators))


def other_sign(node: ast.AST) -> str | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return ast.unparse(node.operand)
    if not isinstance(node, ast.BinOp) or type(node.op) not in SIGNS:
        return None
    return f"({ast.unparse(ast.BinOp(node.left, SIGNS[type(node.op)](), node.right))})"


def half_as_much_again(node: ast.AST) -> str | None:
    number = isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value
    return None if not number else repr(type(node.value)(1.5 * node.value) if node.value != 1 else 2)


def arguments_exchanged(node: ast.AST) -> str | None:
    if not isinstance(node, ast.Call) or len(node.args) < 2 or any(isinstance(a, ast.Starred) for a in node.args[:2]):
        return None
    return ast.unparse(ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords))


def other_index(node: ast.AST) -> str | None:
    found = re.fullmatch(r"(.*)\[(-?\d+)\]", ast.unparse(node), re.S) if isinstance(node, ast.Subscript) else None
    return found and f"{found[1]}[{1 if found[2] == '0' else 0}]"


def line_deleted(node: ast.AST) -> str | None:
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return "pass" if isinstance(node, ast.Expr | ast.AugAssign | ast.Raise | ast.Continue) and not text else None


OPERATORS = (other_comparison, other_sign, half_as_much_again, arguments_exchanged, other_index, line_deleted)


def candidates(file: Path) -> list[tuple[ast.expr | ast.stmt, str]]:
    """Return the nodes of a file that an operator changes, each with what replaces it."""
    tree = ast.parse(file.read_text())
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        for hint in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            inner |= {id(part) for part in ast.walk(hint)} if hint is not None else set()
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.expr | ast.stmt) and id(node) not in inner]
    return [(node, change) for node in nodes for operator in OPERATORS if (change := operator(node)) is not None]


def replaced(text: str, node: ast.expr | ast.stmt, change: str) -> str:
    """Return a file's text with a node replaced."""
    lines = text.splitlines(keepends=True)
    first, last = lines[node.lineno - 1].encode(), lines[(node.end_lineno or 0) - 1].encode()
    middle = first[: node.col_offset].decode() + change + last[node.end_col_offset :].decode()
    return "".join([*lines[: node.lineno - 1], middle, *lines[node.end_lineno :]])


def draw(count: int, seed: int, folders: list[str]) -> list[tuple[str, ast.expr | ast.stmt, str]]:
    """Return faults drawn by a seed: file, node, and what replaces it."""
    files = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    every = [(str(path.relative_to(ROOT)), *each) for path in files for each in candidates(path)]
    return random.Random(seed).sample(every, count)


def draw_and_run(count: int, seed: int, folders: list[str], tests: str) -> int:
    """Print for each drawn fault whether tests find it; return 1 if one survives."""
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        copytree(ROOT, copy, ignore=ignore_patterns(".*", "__pycache__", "build", "dist"), symlinks=True)
        for file, node, change in draw(count, seed, folders):
            text = (copy / file).read_text()
            (copy / file).write_text(replaced(text, node, change))
            survived = not failure(copy, tests)
            (copy / file).write_text(text)
            survivors += survived
            was = ast.unparse(node).splitlines()[0]
            print(
                "survived" if survived else "killed", f"{file}:{node.lineno}: {was} -> {change}", sep="  ", flush=True
            )
    print(f"{survivors} of {count} survived")
    return int(survivors > 0)


def failure(copy: Path, tests: str) -> str:
    """Return what tests print that fail in a copy of the project, else ""; refuse those that cannot be run at all."""
    paths = [f"tests/{test}" for test in tests.split()]
    options = [*("-x", "-q", "-p", "no:cacheprovider"), *("-m", "not slow")]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", *options, *paths]
    run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if run.returncode not in (0, 1):
        raise SystemExit(f"{tests}: cannot be run.\n{run.stdout}{run.stderr}")
    return run.stdout if run.returncode else ""


def survives(mutation: Mutation, copy: Path) -> bool:
    """Return whether the mutation's tests pass with it."""
    file = copy / mutation.file
    text = file.read_text()
    pattern = re.compile(rf"^( *){re.escape(mutation.line)}$", re.MULTILINE)
    if len(pattern.findall(text)) != 1:
        raise SystemExit(f"{mutation.name}: expected this line once.")
    file.write_text(pattern.sub(lambda found: found[1] + mutation.change, text))
    try:
        return not failure(copy, mutation.test)
    finally:
        file.write_text(text)


def main(choice: str = "") -> int:
    """Run the mutations whose names match; return 1 if one survives."""
    chosen = [mutation for mutation in MUTATIONS if re.search(choice, mutation.name)]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        copytree(ROOT, copy, ignore=ignore_patterns(".*", "__pycache__", "build", "dist"), symlinks=True)
        tests = sorted({test for mutation in chosen for test in mutation.test.split()})
        if said := failure(copy, " ".join(tests)):
            raise SystemExit(f"The tests fail without any mutation.\n{said}")
        for mutation in chosen:
            survived = survives(mutation, copy)
            survivors += survived
            print("survived" if survived else "killed", mutation.name, sep="  ", flush=True)
    print(f"{survivors} of {len(chosen)} survived")
    return int(survivors > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["draw"]:
        sys.exit(draw_and_run(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:-1], sys.argv[-1]))
    sys.exit(main(*sys.argv[1:2]))
