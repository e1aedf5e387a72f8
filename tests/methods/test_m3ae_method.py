import pytest
import torch
from monai.data import Dataset, MetaTensor

from common.baselines.plain import Plain
from common.io import write_checkpoint
from common.networks import M3AE
from common.papers.m3ae import (
    FineTuning,
    Pretraining,
    load_pretrained,
    mean_image,
    prepare_fill,
    pretraining_parameters,
    start_finetuning,
)


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
    output = Pretraining(network, mask_ratio=0.875, patch_size=8)(image)
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
    Pretraining(network, masking="modality_dropout")(image)
    visible = (network.unet.seen == image).flatten(2).float().mean(2)
    assert set(visible.unique().tolist()) <= {0.0, 1.0}
    assert visible.any(dim=1).all()


def test_pretraining_learns_x_sub_only_where_it_stood_in():
    torch.manual_seed(0)
    network = M3AE(4, 4, 8, grid=(40, 40, 40), deep_supervision=False)
    output = Pretraining(network, patch_size=8)(torch.rand(1, 4, 32, 32, 32))
    (output.reconstruction - output.image).square().mean().backward()
    inside = network.x_sub.grad[:, :, 4:36, 4:36, 4:36]
    assert (inside != 0).float().mean() > 0.8
    assert network.x_sub.grad.count_nonzero() == inside.count_nonzero()


def test_pretraining_refuses_what_it_cannot_tile_or_does_not_know(network):
    with pytest.raises(ValueError, match="multiples of patch_size 16"):
        Pretraining(network)(torch.rand(1, 4, 24, 32, 32))
    with pytest.raises(ValueError, match="masking 'random': expected one of 'm3ae'"):
        Pretraining(network, masking="random")


def test_fine_tuning_forwards_two_views_with_x_sub_for_what_is_dropped(network):
    image = torch.rand(2, 4, 32, 32, 32)
    seen = FineTuning(network)(image)
    assert seen.shape == (4, 4, 32, 32, 32)
    centre = network.x_sub[:, :, 4:36, 4:36, 4:36].expand_as(image)
    for view in seen.chunk(2):
        kept = (view == image).flatten(2).all(2)
        assert kept.any(1).all()
        assert torch.equal(view, torch.where(kept[:, :, None, None, None], image, centre))
    assert not network.x_sub.requires_grad


def test_fine_tuning_of_the_full_view_and_an_incomplete_one(network):
    image = torch.rand(3, 4, 32, 32, 32)
    image[0, 1] = float("nan")
    method, incomplete = FineTuning(network, views="full_and_incomplete"), []
    for _ in range(10):
        first, second = method(image).chunk(2)
        kept = [(view == image).flatten(2).all(2) for view in (first, second)]
        assert kept[0].tolist() == [[True, False, True, True], [True] * 4, [True] * 4]
        incomplete.append(kept[1].sum(1))
    counts = torch.stack(incomplete)
    assert counts[:, 0].unique().tolist() == [1, 2]
    assert counts[:, 1:].unique().tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="views 'all': expected one of 'random', 'full_and_incomplete'"):
        FineTuning(network, views="all")


def test_fine_tuning_never_shows_a_modality_that_the_subject_lacks(network):
    image = torch.rand(1, 4, 32, 32, 32)
    image[:, 1:3] = float("nan")
    method = FineTuning(network)
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


def test_pretraining_parameters_give_x_sub_its_own_rate():
    network = M3AE(grid=(8, 8, 8), width=8)
    unet, x_sub = pretraining_parameters(network, 3e-4, 5e-3)
    assert (unet["lr"], x_sub["lr"], x_sub["params"]) == (3e-4, 5e-3, [network.x_sub])
    prepare_fill(network, "zero", None)
    assert len(pretraining_parameters(network, 3e-4, 5e-3)) == 1
    assert network.x_sub.abs().sum() == 0
    with pytest.raises(ValueError, match="fill 'noise': expected one of 'x_sub', 'zero', 'mean'"):
        prepare_fill(network, "noise", None)


def test_x_sub_starts_from_noise_of_the_standard_deviation_that_is_set():
    torch.manual_seed(0)
    network = M3AE(grid=(24, 24, 24), width=8)
    before = network.x_sub.detach().clone()
    prepare_fill(network, "x_sub", None, 0.01)
    assert torch.equal(network.x_sub, before * 0.01)
    assert network.x_sub.requires_grad
    with pytest.raises(ValueError, match="x_sub_std -1: expected a number from 0"):
        prepare_fill(network, "x_sub", None, -1)


def test_mean_image_averages_at_each_location_those_that_are_present():
    grid = [6, 6, 6]

    def subject(value, start, missing=()):
        image = torch.full((2, 4, 4, 4), value)
        image[list(missing)] = float("nan")
        affine = torch.eye(4, dtype=torch.float64)
        affine[:3, 3] = torch.tensor(start, dtype=torch.float64)
        meta = {"original_affine": torch.eye(4, dtype=torch.float64), "spatial_shape": torch.tensor(grid)}
        return {"image": MetaTensor(image, affine=affine, meta=meta)}

    mean = mean_image(Dataset([subject(1.0, (0, 0, 0)), subject(3.0, (2, 2, 2), missing=[1])]), grid)
    assert mean.shape == (1, 2, 6, 6, 6)
    assert mean[0, 0, 0, 0, 0] == 0.5
    assert mean[0, 0, 2, 2, 2] == 2.0
    assert mean[0, 0, 5, 5, 5] == 1.5
    assert mean[0, 1, 2, 2, 2] == 1.0  # the second subject lacks this modality: it does not count


def test_load_pretrained_takes_everything_but_the_heads(tmp_path):
    torch.manual_seed(0)
    source = M3AE(4, 4, 8, (8, 8, 8), deep_supervision=False)
    write_checkpoint(source.state_dict(), tmp_path / "pretrained.pt")
    network = M3AE(4, 3, 8, (8, 8, 8))
    head = network.unet.head.weight.clone()
    load_pretrained(network, tmp_path / "pretrained.pt")
    assert torch.equal(network.x_sub, source.x_sub)
    assert torch.equal(network.unet.encoder[3][0].weight, source.unet.encoder[3][0].weight)
    assert torch.equal(network.unet.head.weight, head)
    other = M3AE(4, 3, 8, (8, 8, 8))
    load_pretrained(other, tmp_path / "pretrained.pt", weights=False)
    assert torch.equal(other.x_sub, source.x_sub)
    assert not torch.equal(other.unet.encoder[3][0].weight, source.unet.encoder[3][0].weight)


def test_fine_tuning_goes_on_from_whole_weights(tmp_path):
    source, network = M3AE(4, 3, 8, (8, 8, 8)), M3AE(4, 3, 8, (8, 8, 8))
    write_checkpoint(source.state_dict(), tmp_path / "model.pt")
    start_finetuning(network, tmp_path / "none.pt", init_from=tmp_path / "model.pt")
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in source.state_dict().items())


def test_load_pretrained_refuses_another_architecture(tmp_path):
    write_checkpoint(M3AE(4, 4, 16, (8, 8, 8)).state_dict(), tmp_path / "pretrained.pt")
    with pytest.raises(ValueError, match=r"pretrained\.pt: not a pretraining checkpoint of this network.*same width"):
        load_pretrained(M3AE(4, 3, 8, (8, 8, 8)), tmp_path / "pretrained.pt")


def test_plain_forwards_what_is_there():
    torch.manual_seed(0)
    network = M3AE(4, 3, 8, grid=(16, 16, 16)).train()
    image = torch.rand(2, 4, 16, 16, 16)
    assert torch.equal(Plain(network)(image).logits, network.unet(image).logits)
