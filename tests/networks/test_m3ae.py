import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks import eval_mode, train_mode
from networks import golden

from common.engines.inferers import SubstituteInferer
from common.modalities import subsets
from common.networks import M3AE
from common.papers.m3ae import PretrainingLoss, Reconstruction
from common.transforms import ScaleBrainIntensityd, crop_at
from mmb.authors.m3ae_keys import import_m3ae

GOLDEN = golden.arrays("m3ae")
MISSING = {"full": [], "miss_t1c_t2": [1, 2], "only_flair": [0, 1, 2]}
IMAGE = golden.transpose(golden.draw(golden.M3AE_SEED, (1, 4, 32, 32, 32)))


def substituted(network, missing, image=IMAGE, start=golden.START):
    present = torch.tensor([[m not in missing for m in range(4)]])
    content = crop_at(network.x_sub, list(image.shape[2:]), start, [False] * 3)
    return torch.where(present[:, :, None, None, None], image, content)


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("situation", MISSING)
def test_network_gives_the_authors_numbers(width, situation):
    network = golden.imported_m3ae(width)
    image = substituted(network, MISSING[situation])
    errors = {}
    if MISSING[situation]:
        errors["input"] = golden.m3ae_error(image, f"w{width}/eval/{situation}/input")
    with eval_mode(network), torch.no_grad():
        errors["logits"] = golden.m3ae_error(network.unet(image), f"w{width}/eval/{situation}/logits", regions=True)
    with train_mode(network), torch.no_grad():
        output = network.unet(image)
    errors["training logits"] = golden.m3ae_error(output.logits, f"w{width}/eval/{situation}/logits", regions=True)
    for level, name in enumerate(["ds_quarter_up", "ds_half_up"]):
        errors[name] = golden.m3ae_error(output.deep[level], f"w{width}/train/{situation}/{name}", regions=True)
    errors["bottleneck"] = golden.m3ae_error(output.bottleneck, f"w{width}/train/{situation}/style2")
    assert max(errors.values()) <= golden.TOLERANCE, errors


def test_deep_logits_at_their_own_size_are_those_before_they_are_upsampled():
    torch.manual_seed(0)
    network, image = M3AE(4, 3, 8, grid=(16, 16, 16)), torch.rand(1, 4, 16, 16, 16)
    upsampled = network.unet(image).deep
    network.unet.upsample_deep = False
    own = network.unet(image).deep
    assert [tuple(logits.shape) for logits in own] == [(1, 3, 4, 4, 4), (1, 3, 8, 8, 8)]
    settings = {"size": (16, 16, 16), "mode": "trilinear", "align_corners": True}
    for whole, logits in zip(upsampled, own, strict=True):
        torch.testing.assert_close(torch.nn.functional.interpolate(logits, **settings), whole)
    assert not M3AE(upsample_deep=False, grid=(16, 16, 16)).unet.upsample_deep


def test_pretraining_gives_the_authors_numbers_and_gradients():
    """In double precision: rounding differs between processors and moves activations past the kink of ReLUs."""
    network = golden.imported_m3ae(16, outputs=4).double()
    image = golden.transpose(golden.draw(golden.M3AE_SEED + 2, (1, 4, 32, 32, 32))).double()
    visible = golden.transpose(GOLDEN["pretrain/token_visible"][None]).bool()
    for axis in (2, 3, 4):
        visible = visible.repeat_interleave(16, dim=axis)
    content = crop_at(network.x_sub, [32, 32, 32], golden.START, [False] * 3)
    output = network.unet(torch.where(visible, image, content))
    loss = PretrainingLoss(gamma=0.005, regulariser="norm")
    total = loss(Reconstruction(output.logits, image, torch.ones(1, 4, dtype=torch.bool), network.x_sub))
    total.backward()
    assert golden.m3ae_error(output.logits, "pretrain/reconstruction") <= golden.TOLERANCE
    assert loss.terms["mse"].item() == pytest.approx(float(GOLDEN["pretrain/mse"]), rel=1e-5)
    assert loss.terms["regulariser"].item() == pytest.approx(float(GOLDEN["pretrain/reg"]), rel=1e-5)
    assert total.item() == pytest.approx(float(GOLDEN["pretrain/loss"]), rel=1e-5)
    assert golden.m3ae_error(network.x_sub.grad, "pretrain/grad_limage") <= golden.TOLERANCE
    assert golden.m3ae_error(network.unet.encoder[0][0].weight.grad, "pretrain/grad_conv1a.weight") <= golden.TOLERANCE


@pytest.mark.parametrize(("situation", "missing"), [("full", []), ("miss_flair", [3]), ("only_t2", [0, 1, 3])])
def test_windowed_inference_gives_the_authors_numbers(situation, missing):
    pipeline = golden.arrays("m3ae_pipeline")
    raw = MetaTensor(golden.transpose(pipeline["raw"].astype(np.float32)[None])[0])
    scaled = ScaleBrainIntensityd("image")({"image": raw})["image"].as_tensor()
    (z0, y0, x0), (z1, y1, x1) = pipeline["box"]
    image = scaled[None, :, x0:x1, y0:y1, z0:z1].clone()
    image[:, missing] = float("nan")
    network = golden.imported_m3ae(8).eval()
    # the released code looks x_sub up relative to the box: the crop is said to lie at the grid's origin
    meta = {"original_affine": torch.eye(4)[None], "spatial_shape": torch.tensor([golden.GRID])}
    image = MetaTensor(image, affine=torch.eye(4)[None], meta=meta)
    with torch.no_grad():
        logits = SubstituteInferer((32, 32, 32), overlap=0.5, mode="constant")(image, network)
    key = f"window/{situation}/logits"
    found = golden.transpose(logits).flip(1)
    assert golden.relative_error(found, pipeline[key], int(pipeline[f"{key}/stride"])) <= golden.TOLERANCE


def test_key_map_covers_the_published_checkpoint_exactly():
    with torch.device("meta"):
        ours = M3AE(width=16, grid=(240, 240, 155)).state_dict()
    theirs = {key: torch.empty(shape, device="meta") for key, shape in golden.published_shapes("m3ae").items()}
    mapped = import_m3ae(theirs)
    assert {key: value.shape for key, value in mapped.items()} == {key: value.shape for key, value in ours.items()}


def test_import_turns_x_sub_to_ras_and_regions_to_ours():
    state = golden.m3ae_state(8)
    ours = import_m3ae(state)
    z, y, x = 5, 11, 17
    _, _, size_x, size_y, _ = ours["x_sub"].shape
    assert ours["x_sub"][0, 2, size_x - 1 - x, size_y - 1 - y, z] == state["limage"][0, 2, z, y, x]
    assert torch.equal(ours["unet.head.bias"], state["unet.up1conv.bias"][[2, 1, 0]])
    with pytest.raises(ValueError, match=r"unet\.nothing.*expected limage"):
        import_m3ae({"unet.nothing.weight": torch.zeros(1)})


def test_import_of_a_part_is_refused():
    state = golden.m3ae_state(8)
    half = dict(list(state.items())[: len(state) // 2])
    with pytest.raises(ValueError, match=r"Not a complete checkpoint .* M3AE: 0 tensors.* no usable limage"):
        import_m3ae({})
    with pytest.raises(ValueError, match=r"no usable unet\.up1conv"):
        import_m3ae(half)
    for wrong in (state["limage"][0], state["limage"][..., :0], torch.tensor(0.0)):
        with pytest.raises(ValueError, match=r"117 tensors, no usable limage"):
            import_m3ae(state | {"limage": wrong})
    with pytest.raises(ValueError, match=r"1 are missing \['unet\.up2\.block"):
        import_m3ae({key: value for key, value in state.items() if key != "unet.up2convb.conv1.weight"})
    state["unet.up2convb.conv1.weight"] = state["unet.up2convb.conv1.weight"][:-1]
    with pytest.raises(ValueError, match=r"1 have another shape \['unet\.up2\.block"):
        import_m3ae(state)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return M3AE(4, 3, width=8, grid=(24, 20, 16)).eval()


@pytest.mark.parametrize("subset", subsets(("t1", "t1c", "t2", "flair")), ids="+".join)
def test_every_subset_ignores_what_is_missing(small, subset):
    image = torch.rand(1, 4, 16, 16, 16)
    keep = torch.tensor([[m in subset for m in ("t1", "t1c", "t2", "flair")]])
    with_nan = torch.where(keep[:, :, None, None, None], image, float("nan"))
    with torch.no_grad():
        logits = small(with_nan)
        assert torch.isfinite(logits).all()
        assert torch.equal(logits, small(image, keep))
        assert torch.equal(logits, small(with_nan, torch.ones(1, 4, dtype=torch.bool)))
        filled = torch.where(keep[:, :, None, None, None], image, small.x_sub[:, :, 4:20, 2:18, :])
        assert torch.equal(logits, small.unet(filled))


def test_scripted_network_equals_eager(small, tmp_path):
    torch.jit.save(torch.jit.script(small), tmp_path / "m3ae.ts")
    scripted = torch.jit.load(tmp_path / "m3ae.ts")
    image = torch.rand(1, 4, 16, 16, 16)
    image[0, 2] = float("nan")
    with torch.no_grad():
        assert torch.allclose(scripted(image), small(image), atol=1e-5)
