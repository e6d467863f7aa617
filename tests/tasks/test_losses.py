"""The terms of a loss, by hand on maps of 2 × 2 and against what they are known to equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_data import own_labels
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from upernet.errors import UserError
from upernet.labels import IGNORE, ClassSets
from upernet.tasks import OHEM, CrossEntropy, Dice, Focal, Loss, Lovasz, Scene
from upernet.tasks.dense import DenseTask

ALL: dict[str, Loss] = {
    "plain": CrossEntropy(),
    "all": CrossEntropy(average="all"),
    "smooth": CrossEntropy(smoothing=0.1, class_weights=[1.0, 2.0, 0.5]),
    "ohem": OHEM(threshold=0.5, min_kept=2),
    "ohem, weighted": OHEM(min_kept=0, class_weights={"b": 3.0}),
    "focal": Focal(),
    "focal, shallow": Focal(gamma=0.3, class_weights=[0.2, 1.0, 1.0]),
    "dice": Dice(),
    "dice of areas, per image": Dice(power=1, per_image=True, smooth=0),
    "lovasz": Lovasz(),
    "lovasz, per image": Lovasz(per_image=True),
}


def task(*losses: Loss, labels: Sequence[str] = ("a", "b", "c")) -> DenseTask:
    made = DenseTask(labels=list(labels), losses=list(losses))
    made.bind({})
    return made


def of(loss: Loss, probabilities: Any, target: Any, sets: ClassSets | None = None) -> float:
    """A term's value for probabilities of classes at each pixel (H, W, K) and a target (H, W)."""
    p = torch.tensor(probabilities, dtype=torch.float32)
    own = task(loss, labels=["a", "b", "c"][: p.shape[-1]])
    logits = p.log().permute(2, 0, 1)[None] + 3
    return own.loss(logits, torch.tensor(target)[None], sets or own_labels(own)).item()


def random_case(seed: int, classes: int = 3, shape: tuple[int, ...] = (2, 5, 4)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape[0], classes, *shape[1:], generator=generator)
    return logits.requires_grad_(), torch.randint(IGNORE, classes, shape, generator=generator)


SEEDS = st.integers(0, 2**31)
# Truth a a / b and one unlabelled; two classes.
P = [[[0.9, 0.1], [0.4, 0.6]], [[0.2, 0.8], [0.5, 0.5]]]
T = [[0, 0], [1, IGNORE]]


# --- by hand --------------------------------------------------------------------------------------------------------


def test_cross_entropy() -> None:
    """Truth has .9, .4, .8; the unlabelled pixel counts in the denominator or not."""
    total = -math.log(0.9) - math.log(0.4) - math.log(0.8)
    assert of(CrossEntropy(), P, T) == pytest.approx(total / 3, rel=1e-5)
    assert of(CrossEntropy(average="all"), P, T) == pytest.approx(total / 4, rel=1e-5)


def test_weighted_cross_entropy() -> None:
    """Class b weighs 3; one that is not named weighs 1."""
    total = -math.log(0.9) - math.log(0.4) - 3 * math.log(0.8)
    for weights in ([1.0, 3.0], {"b": 3.0}):
        assert of(CrossEntropy(class_weights=weights), P, T) == pytest.approx(total / 5, rel=1e-5)
        assert of(CrossEntropy(class_weights=weights, average="all"), P, T) == pytest.approx(total / 4, rel=1e-5)


def test_ohem() -> None:
    """Truth has .9, .4, .8: one is at most .7; at least two would take .8 as well."""
    assert of(OHEM(threshold=0.7, min_kept=0), P, T) == pytest.approx(-math.log(0.4), rel=1e-5)
    assert of(OHEM(threshold=0.7, min_kept=2), P, T) == pytest.approx(-math.log(0.4 * 0.8) / 2, rel=1e-5)
    assert of(OHEM(threshold=0, min_kept=1), P, T) == pytest.approx(-math.log(0.4), rel=1e-5)
    assert of(OHEM(threshold=0.1, min_kept=0), P, T) == 0


def test_ohem_keeps_so_many_per_image_of_the_whole_batch() -> None:
    """Two images, one kept per image: the two hardest pixels of both lie in the first."""
    own = task(OHEM(threshold=0, min_kept=1), labels=["a", "b"])
    p = torch.tensor([[[0.1, 0.2]], [[0.6, 0.9]]])
    logits = torch.stack([p, 1 - p], dim=1).log()
    loss = own.loss(logits, torch.zeros(2, 1, 2, dtype=torch.int64), own_labels(own))
    assert loss.item() == pytest.approx(-math.log(0.1 * 0.2) / 2, rel=1e-5)


def test_focal() -> None:
    expected = sum(-0.25 * (1 - q) ** 2 * math.log(q) for q in (0.9, 0.4, 0.8)) / 3
    assert of(Focal(gamma=2, alpha=0.25), P, T) == pytest.approx(expected, rel=1e-5)
    weighted = sum(-w * (1 - q) ** 2 * math.log(q) for q, w in ((0.9, 1), (0.4, 1), (0.8, 3))) / 3
    assert of(Focal(class_weights=[1.0, 3.0]), P, T) == pytest.approx(weighted, rel=1e-5)


def test_dice() -> None:
    """On the labelled pixels, a has .9 .4 of its two and .2 elsewhere, b has .8 of its one and .1 .6 elsewhere."""
    a, b = 1 - 2 * 1.3 / (1.5 + 2), 1 - 2 * 0.8 / (1.5 + 1)
    assert of(Dice(power=1, smooth=0), P, T) == pytest.approx((a + b) / 2, rel=1e-5)
    a, b = 1 - (2 * 1.3 + 1) / (0.81 + 0.16 + 0.04 + 2 + 1), 1 - (2 * 0.8 + 1) / (0.01 + 0.36 + 0.64 + 1 + 1)
    assert of(Dice(), P, T) == pytest.approx((a + b) / 2, rel=1e-5)


def test_lovasz() -> None:
    """Errors of a, sorted: .6 (an a), .2 (a b), .1 (an a); 1 − IoU grows from 0 to 1/2, 2/3, 1. Of b: .6 and .1 (two
    a) and .2 (a b), so .6 .2 .1 with 1 − IoU of 1/2, 1, 1."""
    a = 0.6 * 1 / 2 + 0.2 * (2 / 3 - 1 / 2) + 0.1 * (1 - 2 / 3)
    b = 0.6 * 1 / 2 + 0.2 * (1 - 1 / 2)
    assert of(Lovasz(), P, T) == pytest.approx((a + b) / 2, rel=1e-5)


def test_labels_that_are_not_there_do_not_count() -> None:
    """With a alone labelled, the mean is over a alone."""
    p, t = [[[0.9, 0.1], [0.4, 0.6]]], [[0, 0]]
    assert of(Dice(power=1, smooth=0), p, t) == pytest.approx(1 - 2 * 1.3 / (1.3 + 2), rel=1e-5)
    assert of(Lovasz(), p, t) == pytest.approx(0.6 * 1 / 2 + 0.1 * 1 / 2, rel=1e-5)


@pytest.mark.parametrize("kind", [Dice, Lovasz])
def test_image_by_image(kind: type[Dice | Lovasz]) -> None:
    """The mean over images that have a label at all; the third has none."""
    logits, target = random_case(1, shape=(3, 4, 4))
    target[2] = IGNORE
    whole, single = task(kind(per_image=True)), task(kind())
    sets = own_labels(whole)
    parts = [single.loss(logits[i : i + 1], target[i : i + 1], sets) for i in range(2)]
    torch.testing.assert_close(whole.loss(logits, target, sets), torch.stack(parts).mean())


def test_terms_are_added_with_their_weights() -> None:
    logits, target = random_case(0)
    terms: list[Loss] = [CrossEntropy(weight=0.5), Dice(weight=2.0), Lovasz()]
    sets = own_labels(task())
    parts = [one.weight * task(type(one)()).loss(logits, target, sets) for one in terms]
    torch.testing.assert_close(task(*terms).loss(logits, target, sets), torch.stack(parts).sum())


# --- labels that stand for sets -------------------------------------------------------------------------------------


def test_a_set_has_the_summed_probability_and_the_mean_weight() -> None:
    """p = .2 .3 .5; "a or b" has .5 and weighs (1 + 3) / 2."""
    own = task()
    sets = ClassSets.of(["ab", "c"], own.classes, {"ab": ["a", "b"]})
    p = [[[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]]
    weighted = of(CrossEntropy(class_weights=[1.0, 3.0, 4.0]), p, [[0, 1]], sets)
    assert weighted == pytest.approx((-2 * math.log(0.5) - 4 * math.log(0.8)) / 6, rel=1e-5)
    assert of(Focal(), p, [[0, 1]], sets) == pytest.approx(-(0.25 * math.log(0.5) + 0.04 * math.log(0.8)) / 2, rel=1e-4)
    ab, c = 1 - 2 * 0.5 / (0.5 + 0.2 + 1), 1 - 2 * 0.8 / (0.5 + 0.8 + 1)
    assert of(Dice(power=1, smooth=0), p, [[0, 1]], sets) == pytest.approx((ab + c) / 2, rel=1e-5)


def test_labels_that_share_classes() -> None:
    """A pixel of a is one of "a or b" too; one of "a or b" says nothing about a; p as above."""
    own = task()
    sets = ClassSets.of(["ab", "c", "a"], own.classes, {"ab": ["a", "b"]})
    p, t = [[[0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.7, 0.2, 0.1]]], [[0, 1, 2]]
    ab = 1 - 2 * (0.5 + 0.9) / (0.5 + 0.2 + 0.9 + 2)
    c = 1 - 2 * 0.8 / (0.5 + 0.8 + 0.1 + 1)
    a = 1 - 2 * 0.7 / (0.1 + 0.7 + 1)
    assert of(Dice(power=1, smooth=0), p, t, sets) == pytest.approx((ab + c + a) / 3, rel=1e-5)


# --- what they equal ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.floats(0, 1), st.lists(st.floats(0.1, 9), min_size=3, max_size=3))
def test_smoothing_and_weights_are_those_of_pytorch(seed: int, smoothing: float, weights: list[float]) -> None:
    logits, target = random_case(seed)
    own = task(CrossEntropy(smoothing=smoothing, class_weights=weights))
    expected = F.cross_entropy(logits, target, torch.tensor(weights), ignore_index=IGNORE, label_smoothing=smoothing)
    torch.testing.assert_close(own.loss(logits, target, own_labels(own)), expected)


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_terms_that_come_down_to_the_cross_entropy(seed: int) -> None:
    logits, target = random_case(seed)
    sets = own_labels(task())
    expected = task().loss(logits, target, sets)
    for loss in (Focal(gamma=0), OHEM(threshold=1, min_kept=0), OHEM(threshold=0, min_kept=10**9)):
        torch.testing.assert_close(task(loss).loss(logits, target, sets), expected)


def lovasz_by_differences(p: np.ndarray, truth: np.ndarray) -> float:
    """Berman et al. 2018, equation 8, with the set function written out."""
    error = np.abs(truth - p)
    order = np.argsort(-error)
    total, before = 0.0, 0.0
    for count in range(1, len(order) + 1):
        wrong = np.zeros(len(order), bool)
        wrong[order[:count]] = True
        jaccard = 1 - (truth & ~wrong).sum() / (truth | wrong).sum()
        total, before = total + error[order[count - 1]] * (jaccard - before), jaccard
    return total


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_lovasz_is_its_definition(seed: int) -> None:
    logits, target = random_case(seed)
    own = task(Lovasz())
    p = logits.detach().softmax(1).movedim(1, -1)[target != IGNORE].numpy().astype(np.float64)
    t = target[target != IGNORE].numpy()
    expected = np.mean([lovasz_by_differences(p[:, c], t == c) for c in np.unique(t)])
    assert own.loss(logits, target, own_labels(own)).item() == pytest.approx(expected, rel=1e-4)


@settings(deadline=None, max_examples=20)
@given(SEEDS)
def test_lovasz_of_a_hard_answer_is_one_less_the_mean_iou(seed: int) -> None:
    answer, target = (random_case(seed + i, classes=2)[1] for i in (0, 7))
    answer = answer.clamp(min=0)
    hard = 100 * (2.0 * F.one_hot(answer, 2).movedim(-1, 1) - 1)
    own = task(Lovasz(), labels=["a", "b"])
    ious = []
    for c in (0, 1):
        a, t = answer[target != IGNORE] == c, target[target != IGNORE] == c
        if t.any():
            ious.append((a & t).sum().item() / (a | t).sum().item())
    expected = 1 - np.mean(ious) if ious else 0
    assert own.loss(hard, target, own_labels(own)).item() == pytest.approx(expected, abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.sampled_from([1, 2]), st.floats(0, 3), st.booleans())
def test_areas_are_compared_on_a_scale_of_0_to_1(seed: int, power: Any, smooth: float, per_image: bool) -> None:
    logits, target = random_case(seed)
    sets = own_labels(task())
    for loss in (Dice(power=power, smooth=smooth, per_image=per_image), Lovasz(per_image=per_image)):
        own = task(loss)
        assert -1e-6 <= own.loss(logits, target, sets).item() <= 1
        perfect = 100.0 * F.one_hot(target.clamp(min=0), 3).movedim(-1, 1)
        assert own.loss(perfect, target, sets).item() == pytest.approx(0, abs=1e-6)


# --- what holds for all ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_only_labelled_pixels_are_moved(name: str) -> None:
    logits, target = random_case(3)
    own = task(ALL[name])
    (gradient,) = torch.autograd.grad(own.loss(logits, target, own_labels(own)), logits)
    assert gradient.isfinite().all()
    assert gradient.any()
    assert not gradient.movedim(1, -1)[target == IGNORE].any()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(2, 5, 4), (2,)], ids=["map", "image"])
def test_nothing_labelled_costs_nothing(name: str, shape: tuple[int, ...]) -> None:
    logits, _ = random_case(0)
    own = task(ALL[name])
    loss = own.loss(logits, torch.full(shape, IGNORE), own_labels(own))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert loss.dtype == torch.float32
    assert not gradient.any()


@pytest.mark.parametrize("name", ALL)
def test_one_label_per_image_is_a_map_filled_with_it(name: str) -> None:
    logits, _ = random_case(0, shape=(3, 5, 4))
    own, target = task(ALL[name]), torch.tensor([2, IGNORE, 0])
    filled = target[:, None, None].expand(-1, 5, 4).clone()
    torch.testing.assert_close(
        own.loss(logits, target, own_labels(own)), own.loss(logits, filled, own_labels(own)), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("name", ALL)
def test_logits_of_half_precision_under_autocast(name: str) -> None:
    """The same float32 number as from the same values in float32; large logits stay finite."""
    logits, target = random_case(0)
    own, low = task(ALL[name]), (40 * logits).detach().bfloat16().requires_grad_()
    expected = own.loss(low.detach().float(), target, own_labels(own))
    with torch.autocast("cpu", torch.bfloat16):
        loss = own.loss(low, target, own_labels(own))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(loss, low)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", [n for n, loss in ALL.items() if not loss.needs_map])
def test_answers_once_per_image(name: str) -> None:
    own = Scene(labels=["a", "b", "c"], losses=[ALL[name]])
    logits, target = torch.randn(4, 3), torch.tensor([0, 2, IGNORE, 1])
    as_map = task(ALL[name]).loss(logits[..., None, None], target[:, None, None], own_labels(own))
    torch.testing.assert_close(own.loss(logits, target, own_labels(own)), as_map)


# --- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: CrossEntropy(smoothing=2), "CrossEntropy.smoothing: 2 is not from 0 to 1; for example 0.1"),
        (lambda: CrossEntropy(average="mine"), "CrossEntropy.average: 'mine' is not one of labelled, all"),  # type: ignore
        (lambda: CrossEntropy(class_weights="mine"), "CrossEntropy.class_weights: 'mine' is not one of inverse_"),  # type: ignore
        (lambda: Focal(class_weights=[1.0, -1.0]), "Focal.class_weights: [-1.0] must be ≥ 0 and not all 0"),
        (lambda: Focal(class_weights={"a": -1.0}), "Focal.class_weights: [-1.0] must be ≥ 0 and not all 0"),
        (lambda: Focal(class_weights=[0.0, 0.0]), "Focal.class_weights: [0.0, 0.0] must be ≥ 0 and not all 0"),
        (
            lambda: task(Focal(class_weights=dict.fromkeys("abc", 0.0))),
            "Focal.class_weights: all classes weigh 0; leave one out or give it 1.0",
        ),
        (lambda: Focal(gamma=-1), "Focal.gamma: -1 is not at least 0; for example 2.0"),
        (lambda: OHEM(threshold=7), "OHEM.threshold: 7 is not from 0 to 1; for example 0.7"),
        (lambda: Dice(power=3), "Dice.power: 3 is not one of 1, 2"),  # type: ignore[arg-type]
        (lambda: task(Focal(class_weights=[1.0])), "Focal.class_weights: 1 weights for 3 classes; give one for each"),
        (lambda: task(OHEM(class_weights={"d": 1})), "OHEM.class_weights: unknown class 'd'; valid: a, b, c"),
        (lambda: Scene(labels=["a"], losses=[Dice()]), "losses: Dice needs a map, Scene answers once per image; "),
        (lambda: of(CrossEntropy(class_weights="inverse_frequency"), P, T), "class_weights: 'inverse_frequency' is"),
        (lambda: DenseTask(losses=["dice"]), "losses: 'dice' is not a Loss; for example"),  # type: ignore
    ],
)  # fmt: skip
def test_wrong_settings_are_told(make: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_one_class_may_weigh_nothing() -> None:
    """Pixels of the first class could as well have no label."""
    logits, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    own = task(CrossEntropy(class_weights={"a": 0.0}))
    plain = task(CrossEntropy())
    without = plain.loss(logits, target.masked_fill(target == 0, IGNORE), own_labels(plain))
    torch.testing.assert_close(own.loss(logits, target, own_labels(own)), without)


def test_within_its_own_batch_a_process_asks_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count is averaged over processes outside the block, and after it again."""
    from upernet.tasks import losses

    def double(count: torch.Tensor) -> None:
        count *= 4  # the other one has three times as many pixels

    monkeypatch.setattr(losses.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(losses.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(losses.dist, "all_reduce", double)
    count = torch.tensor(5)
    assert losses.denominator(count).item() == 10
    with losses.average_over_own_batch():
        assert losses.denominator(count).item() == 5
    assert losses.denominator(count).item() == 10
