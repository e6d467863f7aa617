"""Accumulators of evaluation against values worked out by hand and a plain reading of their definition."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import Metric

from upernet.labels import IGNORE
from upernet.tasks.metrics import PaperPartMetric, PaperSegmentationMetric, PartMetric, SegmentationMetric, TopOne


def ids(*rows: list[int]) -> torch.Tensor:
    """(1, H, W) from rows."""
    return torch.tensor([rows])


def segmentation(predicted: torch.Tensor, truth: torch.Tensor, count: int, **options: list[int]) -> SegmentationMetric:
    metric = SegmentationMetric([f"class {i}" for i in range(count)], **options)
    metric.update(predicted, truth)
    return metric


# --- segmentation ---------------------------------------------------------------------------------------------------


def test_two_by_two() -> None:
    """Class 0: 1 of 1 + 1, predicted 1 time, labelled 2 times; class 1: 2 of 2 + 1, predicted 3 times, labelled 2."""
    metric = segmentation(ids([0, 1], [1, 1]), ids([0, 0], [1, 1]), 2)
    assert metric.matrix.tolist() == [[1, 1, 0], [0, 2, 0]]
    assert metric.compute() == pytest.approx({"mIoU": (1 / 2 + 2 / 3) / 2, "mAcc": (1 / 2 + 1) / 2, "PA": 3 / 4})
    assert metric.per_class() == {
        "class 0": pytest.approx(
            {
                "IoU": 1 / 2,
                "Acc": 1 / 2,
                "Dice": 2 / 3,
                "F-score": 2 / 3,
                "Precision": 1,
                "Recall": 1 / 2,
                "averaged": 1,
            }
        ),
        "class 1": pytest.approx(
            {"IoU": 2 / 3, "Acc": 1, "Dice": 4 / 5, "F-score": 4 / 5, "Precision": 2 / 3, "Recall": 1, "averaged": 1}
        ),
    }
    assert next(iter(metric.compute())) == "mIoU"


def test_a_class_in_neither_labels_nor_predictions_is_left_out() -> None:
    """Trap: torchmetrics' own per-class Jaccard scores absent classes 0."""
    two = segmentation(ids([0, 1], [1, 1]), ids([0, 0], [1, 1]), 2)
    five = segmentation(ids([0, 1], [1, 1]), ids([0, 0], [1, 1]), 5)
    assert five.compute() == two.compute()
    assert math.isnan(five.per_class()["class 4"]["IoU"])


def test_a_class_that_is_predicted_but_nowhere_labelled_counts_as_0() -> None:
    values = segmentation(ids([0, 2], [1, 1]), ids([0, 0], [1, 1]), 4).compute()
    assert values == pytest.approx({"mIoU": (1 / 2 + 1 + 0) / 3, "mAcc": (1 / 2 + 1) / 2, "PA": 3 / 4})


def test_predictions_on_unlabelled_pixels_count_nowhere() -> None:
    truth = ids([0, 0, IGNORE], [1, 1, IGNORE])
    for guess in (0, 1, 2):
        metric = segmentation(ids([0, 1, guess], [1, 1, guess]), truth, 3)
        assert metric.compute() == segmentation(ids([0, 1], [1, 1]), ids([0, 0], [1, 1]), 3).compute()


def test_further_figures_by_hand() -> None:
    """The case above with a third class that is predicted once and never labelled, and a fourth that is neither.

    Class 0: 1 hit, predicted once, labelled 2 times; class 1: 2, 2, 2; class 2: 0, 1, 0. The third class has Dice 0 and
    precision 0, but no recall and so no F-score. SceneParse150 divides by all four classes.
    """
    further = segmentation(ids([0, 2], [1, 1]), ids([0, 0], [1, 1]), 4).further()
    assert further == pytest.approx(
        {
            "mDice": (2 / 3 + 1 + 0) / 3,
            "mF-score": (2 / 3 + 1) / 2,
            "mPrecision": (1 + 1 + 0) / 3,
            "mRecall": (1 / 2 + 1) / 2,
            "mIoU, absent 0": (1 / 2 + 1 + 0 + 0) / 4,
            "SceneParse150": (3 / 8 + 3 / 4) / 2,
        }
    )
    assert TopOne("ab").further() == parts().further() == {}


def test_the_reference_toolbox_prints_the_same(fixtures_dir: Path) -> None:
    """To the second decimal of per cent, on its own pairs; one class is nowhere, one predicted and never labelled."""
    expected = json.loads((fixtures_dir / "pipeline" / "metric.json").read_text())
    metric = SegmentationMetric([str(i) for i in range(expected["num_classes"])])
    with np.load(fixtures_dir / "pipeline" / "metric_pairs.npz") as arrays:
        for i in range(len(arrays.files) // 2):
            truth = torch.from_numpy(arrays[f"label_{i}"].astype(np.int64))
            truth[truth == expected["ignore"]] = IGNORE
            metric.update(torch.from_numpy(arrays[f"pred_{i}"].astype(np.int64))[None], truth[None])
    ours = metric.compute() | metric.further()
    theirs = {
        "PA" if name == "aAcc" else name.replace("Fscore", "F-score"): v for name, v in expected["result"].items()
    }
    assert {name: f"{100 * ours[name]:.2f}" for name in theirs} == {name: f"{v:.2f}" for name, v in theirs.items()}
    assert len(theirs) == 7


def test_only_some_classes_enter_the_means_but_mistakes_with_others_count() -> None:
    predicted, truth = ids([0, 2, 2], [1, 1, 2]), ids([0, 0, 2], [1, 1, 2])
    values = segmentation(predicted, truth, 3, average=[0, 1]).compute()
    assert values == pytest.approx({"mIoU": (1 / 2 + 1) / 2, "mAcc": (1 / 2 + 1) / 2, "PA": 5 / 6})
    assert segmentation(predicted, truth, 3, average=[0, 1]).per_class()["class 2"]["averaged"] == 0


def test_nothing_labelled_is_not_a_number() -> None:
    values = segmentation(ids([0, 1]), ids([IGNORE, IGNORE]), 2).compute()
    assert all(math.isnan(value) for value in values.values())


def test_300_classes() -> None:
    """255 is a class like any other, and neither 255 · 300 nor the counts overflow."""
    truth = torch.arange(300).repeat(200).view(1, 200, 300)
    predicted = torch.where(truth == 255, 254, truth)
    metric = segmentation(predicted, truth, 300)
    assert metric.matrix.dtype == torch.int64
    assert metric.compute() == pytest.approx({"mIoU": (298 + 1 / 2 + 0) / 300, "mAcc": 299 / 300, "PA": 299 / 300})
    assert metric.per_class()["class 255"]["IoU"] == 0


def test_counts_pass_32_bits() -> None:
    metric = segmentation(ids([0, 1]), ids([0, 0]), 2)
    metric.matrix *= 3_000_000_000
    assert metric.compute() == pytest.approx({"mIoU": 1 / 4, "mAcc": 1 / 2, "PA": 1 / 2})


# --- sums over images and ranks -------------------------------------------------------------------------------------

METRICS = {
    "segmentation": lambda: SegmentationMetric("abcde"),
    "top-1": lambda: TopOne("abcde"),
    "part": lambda: PartMetric("abcde", ["x", "x", "x", "y", "y"], [True, False, False, True, False]),
    "paper": lambda: PaperSegmentationMetric("abcde"),
    "paper's part": lambda: PaperPartMetric("abcde", ["x", "x", "x", "y", "y"], [True, False, False, True, False]),
}


@pytest.mark.parametrize("name", METRICS)
def test_two_half_batches_are_one_batch(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (4,) if name == "top-1" else (4, 5, 6)
    truth = torch.randint(0 if name == "top-1" else IGNORE, 5, shape, generator=generator)
    predicted = torch.randint(IGNORE, 5, shape, generator=generator)
    whole, halves, ranks = METRICS[name](), METRICS[name](), [METRICS[name](), METRICS[name]()]
    whole.update(predicted, truth)
    for rank, part in zip(ranks, (slice(2, 4), slice(0, 2)), strict=True):
        halves.update(predicted[part], truth[part])
        rank.update(predicted[part], truth[part])
    assert repr(halves.compute()) == repr(whole.compute())  # as text, where NaN equals itself
    assert repr(halves.per_class()) == repr(whole.per_class())
    for state, reduce in whole._reductions.items():
        assert torch.equal(reduce(torch.stack([getattr(rank, state) for rank in ranks])), getattr(whole, state))


@pytest.mark.parametrize("name", METRICS)
def test_a_reset_metric_is_fresh(name: str) -> None:
    metric: Metric = METRICS[name]()
    truth = torch.tensor([1, 4]) if name == "top-1" else torch.tensor([[[1, 4]]])
    metric.update(torch.zeros_like(truth), truth)
    assert next(iter(metric.compute().values())) == 0
    metric.reset()
    metric.update(truth, truth)
    again = METRICS[name]()
    again.update(truth, truth)
    assert metric.compute() == again.compute()
    assert next(iter(metric.compute().values())) > 0


# --- one answer per image -------------------------------------------------------------------------------------------


def test_top_1() -> None:
    metric = TopOne(["street", "field"])
    metric.update(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, IGNORE]))
    assert metric.compute() == pytest.approx({"top-1": 2 / 3})
    assert metric.per_class() == {"street": {"top-1": 0.5}, "field": {"top-1": 1.0}}


# --- parts ----------------------------------------------------------------------------------------------------------

NAMES = ("car/-", "car/wheel", "car/door", "house/-", "house/window")
OBJECTS = ("car", "car", "car", "house", "house")
NO_PART = (True, False, False, True, False)
_ = IGNORE


def parts() -> PartMetric:
    return PartMetric(NAMES, OBJECTS, NO_PART)


def test_parts_of_two_images_by_hand() -> None:
    """The evaluator of the released multi-task code, on a car and on a house.

    Car image: wheel 2 labelled, 3 predicted (one in the background, outside the car), 1 hit: 1/4; door 1, 1, 1: 1.
    The window predicted there is not judged: the image shows no part of a house. House image: window 2, 2, 1: 1/3.
    """
    metric = parts()
    metric.update(ids([1, 1, 0], [2, 1, 4]), ids([0, 1, 1], [2, _, _]))
    metric.update(ids([4, 4, 3], [_, 1, 1]), ids([3, 4, 4], [_, _, _]))
    car, house = (1 / 4 + 1) / 2, 1 / 3
    assert metric.compute() == pytest.approx({"mIoU-bg": (car + house) / 2, "PA": (2 / 3 + 1 / 2) / 2})
    assert metric.per_class() == {
        "car/wheel": pytest.approx({"IoU": 1 / 4}),
        "car/door": pytest.approx({"IoU": 1.0}),
        "house/window": pytest.approx({"IoU": 1 / 3}),
    }


def test_an_image_without_any_part_of_an_object_does_not_judge_it() -> None:
    metric = parts()
    metric.update(ids([1, 2]), ids([1, 2]))
    before = metric.compute()
    metric.update(ids([1, 1]), ids([0, 0]))  # a car without visible parts
    metric.update(ids([1, 2]), ids([_, _]))  # no car
    assert metric.compute() == before == {"mIoU-bg": 1.0, "PA": 1.0}


def test_parts_nobody_labelled_and_nobody_predicted_are_left_out() -> None:
    metric = parts()
    metric.update(ids([1, 0]), ids([1, 0]))
    assert metric.compute() == {"mIoU-bg": 1.0, "PA": 1.0}
    metric.update(ids([1, 2]), ids([1, 0]))  # a door that is not there: 0 of 1
    assert metric.compute() == pytest.approx({"mIoU-bg": 1 / 2, "PA": 1.0})


def test_without_any_part_there_is_no_number() -> None:
    metric = parts()
    metric.update(ids([1, 4]), ids([0, _]))
    assert all(math.isnan(value) for value in metric.compute().values())


def plain_reading(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Part mIoU-bg and P.A. in loops: over objects, over images that show one of its parts, over its parts."""
    means, accuracies = [], []
    for thing in ("car", "house"):
        own = [i for i, o in enumerate(OBJECTS) if o == thing and not NO_PART[i]]
        images = [i for i in range(len(truth)) if np.isin(truth[i], own).any()]
        if not images:
            continue
        p, t = predicted[images], truth[images]
        ious = []
        for part in own:
            union = ((p == part) | (t == part)).sum()
            if union:
                ious.append(((p == part) & (t == part)).sum() / union)
        means.append(np.mean(ious))
        accuracies.append((p == t)[np.isin(t, own)].sum() / np.isin(t, own).sum())
    return {"mIoU-bg": float(np.mean(means)), "PA": float(np.mean(accuracies))}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 12))
def test_parts_as_in_a_plain_reading(seed: int, images: int, pixels: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth = rng.integers(IGNORE, 5, (2, images, 2, pixels))
    truth[rng.random(images) < 0.4] %= 2
    truth[0, 0, 0] = 1
    metric = parts()
    metric.update(torch.from_numpy(predicted), torch.from_numpy(truth))
    assert metric.compute() == pytest.approx(plain_reading(predicted, truth))
