"""ACN and SMU-Net: the authors' numbers, their checkpoints, and subsets of modalities."""

import pytest
import torch
from monai.networks import eval_mode
from networks import golden

from common.modalities import drop
from common.networks.cotraining import ACN, ACNPath, SMUNet
from mmb.authors.cotraining_keys import import_cotraining

T1C_FLAIR = (1, 3)
both = pytest.mark.parametrize("name", golden.COTRAINING)


def small(name, **kwargs):
    torch.manual_seed(0)
    return golden.COTRAINING[name](width=8, **kwargs).eval()


def image(samples=1, size=16):
    return torch.randn(samples, 4, size, size, size, generator=torch.Generator().manual_seed(1))


def row(*channels):
    return torch.tensor([[m in channels for m in range(4)]])


class TestGolden:
    @both
    @pytest.mark.parametrize("path", ["full", "missing"])
    def test_each_path_gives_the_authors_numbers(self, name, path):
        output = getattr(golden.trained_paths(name), path)
        theirs = path if path == "full" else golden.MISSING[name]
        arrays = {"prob": (output.logits.sigmoid(), True)}
        if name == "acn":
            arrays["bottleneck"] = output.bottleneck, False
            if path == "missing":
                arrays["vid_mean"] = output.mean, False
        else:
            arrays |= {"style": (output.style, False), "content": (output.content, False)}
        errors = {
            key: golden.cotraining_error(ours, name, f"{theirs}/{key}", classes=classes)
            for key, (ours, classes) in arrays.items()
        }
        assert max(errors.values()) <= golden.TOLERANCE, errors

    def test_the_full_path_would_predict_as_the_authors_does(self):
        """The authors' full path has the branch, too, although nothing uses it."""
        path, theirs = ACNPath(4, 4, 16), golden.path_state("acn", "full")
        branch = {key.removeprefix("VID_branch."): v for key, v in theirs.items() if key.startswith("VID_branch.")}
        path.load_state_dict(golden.imported_paths("acn").full.state_dict() | branch)
        with torch.no_grad():
            output = path.train()(golden.cotraining_image("acn"))
        assert golden.cotraining_error(output.mean, "acn", "full/vid_mean") <= golden.TOLERANCE
        variance = torch.log1p(theirs["VID_branch.log_scale"].exp()) + 1e-5
        torch.testing.assert_close(output.variance.detach(), variance)

    @both
    def test_evaluation_differs_in_the_background_alone(self, name):
        network, output, x = golden.imported_paths(name), golden.trained_paths(name), golden.cotraining_image(name)
        with eval_mode(network), torch.no_grad():
            full, missing = network(x), network(x, row(*golden.missing_subset(name)))
        for logits, expected in ((full, output.full.logits), (missing, output.missing.logits)):
            assert torch.equal(logits[:, 0], torch.zeros_like(logits[:, 0]))
            torch.testing.assert_close(logits[:, 1:], expected[:, 1:])
        assert output.full.logits[:, 0].abs().min() > 0

    def test_probability_of_a_class_is_its_sigmoid_where_the_others_are_improbable(self):
        path = ACNPath(1, 4, 8).eval()
        with torch.no_grad():
            path.unet.head.weight.zero_()
            path.unet.head.bias.copy_(torch.tensor([7.0, -30.0, 0.4, -30.0]))
            soft = path(image()[:, :1]).softmax(dim=1)
        torch.testing.assert_close(soft[:, 2], torch.full_like(soft[:, 2], torch.tensor(0.4).sigmoid().item()))

    @both
    def test_every_path_starts_with_small_probabilities_of_a_tumour(self, name):
        """Starting from 0.5, the Dice loss alone cannot stop a small class from filling the whole brain."""
        torch.manual_seed(0)
        network = golden.COTRAINING[name](width=8, subsets=[(0,), T1C_FLAIR])
        for subset in ((0,), T1C_FLAIR):
            output = network.missing.network_for(subset)(image()[:, subset])
            assert output.logits[:, 1:].sigmoid().mean() < 0.03
            assert name == "smunet" or output.variance.tolist() == pytest.approx([5] * 64)  # as in the released code
        assert network.full(image()).logits[:, 1:].sigmoid().mean() < 0.03

    @both
    def test_a_fifth_of_what_is_decoded_is_dropped_in_training_alone(self, name):
        path, seen = small(name, subsets=[(0,)]).full, []
        path.unet.up4.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        with torch.no_grad():
            path(image(size=32))
            output = path.train()(image(size=32))
        decoded, dropped = seen
        there = dropped != 0
        assert 0.18 < 1 - there.float().mean() < 0.22
        assert there.flatten(2).any(dim=2).all()  # elements, not channels
        torch.testing.assert_close(0.8 * dropped[there], decoded[there])
        if name == "acn":
            torch.testing.assert_close(output.bottleneck, decoded)  # transferred before dropout


class TestCheckpoints:
    @both
    def test_everything_of_a_checkpoint_has_a_place_but_what_nobody_reads(self, name):
        shapes = {key: shape for key, shape in golden.published_shapes(name).items() if key[:2] != "d_"}
        theirs = {f"module.{key}": torch.zeros(shape) for key, shape in shapes.items()}
        network = golden.COTRAINING[name](subsets=[T1C_FLAIR])
        state = import_cotraining(theirs, network)
        own = {f"full.{key}": value.shape for key, value in network.full.state_dict().items()}
        assert {key: value.shape for key, value in state.items()} == own
        parts = {key.split(".")[1] for key in theirs}
        assert parts - {"unet"} == ({"vae_branch", "VID_branch"} if name == "acn" else set())

    def test_modalities_and_classes_are_brought_into_our_order(self):
        subset, conv = (1, 2, 3), "unet.encoder.0.0.weight"
        acn, smunet = ACN(subsets=[subset]), SMUNet(subsets=[subset])
        theirs = golden.path_state("acn", "full")
        state = import_cotraining(theirs, acn)
        assert torch.equal(state[f"full.{conv}"], theirs["unet.conv1a.weight"][:, [0, 3, 1, 2]])  # t1, t2, flair, t1ce
        background, ncr, ed, et = state["full.unet.head.bias"]
        assert torch.equal(torch.stack([ed, ncr, et, background]), theirs["unet.up1conv.bias"])
        theirs = golden.path_state("smunet", "full")
        state = import_cotraining(theirs, smunet)
        assert torch.equal(state[f"full.{conv}"], theirs["unet.conv1a.weight"][:, [1, 2, 3, 0]])  # flair, t1, t1ce, t2
        theirs = golden.path_state("smunet", "missing", channels=3)
        state = import_cotraining(theirs, smunet, subset)
        weight = state[f"missing.networks.1_2_3.{conv}"]
        assert torch.equal(weight, theirs["unet.conv1a.weight"][:, [1, 2, 0]])  # flair, t1ce, t2

    def test_other_checkpoints_are_refused(self):
        acn, smunet = small("acn", subsets=[(0,)]), SMUNet(subsets=[(0,)])
        theirs = golden.path_state("acn", "full")
        with pytest.raises(ValueError, match=r"missing \['unet.convc.weight.*0 are unexpected"):
            import_cotraining(theirs, smunet)
        with pytest.raises(ValueError, match=r"4 are unexpected \['unet\.convc\.weight"):
            import_cotraining(golden.path_state("smunet", "full"), ACN(subsets=[(0,)]))
        with pytest.raises(ValueError, match=r"another shape \['unet.conv1a.weight \(16, 4, 3, 3, 3\) in the file"):
            import_cotraining(theirs, acn)
        with pytest.raises(ValueError, match=r"path for channels \[0\].*1 have another shape \['unet.conv1a.weight"):
            import_cotraining(theirs, ACN(subsets=[(0,)]), (0,))
        with pytest.raises(ValueError, match=r"weights made by this software, which need no import"):
            import_cotraining(acn.state_dict(), acn)
        with pytest.raises(ValueError, match=r"No missing path for channels \[1\]; expected one of \[\(0,\)\]"):
            import_cotraining(theirs, acn, (1,))
        with pytest.raises(ValueError, match="Linear: expected ACN or SMUNet"):
            import_cotraining(theirs, torch.nn.Linear(1, 1))

    def test_a_branch_that_a_missing_path_needs_may_not_lack(self):
        theirs = {k: v for k, v in golden.path_state("acn", "mono", 1).items() if not k.startswith("VID_branch")}
        with pytest.raises(ValueError, match=r"4 are missing \['VID_branch\.log_scale"):
            import_cotraining(theirs, ACN(subsets=[(0,)]), (0,))


class TestFeatureEncoder:
    @pytest.mark.parametrize(("kind", "channels"), [("shared", 4), ("separate", 1)])
    def test_paths_take_the_encoded_modalities(self, kind, channels):
        network, x = small("acn", feature_encoder=kind), image()
        assert network.full.unet.encoder[0][0].in_channels == 4 * channels
        assert network.missing.network_for((0, 2)).unet.encoder[0][0].in_channels == 2 * channels
        with torch.no_grad():
            z = network.feature_encoder(x, row(0, 1, 2, 3))
            assert torch.equal(network(x), network.full(z.flatten(1, 2)))
            expected = network.missing.network_for((0, 2))(torch.cat([z[:, 0], z[:, 2]], dim=1))
            torch.testing.assert_close(network(drop(x, row(0, 2))), expected)

    @pytest.mark.parametrize("kind", [None, "shared"])
    def test_bottlenecks_are_of_one_modality_by_itself(self, kind):
        network, x = small("acn", feature_encoder=kind), image(2)
        present = torch.cat([row(0, 1, 3), row(1)])
        found = network.bottlenecks(drop(x, present))
        assert (found.shape, found[~present].abs().max()) == ((2, 4, 64, 2, 2, 2), 0)
        with torch.no_grad():
            z = network.feature_encoder(x, row(0, 1, 2, 3).expand(2, -1))
            alone = torch.zeros_like(z)
            alone[:, 1] = z[:, 1]
            expected = network.full.unet.encode(alone.flatten(1, 2))[0][3]
        torch.testing.assert_close(found[:, 1], expected)
        found.square().mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in network.full.unet.encoder.parameters())
        assert all(parameter.grad is None for parameter in network.full.unet.up4.parameters())
