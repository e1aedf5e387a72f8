import math
from itertools import product

import numpy as np
import pytest
import torch
from draws import KEPT_OF_FOUR, follow
from monai.data import Dataset, MetaTensor
from networks.golden import M3AE_SEED, TOLERANCE, arrays, draw, relative_error, transpose

from common.baselines.plain import Plain
from common.io.checkpoints import write_checkpoint
from common.modalities import IGNORED
from common.networks import M3AE, SegmentationOutput
from common.papers import m3ae


class Recorder(torch.nn.Module):
    """Takes the place of the U-Net and stores its inputs."""

    def forward(self, x):
        self.seen = x
        return x


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = M3AE(4, 4, 8, grid=(40, 40, 40), deep_supervision=False)
    network.unet = Recorder()
    return network


def test_pretraining_shows_exactly_one_eighth_and_x_sub_in_the_rest(network):
    image = torch.rand(3, 4, 32, 32, 32)
    output = m3ae.Pretraining(network, mask_ratio=0.875, patch_size=8)(image)
    seen, centre = network.unet.seen, network.x_sub[:, :, 4:36, 4:36, 4:36]
    visible = seen == image
    assert torch.equal(seen, torch.where(visible, image, centre.expand_as(image)))
    assert visible.flatten(1).sum(1).tolist() == [4 * 32**3 // 8] * 3
    whole = visible.reshape(3, 4, 4, 8, 4, 8, 4, 8).float().mean(dim=(3, 5, 7))
    assert set(whole.unique().tolist()) == {0.0, 1.0}  # patches are not divided
    assert torch.equal(output.image, image)
    assert output.present.all()


def test_pretraining_with_modality_dropout_masks_whole_modalities(network):
    image = torch.rand(8, 4, 32, 32, 32)
    m3ae.Pretraining(network, masking="modality_dropout")(image)
    visible = (network.unet.seen == image).flatten(2).float().mean(2)
    assert set(visible.unique().tolist()) <= {0.0, 1.0}
    assert visible.any(dim=1).all()


@pytest.mark.parametrize("masking", m3ae.MASKINGS)
def test_pretraining_keeps_one_to_four_modalities_alike(network, masking):
    method, kept, image = m3ae.Pretraining(network, patch_size=4, masking=masking), [], torch.rand(4, 4, 16, 16, 16)
    for _ in range(200):
        method(image)
        kept += (network.unet.seen == image).flatten(2).any(2).sum(1).tolist()
    assert follow(kept, KEPT_OF_FOUR)


def test_pretraining_learns_x_sub_only_where_it_stood_in():
    torch.manual_seed(0)
    network = M3AE(4, 4, 8, grid=(40, 40, 40), deep_supervision=False)
    output = m3ae.Pretraining(network, patch_size=8)(torch.rand(1, 4, 32, 32, 32))
    (output.reconstruction - output.image).square().mean().backward()
    inside = network.x_sub.grad[:, :, 4:36, 4:36, 4:36]
    assert (inside != 0).float().mean() > 0.8
    assert network.x_sub.grad.count_nonzero() == inside.count_nonzero()


def test_fine_tuning_forwards_two_views_with_x_sub_for_what_is_dropped(network):
    image = torch.rand(2, 4, 32, 32, 32)
    seen = m3ae.FineTuning(network)(image)
    assert seen.shape == (4, 4, 32, 32, 32)
    centre = network.x_sub[:, :, 4:36, 4:36, 4:36].expand_as(image)
    for view in seen.chunk(2):
        kept = (view == image).flatten(2).all(2)
        assert kept.any(1).all()
        assert torch.equal(view, torch.where(kept[:, :, None, None, None], image, centre))
    assert not network.x_sub.requires_grad


@pytest.mark.parametrize(
    ("views", "law"),
    [
        ("random", dict.fromkeys(product((1, 2, 3, 4), repeat=2), 1 / 16)),
        ("full_and_incomplete", dict.fromkeys([(4, 1), (4, 2), (4, 3)], 1 / 3)),
    ],
)
def test_both_views_follow_the_law_of_the_subsets_and_are_independent(network, views, law):
    method, kept, image = m3ae.FineTuning(network, views), [], torch.rand(4, 4, 8, 8, 8)
    for _ in range(200):
        counts = [(view == image).flatten(2).all(2).sum(1).tolist() for view in method(image).chunk(2)]
        kept += zip(*counts, strict=True)
    assert follow(kept, law)


def test_fine_tuning_of_the_full_view_and_an_incomplete_one(network):
    image = torch.rand(3, 4, 32, 32, 32)
    image[0, 1] = float("nan")
    method, incomplete = m3ae.FineTuning(network, views="full_and_incomplete"), []
    for _ in range(10):
        first, second = method(image).chunk(2)
        kept = [(view == image).flatten(2).all(2) for view in (first, second)]
        assert kept[0].tolist() == [[True, False, True, True], [True] * 4, [True] * 4]
        incomplete.append(kept[1].sum(1))
    counts = torch.stack(incomplete)
    assert counts[:, 0].unique().tolist() == [1, 2]
    assert counts[:, 1:].unique().tolist() == [1, 2, 3]


def test_fine_tuning_never_shows_a_modality_that_the_subject_lacks(network):
    image = torch.rand(1, 4, 32, 32, 32)
    image[:, 1:3] = float("nan")
    method = m3ae.FineTuning(network)
    for _ in range(20):
        assert torch.isfinite(method(image)).all()


def test_location_follows_the_affine_of_crop_and_flip(network):
    full = MetaTensor(torch.rand(4, 40, 40, 40), affine=torch.diag(torch.tensor([2.0, 2, 2, 1], dtype=torch.float64)))
    full.meta["original_affine"], full.meta["spatial_shape"] = full.affine.clone(), torch.tensor([40, 40, 40])
    affine = full.affine.clone()
    affine[:3, 3] = torch.tensor([2.0 * 34, 2.0 * 5, 2.0 * 7])  # x runs from 34 down to 3
    affine[0, 0] = -2
    crop = MetaTensor(full.as_tensor()[None, :, 3:35, 5:37, 7:39].flip(2), affine=affine[None], meta=dict(full.meta))
    filled = network.substitute(crop, torch.zeros(1, 4, dtype=torch.bool))
    assert torch.equal(filled, network.x_sub[:, :, 3:35, 5:37, 7:39].flip(2))


def test_x_sub_has_its_own_rate_and_starts_from_noise():
    network = M3AE(grid=(8, 8, 8), width=8)
    unet, x_sub = m3ae.pretraining_parameters(network, 3e-4, 5e-3)
    assert (unet["lr"], x_sub["lr"], x_sub["params"]) == (3e-4, 5e-3, [network.x_sub])
    m3ae.prepare_fill(network, "zero", None)
    assert len(m3ae.pretraining_parameters(network, 3e-4, 5e-3)) == 1
    assert network.x_sub.abs().sum() == 0
    torch.manual_seed(0)
    network = M3AE(grid=(24, 24, 24), width=8)
    before = network.x_sub.detach().clone()
    assert (before.mean().item(), before.std().item()) == pytest.approx((0, 1), abs=0.02)
    m3ae.prepare_fill(network, "x_sub", None, 0.01)
    assert torch.equal(network.x_sub, before * 0.01)
    assert network.x_sub.requires_grad


def test_mean_image_averages_at_each_location_those_that_are_present():
    grid = [6, 6, 6]

    def subject(value, start, missing=()):
        image = torch.full((2, 4, 4, 4), value)
        image[list(missing)] = float("nan")
        affine = torch.eye(4, dtype=torch.float64)
        affine[:3, 3] = torch.tensor(start, dtype=torch.float64)
        meta = {"original_affine": torch.eye(4, dtype=torch.float64), "spatial_shape": torch.tensor(grid)}
        return {"image": MetaTensor(image, affine=affine, meta=meta)}

    mean = m3ae.mean_image(Dataset([subject(1.0, (0, 0, 0)), subject(3.0, (2, 2, 2), missing=[1])]), grid)
    assert (mean.shape, mean[0, 0, 0, 0, 0]) == ((1, 2, 6, 6, 6), 0.5)
    assert (mean[0, 0, 2, 2, 2], mean[0, 0, 5, 5, 5]) == (2.0, 1.5)
    assert mean[0, 1, 2, 2, 2] == 1.0  # the second subject lacks this modality: it does not count


def test_what_fine_tuning_starts_from(tmp_path):
    torch.manual_seed(0)
    source = M3AE(4, 4, 8, (8, 8, 8), deep_supervision=False)
    write_checkpoint(source.state_dict(), tmp_path / "pretrained.pt")
    network = M3AE(4, 3, 8, (8, 8, 8))
    head = network.unet.head.weight.clone()
    m3ae.load_pretrained(network, tmp_path / "pretrained.pt")
    assert torch.equal(network.x_sub, source.x_sub)
    assert torch.equal(network.unet.encoder[3][0].weight, source.unet.encoder[3][0].weight)
    assert torch.equal(network.unet.head.weight, head)
    other = M3AE(4, 3, 8, (8, 8, 8))
    m3ae.load_pretrained(other, tmp_path / "pretrained.pt", weights=False)
    assert torch.equal(other.x_sub, source.x_sub)
    assert not torch.equal(other.unet.encoder[3][0].weight, source.unet.encoder[3][0].weight)
    source, network = M3AE(4, 3, 8, (8, 8, 8)), M3AE(4, 3, 8, (8, 8, 8))
    write_checkpoint(source.state_dict(), tmp_path / "model.pt")
    m3ae.start_finetuning(network, tmp_path / "none.pt", init_from=tmp_path / "model.pt")
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in source.state_dict().items())


def test_load_pretrained_refuses_another_architecture(tmp_path):
    for weights in (True, False):
        with pytest.raises(FileNotFoundError, match=r"pretrained\.pt: no pretraining\. Run `pretrain`.*init_from"):
            m3ae.load_pretrained(M3AE(4, 3, 8, (8, 8, 8)), tmp_path / "pretrained.pt", weights)
    wrapped = {f"module.{key}": value for key, value in M3AE(4, 3, 8, (8, 8, 8)).state_dict().items()}
    write_checkpoint(wrapped, tmp_path / "wrapped.pt")
    with pytest.raises(ValueError, match=r"wrapped\.pt: its names begin with 'module\.'"):
        m3ae.load_pretrained(M3AE(4, 3, 8, (8, 8, 8)), tmp_path / "wrapped.pt")
    write_checkpoint(M3AE(4, 4, 16, (8, 8, 8)).state_dict(), tmp_path / "pretrained.pt")
    with pytest.raises(ValueError, match=r"pretrained\.pt: not a pretraining checkpoint of this network.*same width"):
        m3ae.load_pretrained(M3AE(4, 3, 8, (8, 8, 8)), tmp_path / "pretrained.pt")


def test_plain_forwards_what_is_there():
    torch.manual_seed(0)
    network = M3AE(4, 3, 8, grid=(16, 16, 16)).train()
    image = torch.rand(2, 4, 16, 16, 16)
    assert torch.equal(Plain(network)(image).logits, network.unet(image).logits)


GOLDEN = arrays("m3ae")


def output(logits, deep, bottleneck):
    return SegmentationOutput(logits, deep, bottleneck)


def test_pretraining_loss_leaves_out_modalities_that_the_subject_lacks():
    image = torch.full((1, 2, 1, 1, 2), float("nan"))
    image[0, 0] = 0
    reconstruction = torch.tensor([1.0, 3.0, 0.0, 2.0]).reshape(1, 2, 1, 1, 2)
    output = m3ae.Reconstruction(reconstruction, image, torch.tensor([[True, False]]), image[:, :1] * 0)
    assert m3ae.PretrainingLoss(gamma=0)(output).item() == 5.0


def test_the_regulariser_is_the_mean_square_or_the_norm_of_what_differs_from_the_mean():
    x_sub = torch.tensor([5.0, 5.0, 5.0, 9.0]).reshape(1, 1, 1, 2, 2).requires_grad_()  # about the mean: -1, -1, -1, 3
    image = torch.zeros(1, 1, 1, 2, 2)
    there = torch.tensor([[True]])
    for kind, value, pull in (("mean_square", 3.0, 2 / 4), ("norm", 12**0.5, 12**-0.5)):
        loss = m3ae.PretrainingLoss(gamma=2.0, regulariser=kind)
        total = loss(m3ae.Reconstruction(image, image, there, x_sub))
        assert total.item() == pytest.approx(2 * value)
        (gradient,) = torch.autograd.grad(total, x_sub)
        assert gradient.flatten().tolist() == pytest.approx([2 * pull * d for d in (-1, -1, -1, 3)])


def test_ignored_voxels_count_as_if_they_had_been_cut_off():
    """Also in the coarser heads, and in the distillation."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(4, 4, 4), (2, 2, 2)]
    full, half = (torch.randn(4, 3, *size, generator=generator).requires_grad_() for size in sizes)
    target = torch.randint(2, (2, 3, 4, 4, 4), generator=generator, dtype=torch.uint8)
    bottleneck = torch.zeros(4, 1, 1, 1, 1)
    loss = m3ae.FineTuningLoss(lambda_distil=1.0)
    expected = loss(output(full[..., :2], [half[..., :1]] * 2, bottleneck), target[..., :2])
    target[..., 2:] = IGNORED
    found = loss(output(full, [half] * 2, bottleneck), target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    grads = torch.autograd.grad(found, [full, half])
    assert all((g[..., g.shape[-1] // 2 :] == 0).all() and (g != 0).any() for g in grads)


@pytest.fixture(scope="module")
def golden():
    logits = [transpose(draw(M3AE_SEED + 10 + i, (2, 3, 32, 32, 32))).flip(1) for i in range(3)]  # 1/4, 1/2, full
    label = GOLDEN["loss/label"]
    regions = np.stack([label > 0, (label == 1) | (label == 4), label == 4], axis=1)
    return logits, transpose(regions).float()


def test_segmentation_loss_gives_the_authors_numbers(golden):
    (quarter, half, full), target = golden
    each = [m3ae.DiceBCELoss()(logits, target).item() for logits in (quarter, half, full)]
    assert each == pytest.approx(GOLDEN["loss/seg_each"].tolist(), rel=1e-5)
    dice = [m3ae.DiceBCELoss(1, 0)(logits, target).item() for logits in (quarter, half, full)]
    assert dice == pytest.approx(GOLDEN["loss/dice_only"].tolist(), rel=1e-5)
    quarter = quarter.clone().requires_grad_()
    total = m3ae.DeeplySupervisedLoss()(output(full, [quarter, half], None), target)
    total.backward()
    assert total.item() == pytest.approx(float(GOLDEN["loss/seg_sum"]), rel=1e-5)
    stride = int(GOLDEN["loss/grad_logits0/stride"])
    assert relative_error(transpose(quarter.grad.flip(1)), GOLDEN["loss/grad_logits0"], stride) <= TOLERANCE


def test_consistency_gives_the_authors_numbers(golden):
    (quarter, half, full), target = golden
    bottleneck = transpose(draw(M3AE_SEED + 20, (2, 128, 4, 4, 4)))
    views = output(full, [quarter, half], bottleneck)  # a subject whose two views are the golden batch
    for kind, key in (("bottleneck", "consistency_mse"), ("quarter_logits", "consistency_code_ds_quarter")):
        loss = m3ae.FineTuningLoss(lambda_con=1, consistency=kind)
        loss(views, target[:1])
        assert loss.terms["consistency"].item() == pytest.approx(float(GOLDEN[f"loss/{key}"]), rel=1e-5)


def test_fine_tuning_loss_weighs_the_consistency_and_pools_the_views():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 4, 4), (torch.rand(1, 3, 4, 4, 4) > 0.5).to(torch.uint8)
    views = output(logits, [logits, logits], torch.stack([torch.zeros(8, 1, 1, 1), torch.full((8, 1, 1, 1), 3.0)]))
    pooled = 3 * m3ae.DiceBCELoss()(logits, torch.cat([target, target]).float())
    assert m3ae.FineTuningLoss(0.1)(views, target).item() == pytest.approx(pooled.item() + 0.9, rel=1e-6)
    assert m3ae.FineTuningLoss(0)(views, target).item() == pytest.approx(pooled.item(), rel=1e-6)
    bottleneck = torch.tensor([1.0, 2.0, 1.0, 5.0]).reshape(4, 1, 1, 1, 1)  # views 0 of two subjects, then views 1
    logits = torch.zeros(4, 3, 4, 4, 4)
    loss = m3ae.FineTuningLoss(1)
    loss(output(logits, [logits, logits], bottleneck), torch.zeros(2, 3, 4, 4, 4))
    assert loss.terms["consistency"].item() == pytest.approx((0 + 9) / 2)


@pytest.mark.parametrize("kind", ["bottleneck", "quarter_logits"])
def test_the_consistency_pulls_both_views_to_each_other(kind):
    quarter, bottleneck = (torch.randn(4, 3, 4, 4, 4).requires_grad_() for _ in range(2))
    views = output(torch.zeros(4, 3, 4, 4, 4), [quarter, quarter.detach()], bottleneck)
    total, without = (m3ae.FineTuningLoss(weight, kind)(views, torch.zeros(2, 3, 4, 4, 4)) for weight in (1, 0))
    pulled = bottleneck if kind == "bottleneck" else quarter
    first, second = torch.autograd.grad(total - without, pulled)[0].chunk(2)
    one, other = pulled.detach().chunk(2)
    torch.testing.assert_close(first, 2 * (one - other) / one.numel())
    torch.testing.assert_close(second, -first)


def test_deep_logits_at_their_own_size_meet_the_share_of_each_region():
    """Of the eight voxels of the first half two are of the region, of the second all."""
    target = torch.zeros(1, 1, 4, 2, 2, dtype=torch.uint8)
    target[0, 0, 0, 0], target[0, 0, 2:] = 1, 1
    deep = torch.zeros(1, 1, 2, 1, 1, requires_grad=True)  # probability 0.5
    views = output(torch.zeros(1, 1, 4, 2, 2), [deep, deep], None)
    found, plain = (m3ae.DeeplySupervisedLoss(deep_weights=weights) for weights in ((0.25, 0.5), (0, 0)))
    dice = 1 - (2 * (0.5 * 0.25 + 0.5 * 1) + 1) / (2 * 0.5**2 + 0.25**2 + 1 + 1)
    expected = 0.7 * dice + 0.3 * math.log(2)
    assert (found(views, target) - plain(views, target)).item() == pytest.approx(0.75 * expected, rel=1e-5)
    target[0, 0, 1, 1, 1] = IGNORED  # one voxel: the whole first half is not counted
    dice = 1 - (2 * 0.5 + 1) / (0.5**2 + 1 + 1)
    total = found(views, target) - plain(views, target)
    assert total.item() == pytest.approx(0.75 * (0.7 * dice + 0.3 * math.log(2)), rel=1e-5)
    first, second = torch.autograd.grad(total, deep)[0].flatten().tolist()
    assert first == 0 > second


def test_deep_logits_need_a_weight_each_or_there_are_none():
    logits, target = torch.randn(1, 1, 4, 4, 4), torch.ones(1, 1, 4, 4, 4)
    alone = m3ae.DeeplySupervisedLoss()(output(logits, [], None), target)
    assert alone == m3ae.DiceBCELoss()(logits, target)
    with pytest.raises(ValueError, match=r"deep_weights \[1, 1, 1\]: expected one for each of the 2 deep heads"):
        m3ae.DeeplySupervisedLoss(deep_weights=(1, 1, 1))(output(logits, [logits, logits], None), target)


def test_distillation_teaches_the_second_view_by_the_first_alone():
    logits = torch.zeros(2, 3, 4, 4, 4)
    logits[0], logits[1] = math.log(3), math.log(4)  # probabilities 0.75, and 0.8 in the second view
    logits.requires_grad_()
    views = output(logits, [logits.detach()] * 2, torch.zeros(2, 8, 1, 1, 1))
    target = torch.zeros(1, 3, 4, 4, 4)
    with_teacher, without = m3ae.FineTuningLoss(lambda_distil=0.5), m3ae.FineTuningLoss()
    difference = with_teacher(views, target) - without(views, target)
    expected = -(0.75 * math.log(0.8) + 0.25 * math.log(0.2))
    assert difference.item() == pytest.approx(0.5 * expected, rel=1e-5)
    assert with_teacher.terms["distillation"].item() == pytest.approx(expected, rel=1e-5)
    assert "distillation" not in without.terms
    first, second = torch.autograd.grad(difference, logits)[0]
    assert first.abs().max() < 1e-7
    assert second.min() > 1e-4
