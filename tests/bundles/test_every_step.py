"""What holds for a training step of every method that a config trains, whichever paper it is of: its loss."""

import copy
from types import SimpleNamespace

import pytest
import torch
from bundles.running import configurations, read_configuration
from monai.data import MetaTensor
from torch.utils._pytree import tree_map

from common.modalities import IGNORED

STAGES = ("train", "pretrainer", "teacher", "teachers")


def stages() -> list[tuple[str, str]]:
    """Return each configuration with each stage of its training that has a loss of `common` on classes."""
    found = [(name, stage, read_configuration(name)) for name in configurations() for stage in STAGES]
    ours = [each[:2] for each in found if f"{each[1]}#loss" in each[2] and "common." in str(loss_of(each[2], each[1]))]
    return [(name, stage) for name, stage in ours if not name.startswith("m3ae")]  # whose labels are regions


def loss_of(config, stage):
    """Return what a config says of a stage's loss, which may be the name of another key."""
    said = config[f"{stage}#loss"]
    return config[said[1:]] if isinstance(said, str) and said[0] == "@" else said


@pytest.fixture(scope="module", params=stages(), ids="/".join)
def step(request):
    """The outputs of a tiny network for two samples, with the label and the loss."""
    name, stage = request.param
    config = read_configuration(name, "recipes/tiny")
    torch.manual_seed(0)
    method = config.get_parsed_content(f"{stage}#trainer#network").train()
    cohort, crop = (config.get_parsed_content(key) for key in ("cohort_def", "crop"))
    with torch.no_grad():
        output = method(torch.randn(2, len(cohort.modalities), *crop))
    classes = 1 + len(cohort.labels.targets)
    label = torch.randint(classes, (2, 1, *crop))
    loss = config.get_parsed_content(f"{stage}#loss")

    def fresh():
        torch.manual_seed(1)  # GSS and U-HVED draw
        return copy.deepcopy(loss)

    return SimpleNamespace(output=output, label=label, classes=classes, loss=fresh)


def converted(output, convert):
    """Return an output with each of its floating-point maps converted."""
    maps = lambda x: isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim > 3  # noqa: E731
    return tree_map(lambda x: convert(x) if maps(x) else x, output)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)], ids=str)
def test_losses_are_float32_under_autocast_and_plain_for_meta_tensors(step, dtype, tolerance):
    expected, loss = step.loss()(step.output, step.label), step.loss()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(converted(step.output, lambda x: x.to(dtype)), MetaTensor(step.label))
    assert type(found) is torch.Tensor
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=tolerance)
    assert all(type(each) is torch.Tensor and not each.requires_grad for each in getattr(loss, "terms", {}).values())


@pytest.mark.parametrize("value", [-1, 5])
def test_a_class_that_the_head_lacks_is_refused(step, value):
    label = step.label.clone()
    label.view(-1)[0] = value
    with pytest.raises(ValueError, match="Class counts of network, cohort and loss disagree"):
        step.loss()(step.output, label)


def test_a_label_of_another_shape_is_refused(step):
    with pytest.raises(ValueError, match=rf"expected \({len(step.label)}, 1, .*: one class index per voxel"):
        step.loss()(step.output, step.label[:, :, 1:])


def test_a_voxel_to_ignore_has_no_influence_or_is_refused(step):
    label = step.label.clone()
    label[..., -1] = IGNORED
    shape = (step.classes, *label.shape[2:])  # of logits; other maps have no label
    other = converted(step.output, lambda x: x + 3 * (label[0, 0] == IGNORED) if x.shape[-len(shape) :] == shape else x)
    if said := refusal(step, label):
        assert "contains voxels to ignore, which this method's loss does not support" in said
    else:
        assert step.loss()(other, label).item() == pytest.approx(step.loss()(step.output, label).item(), rel=1e-5)


def refusal(step, label):
    """Return the message of a loss that refuses a label, else None."""
    try:
        step.loss()(step.output, label)
    except ValueError as error:
        return str(error)
