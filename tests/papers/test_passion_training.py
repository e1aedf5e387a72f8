"""PASSION: which modalities are encoded, fused and segmented alone; the authors' numbers; the balance over epochs."""

import numpy as np
import pandas as pd
import pytest
import torch
from bundles.small_unet import SmallUNet
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.networks import eval_mode
from networks.golden import arrays, fusion_golden, fusion_image, fusion_labels, ours, with_fusion_weights, without

from common.engines.handlers import EpochLosses
from common.losses.dice_ce import dice_ce, probabilities
from common.losses.fusion import FusionLoss
from common.modalities import drop
from common.networks import M2FTrans, MMFormer
from common.networks.fusion import Decoded, FusionOutput
from common.networks.rfnet import RFNet
from common.papers.passion import (
    PassionLoss,
    PassionOutput,
    PreferenceBalancer,
    SelfDistillation,
    pixel_distillation,
    prototype_nll,
    relative_preference,
    similarity,
    updated_beta,
)

CROP = (8, 8, 8)
PRESENT = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, True, True]])


def network():
    torch.manual_seed(0)
    return SmallUNet(4, 4, 2, CROP)


def image(present=PRESENT):
    torch.manual_seed(1)
    return drop(torch.randn(len(present), 4, *CROP), present)


def fused_subsets(network):
    """Record the subset of each call of decode."""
    seen, decode = [], network.decode
    network.decode = lambda features, present: seen.append(present.clone()) or decode(features, present)
    return seen


def encoded(network):
    seen, encode = [], network.encode
    network.encode = lambda image, present=None: seen.append(present.clone()) or encode(image, present)
    return seen


class TestSelfDistillation:
    @pytest.mark.parametrize("distil", [True, False])
    def test_teacher_and_students_are_the_network_on_these_modalities(self, distil):
        net, x = network(), image()
        output = SelfDistillation(net, distil=distil)(x)
        assert torch.equal(output.present, PRESENT)
        expected = [net(x[b : b + 1], PRESENT[b : b + 1]).fused.logits for b in range(3)]
        torch.testing.assert_close(output.teacher.logits, torch.cat(expected))
        pairs = PRESENT.nonzero().tolist()
        assert len(output.students.logits) == len(output.separate) == len(pairs) == 8
        for row, (b, m) in enumerate(pairs):
            alone = torch.zeros(1, 4, dtype=torch.bool)
            alone[0, m] = True
            expected = net(x[b : b + 1], alone).fused
            torch.testing.assert_close(output.students.logits[row : row + 1], expected.logits)
            torch.testing.assert_close(output.students.deep[0][row : row + 1], expected.deep[0])
            torch.testing.assert_close(output.students.features[row : row + 1], expected.features)

    def test_students_get_a_gradient_only_where_they_are_taught(self):
        assert SelfDistillation(network())(image()).students.logits.requires_grad
        output = SelfDistillation(network(), distil=False)(image())
        assert not output.students.logits.requires_grad
        assert output.teacher.logits.requires_grad

    def test_dropped_modalities_are_neither_encoded_nor_taught(self):
        net, x = network(), image()
        seen = encoded(net)
        drawn = [SelfDistillation(net, drop_modalities=True)(x).present for _ in range(30)]
        for present, used in zip(drawn, seen, strict=True):
            assert torch.equal(present, used)
            assert not bool((present & ~PRESENT).any())
            assert bool(present.any(dim=1).all())
        assert len({tuple(present[2].tolist()) for present in drawn}) > 5

    def test_perfect_data_is_encoded_whole_and_fused_in_part(self):
        net, full = network(), torch.ones(2, 4, dtype=torch.bool)
        seen, fused = encoded(net), fused_subsets(net)
        for _ in range(10):
            output = SelfDistillation(net, perfect_data=True)(image(full))
            assert torch.equal(output.present, full)
            assert len(output.students.logits) == 8
        assert all(torch.equal(present, full) for present in seen)
        assert not all(torch.equal(present[:2], full) for present in fused)

    @pytest.mark.parametrize("backbone", [MMFormer, M2FTrans])
    def test_what_only_the_separate_decoder_reads_is_not_copied(self, backbone):
        net = backbone(4, 4, 2, (32, 32, 32), mlp_dim=8, heads=2, **({"embed_dim": 8} if backbone is MMFormer else {}))
        full = torch.ones(1, 4, dtype=torch.bool)
        features = net.encode(torch.randn(1, 4, 32, 32, 32), full)
        few = net.fused_features(features)
        assert len(few) == len(features) - 5
        with eval_mode(net), torch.no_grad():
            assert torch.equal(net.decode(features, full), net.decode(few, full))


GOLDEN = arrays("passion_losses")
PREFERENCE = arrays("passion_preference")
MODALITIES = ("t1", "t1c", "t2", "flair")
SUBJECTS, COUNTS = 10, (8, 6, 2, 4)
OFF = {"pixel": False, "proto": False, "delta": False, "beta": False}


def given(key):
    return torch.from_numpy(GOLDEN[key])


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def passion(**changes):
    return PassionLoss(**{"modalities": MODALITIES, "counts": COUNTS, "subjects": SUBJECTS, **changes})


def output(present=((1, 1, 0, 1), (0, 1, 1, 0)), size=(4, 4), classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def decoded(n):
        def draw(channels, *shape):
            return torch.randn(n, channels, *shape, generator=generator).requires_grad_()

        half, quarter = ([s // by for s in size] for by in (2, 4))
        return Decoded(draw(classes, *size), [draw(classes, *half), draw(classes, *quarter)], draw(5, *size))

    present = torch.tensor(present, dtype=torch.bool)
    rows = int(present.sum())
    separate = torch.randn(rows, classes, *size, generator=generator).requires_grad_()
    return PassionOutput(decoded(len(present)), decoded(rows), separate, present)


def label(samples=2, size=(4, 4), classes=3):
    return torch.randint(classes, (samples, 1, *size), generator=torch.Generator().manual_seed(1))


def terms(loss, out=None, target=None):
    """Return the total and the terms of a loss for a batch."""
    total = loss(output() if out is None else out, label() if target is None else target)
    return total.item(), {name: value.item() for name, value in loss.terms.items()}


def masks(target, classes):
    return (target.flatten() == torch.tensor(classes)[:, None]).float()


def everywhere(*size):
    return torch.ones(1, 1, *size, dtype=torch.bool)


@pytest.mark.parametrize("kind", ["all", "absent"])
def test_distillation_gives_the_authors_numbers(kind):
    for temperature in (1, 4):
        full = pixel_distillation(given("student_logits"), given("teacher_logits"), everywhere(8, 8, 8), temperature)
        logits = given("student_logits_half"), given("teacher_logits_half")
        half = pixel_distillation(*logits, everywhere(8, 8, 8), temperature)
        close(full[:, None], GOLDEN[f"{kind}/kl_bs_T{temperature}"])
        close(full.mean(), GOLDEN[f"{kind}/kl_T{temperature}"])
        close(half[:, None], GOLDEN[f"{kind}/kl_bs_up2_T{temperature}"])
    target, classes = given(f"{kind}/labels"), [0, 1, 2, 3] if kind == "all" else [0, 1, 2]
    for b in range(2):
        inside = masks(target[b].long(), classes)
        student, teacher = (given(f"{who}_features")[[b]].flatten(2) for who in ("student", "teacher"))
        gap = similarity(student, inside) - similarity(teacher, inside)
        close(gap.square().mean(), GOLDEN[f"{kind}/proto_bs"][b, 0])
        close(gap.abs().mean(), GOLDEN[f"{kind}/proto_dist_bs"][b, 0])


@pytest.mark.parametrize("kind", ["all", "absent"])
def test_pmr_gives_the_authors_numbers(kind):
    target, classes = given(f"{kind}/labels").long(), [0, 1, 2, 3] if kind == "all" else [0, 1, 2]
    features, counted = given("student_features").flatten(2), everywhere(target[0].numel()).flatten()
    each = [prototype_nll(features[[b]], masks(target[b], classes), counted) for b in range(2)]
    close(torch.cat(each).mean(), GOLDEN[f"{kind}/pmr_nll"])


def test_the_whole_loss_gives_the_authors_numbers():
    arrays, meta = fusion_golden("rfnet_small")
    network = with_fusion_weights("rfnet", RFNet(width=4, crop=(32, 32, 32))).train()
    image = without(fusion_image(meta["batch_input_seed"], 2, 32), ours(meta["train_mask"]))
    loss = passion()
    loss.v.copy_(ours([meta["modal_weight"]])[0])
    loss.beta.copy_(ours([meta["beta"]])[0])
    with torch.no_grad():
        total, found = terms(loss, SelfDistillation(network)(image), fusion_labels(meta["label_seed"], 2, 32))
    fuse, separate, deep, pixel, prototype, expected = arrays["train/terms"].tolist()
    authors = {"fuse": fuse, "separate": separate, "deep": deep, "pixel": pixel, "prototype": prototype}
    assert found == pytest.approx(authors, rel=1e-5)
    assert total == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(loss.sums, ours(arrays["train/dist_bs"]).sum(dim=0), rtol=1e-5)
    assert loss.counts.tolist() == ours(meta["train_mask"]).sum(dim=0).tolist()


def test_preference_of_a_batch_gives_the_authors_numbers_and_those_by_hand():
    distance, present = (torch.from_numpy(PREFERENCE[f"iter_{key}"]) for key in ("dist", "mask"))
    preference = relative_preference(distance, present)
    close(-preference, PREFERENCE["iter_terms"])
    close(-preference.sum(dim=0), PREFERENCE["iter_rp"])
    assert passion()._delta(preference).tolist() == PREFERENCE["iter_delta"].tolist()
    distance = torch.tensor([[0.1, 0.3, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.0]])
    present = torch.tensor([[True, True, False], [False, True, False], [True, True, True]])
    expected = [[0.5, -0.5, 0], [0, 0, 0], [0, 0, 0]]  # a subject with one modality, one where nothing differs
    assert relative_preference(distance, present).tolist() == [pytest.approx(row) for row in expected]


def test_preference_and_beta_of_six_epochs_give_the_authors_numbers():
    loss = passion()
    for i, epoch in enumerate(PREFERENCE["epoch_index"].tolist()):
        loss.sums.copy_(torch.from_numpy(PREFERENCE["epoch_dist"][i]) * torch.tensor(COUNTS))
        loss.counts.copy_(torch.tensor(COUNTS))
        values = loss.end_epoch(epoch)
        close([values[f"rp_{name}"] for name in MODALITIES], PREFERENCE["rp_epoch"][i])
        close([values[f"beta_{name}"] for name in MODALITIES], PREFERENCE["beta_after"][i])
        close(loss.beta, PREFERENCE["beta_after"][i])
        assert loss.sums.tolist() == loss.counts.tolist() == [0] * 4
    before, distance = (torch.from_numpy(PREFERENCE[f"clamp_{key}"]) for key in ("beta_before", "dist"))
    preference = relative_preference(distance[None], torch.ones(1, 4, dtype=torch.bool))[0]
    close(updated_beta(before, preference, float(PREFERENCE["clamp_eta"])), PREFERENCE["clamp_beta_after"])


def test_a_modality_that_no_subject_has_takes_no_part():
    """As at a hospital without it: the loss is that of the other modalities, and its beta stays theirs."""
    out, target = output(((1, 1, 0, 1), (0, 1, 0, 1))), label()
    loss = passion(counts=(*COUNTS[:2], 0, COUNTS[3]))
    assert terms(loss, out, target) == terms(passion(), out, target)
    loss.end_epoch(0)
    assert loss.beta.isfinite().all()


def test_without_the_four_switches_the_loss_is_the_baselines():
    assert terms(passion(**OFF)) == terms(passion(training="baseline")) == terms(passion(training="moddrop"))
    # of one sample with all modalities it is the backbones' own loss, but for the weights of the auxiliary heads
    out, target = output(((1, 1, 1, 1),)), label(1)
    plain = FusionLoss()
    plain(FusionOutput(out.teacher, out.separate, out.present), target)
    expected = {name: value.item() for name, value in plain.terms.items()}
    coarse = dice_ce(probabilities(out.teacher.deep[1], (4, 4)), target).item()
    expected["deep"] = 0.5 * expected["deep"] - 0.25 * coarse
    assert terms(passion(training="baseline"), out, target)[1] == pytest.approx(expected, rel=1e-5)


def test_each_switch_brings_its_part():
    plain = terms(passion(**OFF))[1]
    assert set(plain) == {"fuse", "deep", "separate"}
    assert set(terms(passion(**{**OFF, "pixel": True}))[1]) - set(plain) == {"pixel"}
    assert set(terms(passion(**{**OFF, "proto": True}))[1]) - set(plain) == {"prototype"}
    assert terms(passion(**{**OFF, "delta": True}))[1]["separate"] < plain["separate"]  # only neglected modalities
    assert terms(passion(**{**OFF, "beta": True}))[1]["separate"] > plain["separate"]  # rare modalities weigh more


@pytest.mark.parametrize("changes", [OFF, {"training": "baseline"}, {"training": "pmr"}, {"proto": False}])
def test_preference_is_measured_in_every_run_and_beta_stays_unless_it_acts(changes):
    loss, full = passion(**changes), passion()
    terms(loss)
    terms(full)
    assert torch.allclose(loss.sums, full.sums)
    before, values, expected = loss.beta.clone(), loss.end_epoch(0), full.end_epoch(0)
    preference = [values[f"rp_{name}"] for name in MODALITIES]
    assert preference == pytest.approx([expected[f"rp_{name}"] for name in MODALITIES])
    assert any(preference)
    assert torch.equal(loss.beta, before) == (changes != {"proto": False})


def test_pmr_adds_its_prototype_loss():
    (plain, _), (total, found) = terms(passion(training="baseline")), terms(passion(training="pmr", lambda_pmr=0.3))
    assert total == pytest.approx(plain + 0.3 * found["pmr"], rel=1e-6)
    out, target = output(), label()
    samples, counted = out.present.nonzero()[:, 0].tolist(), everywhere(16).flatten()
    features = out.students.features.flatten(2)
    each = [prototype_nll(features[[row]], masks(target[b], [0, 1, 2]), counted) for row, b in enumerate(samples)]
    assert found["pmr"] == pytest.approx(sum(each).item(), rel=1e-5)


def test_the_temperature_is_of_the_pixel_wise_term_alone():
    _, released = terms(passion())
    _, found = terms(passion(temperature=2.0))
    assert {name for name in released if found[name] != pytest.approx(released[name], rel=1e-4)} == {"pixel"}


def test_with_complete_subjects_perfect_data_changes_nothing():
    complete, counts = output(((1, 1, 1, 1),) * 2), (SUBJECTS,) * 4
    assert terms(passion(counts=counts, perfect_data=True), complete) == terms(passion(counts=counts), complete)


def test_prototypes_are_of_classes_that_all_samples_show():
    target = label()
    target[1] = target[1].clamp_max(1)  # no class 2 in the second crop
    out, loss = output(), passion()
    terms(loss, out, target)
    distance = torch.zeros(2, 4)
    for row, (b, m) in enumerate(out.present.nonzero().tolist()):
        inside = masks(target[b], [0, 1])
        gap = similarity(out.students.features[[row]].flatten(2), inside)
        distance[b, m] = (gap - similarity(out.teacher.features[[b]].flatten(2), inside)).abs().mean().item()
    np.testing.assert_allclose(loss.sums, distance.sum(dim=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("epoch", "changes", "sums", "expected"),
    [
        *(
            (epoch, {}, [1.0, 3, 2, 2], [1 - 0.5 * rate, 1 + 0.5 * rate, 1, 1])
            for epoch, rate in ((0, 0.015), (99, 0.015), (100, 0.0225), (200, 0.03375))
        ),
        (
            0,
            {"growth_factor": 2.0, "gamma": 0.1, "beta_range": (0.95, 1.05)},
            [1, 3, 2.2, 1.8],
            [0.95, 1.05, 1.02, 0.98],
        ),
    ],
)
def test_rate_and_range_of_the_updates_of_beta(epoch, changes, sums, expected):
    loss, expected = passion(**changes), torch.tensor(expected)
    loss.sums.copy_(torch.tensor(sums))
    loss.counts.fill_(1)
    loss.end_epoch(epoch)
    assert torch.allclose(loss.beta, 2 * expected / expected.norm())


def test_a_modality_not_seen_in_an_epoch_has_no_preference():
    loss = passion()
    loss.sums.copy_(torch.tensor([0.1, 0.0, 0.3, 0.0]))
    loss.counts.copy_(torch.tensor([1.0, 0, 1, 0]))
    values = loss.end_epoch(0)
    assert [values[f"rp_{name}"] for name in MODALITIES] == pytest.approx([0.5, 0, -0.5, 0])
    assert set(passion().end_epoch(0).values()) == {0.0, 1.0}


def test_a_subject_with_one_modality_is_neither_preferred_nor_neglected():
    loss = passion()
    total, found = terms(loss, output(((0, 0, 1, 0),)), label(1))
    assert found["separate"] == found["prototype"] == 0
    assert found["pixel"] > 0
    assert loss.counts.tolist() == [0, 0, 1, 0]
    assert np.isfinite(total)


@pytest.mark.parametrize("changes", [{}, {"training": "pmr"}])
def test_no_class_shared_by_all_samples(changes):
    target, out, loss = torch.zeros(2, 1, 4, 4, dtype=torch.long), output(), passion(**changes)
    target[1] = 1
    loss(out, target).backward()
    assert loss.terms.get("prototype", loss.terms.get("pmr")) == 0
    assert loss.sums.tolist() == loss.counts.tolist() == [0] * 4  # nothing has been measured
    assert all(x.grad.isfinite().all() for x in (out.separate, out.teacher.logits))


def test_teachers_are_not_pulled_to_their_students():
    out, target = output(), label()
    passion()(out, target).backward()
    alone = output()
    passion(**OFF)(alone, target).backward()
    assert torch.equal(out.teacher.logits.grad, alone.teacher.logits.grad)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(out.teacher.deep, alone.teacher.deep, strict=True))
    assert out.teacher.features.grad is None
    for part in (out.students.logits, *out.students.deep):
        assert part.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    assert out.students.features.grad.abs().max() > 0


@pytest.mark.parametrize("changes", [{"training": "baseline"}, {"training": "moddrop"}, OFF])
def test_students_get_no_gradient_where_nothing_is_distilled(changes):
    out = output()
    passion(**changes)(out, label()).backward()
    assert out.students.features.grad is None
    assert out.students.logits.grad is None


def test_state_to_resume_from_is_plain_and_whole():
    loss, other = passion(), passion()
    out = output()
    meta = out._replace(separate=MetaTensor(out.separate))
    teacher, students = (
        decoded._replace(logits=MetaTensor(decoded.logits), features=MetaTensor(decoded.features))
        for decoded in (out.teacher, out.students)
    )
    total = loss(meta._replace(teacher=teacher, students=students), MetaTensor(label()))
    assert type(total) is torch.Tensor
    assert total.item() == passion()(out, label()).item()
    assert set(loss.state_dict()) == {"beta", "sums", "counts"}
    assert all(type(value) is torch.Tensor for value in (*loss.state_dict().values(), *loss.terms.values()))
    other.load_state_dict(loss.state_dict())
    assert other.end_epoch(3) == loss.end_epoch(3)


def test_batches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="modalities t1, t1c, t2, flair: the network's output has 3 modalities"):
        passion()(output(((1, 1, 1), (1, 1, 1))), label())
    with pytest.raises(ValueError, match="perfect_data: a sample lacks a modality"):
        passion(perfect_data=True, counts=(SUBJECTS,) * 4)(output(), label())


ALL = torch.ones(2, 4, dtype=torch.bool)
DISTANCES = torch.tensor([[0.1, 0.2, 0.3, 0.2], [0.3, 0.2, 0.3, 0.4]])


def run(loss, folder, epochs, start=0):
    """Run epochs of two batches with given distances; return the metrics after each epoch."""
    seen = []

    def step(engine, scale):
        distance = scale * DISTANCES * torch.tensor([1.0, engine.state.epoch, 1, 1])
        loss.sums += distance.sum(dim=0)  # as its forward pass does
        loss.counts += ALL.sum(dim=0)
        return {"loss": torch.tensor(0.0)}

    engine = Engine(step)
    engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "epoch", start))
    EpochLosses(loss).attach(engine)
    PreferenceBalancer(loss, str(folder)).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: seen.append(dict(e.state.metrics)))
    engine.run([1.0, 2.0], max_epochs=epochs)
    return seen


def test_each_epoch_publishes_its_preference_and_the_next_ones_beta(tmp_path):
    seen = run(passion(), tmp_path, 2)
    beta = torch.ones(4)
    for epoch, metrics in enumerate(seen, 1):
        mean = 1.5 * DISTANCES.mean(dim=0) * torch.tensor([1.0, epoch, 1, 1])
        preference = 1 - mean / mean.mean()
        beta = updated_beta(beta, preference, 0.015)
        assert [metrics[f"rp_{name}"] for name in MODALITIES] == pytest.approx(preference.tolist(), abs=1e-6)
        assert [metrics[f"beta_{name}"] for name in MODALITIES] == pytest.approx(beta.tolist())


def test_beta_by_hand_where_the_rate_grows_after_two_epochs(tmp_path):
    """The authors count from 0, so that the third epoch is the first of the greater rate."""
    seen = run(passion(gamma=0.1, growth=(0, 2), growth_factor=2.0), tmp_path, 3)
    # mean distances 0.2, 0.2 times the epoch, 0.3 and 0.3, and what each lacks to their mean, as a share of it
    preferences = [0.2, 0.2, -0.2, -0.2], [1 / 3, -1 / 3, 0, 0], [3 / 7, -5 / 7, 1 / 7, 1 / 7]
    beta = np.ones(4)
    for metrics, rate, preference in zip(seen, (0.2, 0.2, 0.4), preferences, strict=True):
        assert [metrics[f"rp_{name}"] for name in MODALITIES] == pytest.approx(preference, abs=1e-6)
        beta = beta - rate * np.array(preference)
        beta = 2 * beta / np.sqrt((beta**2).sum())
        assert [metrics[f"beta_{name}"] for name in MODALITIES] == pytest.approx(beta.tolist(), rel=1e-5)


def test_history_is_a_table(tmp_path):
    seen = run(passion(), tmp_path / "new", 3)
    table = pd.read_csv(tmp_path / "new" / "preference.csv")
    assert list(table.columns) == ["epoch", "modality", "relative_preference", "beta"]
    assert table["epoch"].tolist() == [epoch for epoch in (1, 2, 3) for _ in MODALITIES]
    assert table["modality"].tolist() == list(MODALITIES) * 3
    assert table["relative_preference"][5] == pytest.approx(seen[1]["rp_t1c"])
    assert table["beta"][5] == pytest.approx(seen[1]["beta_t1c"])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["preference.csv"]
    run(passion(), tmp_path, 3)
    run(passion(), tmp_path, 1)
    assert pd.read_csv(tmp_path / "preference.csv")["epoch"].tolist() == [1] * 4


def test_a_resumed_run_continues_the_history(tmp_path):
    whole, part, state = passion(), passion(), passion()
    run(whole, tmp_path / "whole", 4)
    run(part, tmp_path / "part", 2)
    state.load_state_dict(part.state_dict())  # the checkpoint
    run(part, tmp_path / "part", 3, start=2)  # killed after this epoch, before its checkpoint
    run(state, tmp_path / "part", 4, start=2)
    tables = [pd.read_csv(tmp_path / name / "preference.csv") for name in ("whole", "part")]
    pd.testing.assert_frame_equal(*tables)


def test_only_the_first_rank_writes_and_all_update_from_the_sum(tmp_path, monkeypatch):
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("ignite.distributed.all_reduce", lambda x: x + torch.tensor([2.0, 0, 0, 0]))
    loss = passion()
    loss.sums.copy_(torch.tensor([1.0, 1, 1, 1]))
    loss.counts.copy_(torch.tensor([1.0, 1, 1, 1]))
    engine = Engine(lambda e, b: None)
    PreferenceBalancer(loss, str(tmp_path)).attach(engine)
    engine.run([0], max_epochs=1)
    # sums and counts are both 3, 1, 1, 1: on average all are at the same distance
    assert [engine.state.metrics[f"rp_{name}"] for name in MODALITIES] == [0.0] * 4
    assert list(tmp_path.iterdir()) == []
