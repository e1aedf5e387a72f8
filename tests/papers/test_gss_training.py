import math
from itertools import product

import numpy as np
import pytest
import torch
from draws import follow
from networks.golden import arrays
from papers.test_passion_training import PRESENT, encoded, fused_subsets, image, network

from common.losses.fusion import FusionLoss
from common.networks.fusion import Decoded, FusionOutput
from common.papers.gss import (
    GSSLoss,
    RandomSubsetFusion,
    double_leader_vote,
    group_vote,
    kd_loss,
    normalised_votes,
    random_mask,
    single_leader_vote,
)

GOLDEN = arrays("gss_vote")
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
MODALITIES = ("t1", "t1c", "t2", "flair")
CLASSES = ("BG", "NCR", "ED", "ET")
LEADERS = {"BG": ["flair"], "NCR": ["t1c"], "ED": ["flair", "t2"], "ET": ["t1c"]}
AUTHORS = {"t1": "t1", "t1c": "t1ce", "t2": "t2", "flair": "flair"}


def golden_students(setting):
    """Return P and log Q ``(B, M, K, N)`` in our order, and T_L, T_M and rho."""
    tau, *thresholds = GOLDEN[f"{setting}/hyper"].tolist()
    logits = torch.stack([torch.from_numpy(GOLDEN[f"logits_{AUTHORS[name]}"]) for name in MODALITIES], dim=1).flatten(3)
    return logits.softmax(dim=2), (logits / tau).log_softmax(dim=2), thresholds


def loss(**changes):
    return GSSLoss(**{"modalities": MODALITIES, "classes": CLASSES, "leaders": LEADERS, "alpha": 0, **changes})


def output(seed=0, scale=3.0, size=(4, 4)):
    generator = torch.Generator().manual_seed(seed)

    def draw(n):
        return (scale * torch.randn(n, 4, *size, generator=generator)).requires_grad_()

    return FusionOutput(Decoded(draw(2), [draw(2)], None), draw(8), torch.ones(2, 4, dtype=torch.bool))


def label(size=(4, 4)):
    return torch.randint(4, (2, 1, *size), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("setting", ["a", "b"])
@pytest.mark.parametrize(("rule", "key"), [("released", "code"), ("paper", "paper")])
def test_votes_give_the_golden_values(setting, rule, key):
    sure, log_students, thresholds = golden_students(setting)
    votes = group_vote(sure, log_students.exp(), loss().leaders, *thresholds, rule)
    shape = GOLDEN[f"{setting}/{key}_vote"].shape
    np.testing.assert_allclose(votes.reshape(shape), GOLDEN[f"{setting}/{key}_vote"], **CLOSE)
    target = normalised_votes(votes).reshape(shape)
    np.testing.assert_allclose(target, GOLDEN[f"{setting}/{key}_soft_target"], **CLOSE)


@pytest.mark.parametrize("setting", ["a", "b"])
def test_released_distillation_gives_the_authors_numbers(setting):
    _, log_students, _ = golden_students(setting)
    target = torch.from_numpy(GOLDEN[f"{setting}/code_soft_target"]).flatten(2)[:, None]
    everything = torch.ones(2, 4, 512, dtype=torch.bool)
    for m, name in enumerate(MODALITIES):
        one = kd_loss(target, log_students[:, [m]], everything[:, [m]], "released").item()
        assert one == pytest.approx(GOLDEN[f"{setting}/soft_ce_{AUTHORS[name]}_no_mask"].item(), rel=1e-5)
    total = kd_loss(target, log_students, everything, "released").item()
    assert total == pytest.approx(GOLDEN[f"{setting}/soft_ce_sum_no_mask"].item(), rel=1e-5)
    kept = ~torch.from_numpy(GOLDEN[f"{setting}/mask_dropped_voxels"]).flatten(1)[:, None]
    masked = kd_loss(target, log_students[:, [3]], kept, "released").item()
    assert masked == pytest.approx(GOLDEN[f"{setting}/soft_ce_flair_masked"].item(), rel=1e-5)


def ballot(*columns):
    """Return ``(1, M, N)`` from one row per modality and one column per voxel."""
    return torch.tensor(columns).T[None]


def test_votes_of_leaders_by_hand():
    # the leader is sure; all members are; one member is not; the leader is exactly at its threshold
    sure = ballot([0.7, 0.9, 0.9, 0.9], [0.6, 0.8, 0.8, 0.8], [0.6, 0.8, 0.8, 0.75], [0.65, 0.8, 0.8, 0.8])
    votes = ballot([0.4, 0.5, 0.6, 0.7], [0.1, 0.5, 0.6, 0.7], [0.1, 0.5, 0.6, 0.7], [0.3, 0.2, 0.2, 0.2])
    assert single_leader_vote(sure, votes, 0.65, 0.75).tolist() == [pytest.approx([0.4, 0.6, 0.1, 0.2])]
    assert single_leader_vote(sure, votes, 0.65, 0.75, "released").tolist() == [pytest.approx([0.4, 0, 0.1, 0])]
    # both leaders are sure; the first; the second, whose vote is the smaller one; the members; nobody
    sure = ballot([0.7] * 4, [0.7, 0.2, 0.9, 0.9], [0.2, 0.7, 0.1, 0.1], [0.2, 0.2, 0.8, 0.8], [0.2, 0.2, 0.8, 0.1])
    votes = ballot([0.6, 0.4, 0, 0], [0.6, 0.4, 0, 0], [0.6, 0.4, 0, 0], [0.6, 0.4, 0.3, 0.1], [0.6, 0.4, 0.3, 0.1])
    paper = [0.6, 0.6 - 0.3 * 0.2, 0.6 - 0.3 * 0.2, 0.2, 0.1]
    assert double_leader_vote(sure, votes, 0.65, 0.75, 0.3).tolist() == [pytest.approx(paper)]
    released = [1.7 * 0.6 + 0.3 * 0.4, *paper[1:]]
    assert double_leader_vote(sure, votes, 0.65, 0.75, 0.3, "released").tolist() == [pytest.approx(released)]


def test_a_class_is_led_by_the_modalities_that_its_name_says():
    mapping = {"BG": ["flair"], "NCR": ["t1c"], "ED": ["t2", "flair"], "ET": ["t1"]}
    assert loss(leaders=mapping).leaders == [(3,), (1,), (2, 3), (0,)]
    assert loss(leaders={"ET": ["t1"], **mapping}).leaders == [(3,), (1,), (2, 3), (0,)]  # in the head's order


def test_votes_are_normalised_over_the_classes_also_where_nobody_votes():
    votes = torch.tensor([[0.2, 0.0], [0.6, 0.0]])[None]
    assert normalised_votes(votes).tolist() == [[pytest.approx([0.25, 0]), pytest.approx([0.75, 0])]]


def test_kd_loss_by_hand():
    # one student, two voxels of two classes; the second voxel is left out
    target = torch.tensor([[1.0, 0.5], [0.0, 0.5]])[None, None]
    student = torch.tensor([[0.8, 0.1], [0.2, 0.9]])[None, None].log()
    first, both = torch.tensor([[[True, False]]]), torch.tensor([[[True, True]]])
    assert kd_loss(target, student, first).item() == pytest.approx(-math.log(0.8))
    second = 0.5 * math.log(0.5 / 0.1) + 0.5 * math.log(0.5 / 0.9)
    assert kd_loss(target, student, both).item() == pytest.approx((-math.log(0.8) + second) / 2)
    # shares 3/4 and 1/4 of the target; then 1 and 0, and the mean is still over both voxels
    entropy = -(0.25 * math.log(0.8) + 0.25 * 0.5 * math.log(0.1) + 0.75 * 0.5 * math.log(0.9)) / 2
    assert kd_loss(target, student, both, "released").item() == pytest.approx(entropy)
    assert kd_loss(target, student, first, "released").item() == pytest.approx(0)


def test_masks_leave_out_a_share_for_all_students_or_for_each():
    torch.manual_seed(0)
    kept = random_mask(torch.zeros(2, 4, 3, 10_000), 0.2)
    assert (kept == kept[:, :1]).all()
    assert (kept[0] != kept[1]).any()
    assert kept.float().mean().item() == pytest.approx(0.8, abs=0.01)
    torch.manual_seed(0)
    assert (random_mask(torch.zeros(2, 4, 3, 10_000), 0.2) == kept).all()  # the run's seed decides
    kept = random_mask(torch.zeros(2, 4, 3, 10_000), 0.2, "per_student")
    assert all((kept[0, m] != kept[0, 0]).any() for m in (1, 2, 3))
    assert kept.float().mean().item() == pytest.approx(math.exp(-0.2), abs=0.01)


def test_loss_is_the_weighted_sum_of_task_and_distillation():
    out, target, task = output(), label(), FusionLoss()
    whole = task(out, target).item()
    gss = loss()
    total = gss(out, target).item()
    kd = gss.terms["distillation"].item()
    assert total == pytest.approx(0.7 * whole + 0.3 * 64 * kd, rel=1e-5)
    assert {k: v for k, v in gss.terms.items() if k != "distillation"} == task.terms
    assert loss(scale="released")(out, target).item() == pytest.approx(0.7 * whole + 0.3 * 6.4 * kd, rel=1e-5)
    part = task.terms["fuse"] + task.terms["deep"] + 0.7 * task.terms["separate"]
    assert loss(task="released")(out, target).item() == pytest.approx(part.item() + 0.3 * 64 * kd, rel=1e-5)
    assert loss(task_weight=1, kd_weight=0)(out, target).item() == pytest.approx(whole, rel=1e-5)


def test_each_choice_changes_the_distillation():
    choices = [{}, {"votes": "released"}, {"kd": "released"}, {"distillation": "mutual"}, {"distillation": "fusion"}]
    choices += [{"normalise": False}, {"tau": 4.0}, {"rho": 0.9}, {"leader_threshold": 0.9}, {"member_threshold": 0.3}]
    choices += [{"alpha": 0.5}, {"alpha": 0.5, "mask": "per_student"}]
    choices += [{"leaders": LEADERS | changed} for changed in ({"ED": ["flair"]}, {"BG": ["flair", "t2"]})]
    seen = {}
    for changes in choices:
        torch.manual_seed(0)
        gss = loss(**changes)
        gss(output(size=(8, 8)), label((8, 8)))
        seen[str(changes)] = gss.terms["distillation"].item()
    assert len({round(value, 6) for value in seen.values()}) == len(seen), seen


def test_mutual_and_fusion_targets_by_hand():
    out = output()
    out = out._replace(separate=out.fused.logits.detach().repeat_interleave(4, dim=0))
    for kind in ("mutual", "fusion"):  # all students say what the fused prediction says
        gss = loss(distillation=kind)
        gss(out, label())
        assert gss.terms["distillation"].item() == pytest.approx(0, abs=1e-6)
    q = torch.tensor([0.2, 0.3, 0.4, 0.9])
    log_students = torch.stack([q, 1 - q], dim=1)[None, :, :, None].log()
    taught = GSSLoss(MODALITIES, CLASSES, LEADERS, distillation="mutual")._soft_target(log_students, log_students, None)
    assert taught[0, :, 0, 0].tolist() == pytest.approx([1.6 / 3, 1.5 / 3, 1.4 / 3, 0.9 / 3])


@pytest.mark.parametrize("kind", ["group", "mutual", "fusion"])
@pytest.mark.parametrize("kd", ["kl", "released"])
def test_only_students_learn_from_the_distillation(kind, kd):
    out = output()
    loss(distillation=kind, kd=kd, task_weight=0)(out, label()).backward()
    assert out.separate.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    assert out.separate.grad.isfinite().all()
    assert out.fused.logits.grad.abs().max() == 0
    assert all(logits.grad.abs().max() == 0 for logits in out.fused.deep)


def test_the_vote_has_no_gradient():
    # KL(S || Q) with a constant target has the gradient Q - S times the temperature's 1 / tau
    out = output()
    gss = loss(task_weight=0, kd_weight=1, scale="tau_squared")
    gss(out, label()).backward()
    logits = out.separate.detach().flatten(2).unflatten(0, (2, 4))
    log_students = (logits / 8).log_softmax(dim=2)
    target = gss._soft_target(logits, log_students, out.fused.logits)
    expected = 64 / 8 * (log_students.exp() - target) / (2 * 16)
    assert (out.separate.grad.flatten(2).unflatten(0, (2, 4)) - expected).abs().max() < 1e-6


def test_incomplete_samples_and_other_class_counts_are_refused():
    out = output()
    present = out.present.clone()
    present[0, 0] = False
    with pytest.raises(ValueError, match="GSS needs all modalities in training"):
        loss()(out._replace(present=present, separate=out.separate[1:]), label())
    with pytest.raises(ValueError, match="Give as many names as the head has classes"):
        loss(classes=("BG", "ED"), leaders={"BG": ["flair"], "ED": ["t2"]})(out, label())


class TestRandomSubsetFusion:
    def test_all_are_encoded_and_decoded_and_a_subset_of_those_present_is_fused(self):
        net, full = network(), torch.ones(2, 4, dtype=torch.bool)
        seen, fused = encoded(net), fused_subsets(net)
        method, x = RandomSubsetFusion(net), image(full)
        for _ in range(20):
            output = method(x)
            assert torch.equal(output.present, full)
            assert len(output.separate) == 8
        assert all(torch.equal(present, full) for present in seen)
        assert len({tuple(present[0].tolist()) for present in fused}) > 5
        net = network()
        fused = fused_subsets(net)
        output = RandomSubsetFusion(net)(image())
        assert torch.equal(output.present, PRESENT)
        assert not bool((fused[0] & ~PRESENT).any())

    def test_every_subset_is_fused_as_often(self):
        net, x = network(), image(torch.ones(5, 4, dtype=torch.bool))
        fused, method = fused_subsets(net), RandomSubsetFusion(net)
        with torch.no_grad():
            for _ in range(200):
                method(x)
        drawn = [tuple(row) for present in fused for row in present.tolist()]
        assert follow(drawn, dict.fromkeys([s for s in product((False, True), repeat=4) if any(s)], 1 / 15))
