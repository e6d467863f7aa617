"""The paper's metrics: cases worked out by hand, and a literal reading of the authors' evaluator (SPEC E6) in numpy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upernet.labels import IGNORE, ClassSets, Labels
from upernet.tasks import Object, Part, Scene, Texture
from upernet.tasks.metrics import PaperPartMetric, PaperSegmentationMetric

OBJECTS = ["-", "sky", "car", "house", "tree"]
PARTS = {"car": ["wheel", "door"], "house": ["window"]}
_ = IGNORE


def paper(labels: list[str], classes: Labels, table: dict[str, str | list[str] | None] | None = None) -> ClassSets:
    return replace(ClassSets.of(labels, classes, table), protocol="paper")  # type: ignore[arg-type]


def object_sets(task: Object) -> ClassSets:
    """Each class but "-", which stands for unlabelled, as in Broden+."""
    return paper(OBJECTS, task.classes, {"-": None})


def part_task() -> Part:
    task = Part(parts=PARTS)
    task.bind({"object": Object(labels=OBJECTS), "part": task})
    return task


def part_sets(task: Part) -> ClassSets:
    return paper(["-", *task.classes.names], task.classes, {"-": None})


def ids(*rows: list[int]) -> torch.Tensor:
    """(1, H, W) from rows."""
    return torch.tensor([rows])


def one_hot(classes: torch.Tensor, count: int) -> torch.Tensor:
    """Probabilities (B, K, H, W) whose arg-max is known."""
    return torch.nn.functional.one_hot(classes, count).movedim(-1, 1).float()


# --- objects and materials ------------------------------------------------------------------------------------------


def measure(predicted: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """From class ids, 0 for "-" or unlabelled, as the authors number them."""
    task = Object(labels=OBJECTS)
    sets = object_sets(task)
    metric = task.metric(sets, dense=True)
    assert isinstance(metric, PaperSegmentationMetric)
    metric.update(task.predict_groups(one_hot(predicted, len(OBJECTS)), sets, {}), sets.to_groups(truth))
    return metric.compute()


def test_objects_by_hand() -> None:
    """Sky: 2 of 3 labelled are found, none in excess: 2/3. Car: 1 hit, 2 predicted, 1 labelled: 1/2. House and tree: 0.

    The predictions on the two unlabelled pixels count nowhere.
    """
    values = measure(ids([1, 1, 2], [2, 3, 2]), ids([1, 1, 1], [2, 0, 0]))
    assert values == pytest.approx({"mIoU": (2 / 3 + 1 / 2 + 0 + 0) / 4, "PA": 3 / 4}, abs=1e-7)
    assert list(values) == ["mIoU", "PA"]


def test_an_answer_of_no_class_is_wrong() -> None:
    """ "-" on a labelled pixel is a miss and no class's false positive: sky 1/2, car 1/1."""
    assert measure(ids([1, 0], [2, 0]), ids([1, 1], [2, 0])) == pytest.approx(
        {"mIoU": (1 / 2 + 1) / 4, "PA": 2 / 3}, abs=1e-7
    )


def test_classes_without_a_pixel_count_as_0_where_the_other_protocol_leaves_them_out() -> None:
    task = Object(labels=OBJECTS)
    for sets, expected in ((object_sets(task), 1 / 4), (replace(object_sets(task), protocol="mmseg"), 1.0)):
        metric = task.metric(sets, dense=True)
        metric.update(ids([0, 0]), ids([0, 0]))
        assert metric.compute()["mIoU"] == pytest.approx(expected)
    assert metric.further() and not task.metric(object_sets(task), dense=True).further()


def test_means_over_some_classes_only() -> None:
    task = Object(labels=OBJECTS)
    metric = task.metric(object_sets(task), dense=True, average=[0])
    metric.update(ids([0, 1]), ids([0, 0]))
    assert metric.compute() == pytest.approx({"mIoU": 1 / 2, "PA": 1 / 2})


def test_nothing_labelled_is_not_a_number() -> None:
    assert all(math.isnan(value) for value in measure(ids([1, 2]), ids([0, 0])).values())


# --- labels that stand for several classes --------------------------------------------------------------------------


def test_a_class_that_no_label_names_beats_groups() -> None:
    """vehicle = car or bus. .3 + .2 beats the sea's .4; .2 + .2 does not, though the sea is no label of the source."""
    classes = Labels.of(["car", "bus", "sky", "sea"])
    sets = paper(["vehicle", "sky"], classes, {"vehicle": ["car", "bus"]})
    p = torch.tensor([[0.3, 0.2, 0.1, 0.4], [0.2, 0.2, 0.1, 0.5], [0.1, 0.1, 0.6, 0.2]])
    assert sets.likeliest(p).tolist() == [0, IGNORE, 1]
    assert replace(sets, protocol="mmseg").likeliest(p).tolist() == [0, 0, 1]


def test_of_equals_the_first_class_wins_as_in_an_arg_max() -> None:
    classes = Labels.of(["-", "car", "sea"])
    sets = paper(["car"], classes)
    p = torch.tensor([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.0, 1.0, 0.0]])
    assert sets.likeliest(p).tolist() == [IGNORE, 0, 0]
    assert (p.argmax(1) == 1).tolist() == [False, True, True]


def test_a_label_of_all_the_rest_leaves_no_class_out() -> None:
    classes = Labels.of(["car", "sky", "sea"])
    sets = paper(["car", "else"], classes, {"else": ["*"]})
    assert sets.likeliest(torch.tensor([[0.4, 0.3, 0.3], [0.6, 0.2, 0.2]])).tolist() == [1, 0]


# --- one answer per image -------------------------------------------------------------------------------------------


def test_scene_of_no_label_is_wrong_and_images_without_a_label_do_not_count() -> None:
    task = Scene(labels=["street", "field", "cave"])
    sets = paper(["street", "field", "misc"], task.classes, {"misc": None})
    metric = task.metric(sets, dense=False)
    p = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5], [0.1, 0.2, 0.7]])
    metric.update(task.predict_groups(p, sets, {}), sets.to_groups(torch.tensor([0, 1, 2])))
    assert metric.compute() == {"top-1": 1 / 2}


def test_texture_of_an_image_is_that_of_most_pixels() -> None:
    """Two of three pixels say dotted at .4; the mean says woven."""
    task = Texture(labels=["woven", "dotted", "banded"])
    p = torch.tensor([[[0.35, 0.4, 0.25], [0.35, 0.4, 0.25], [1.0, 0.0, 0.0]]]).movedim(-1, 1)[..., None]
    sets = paper(["woven", "dotted", "banded"], task.classes)
    metric = task.metric(sets, dense=False)
    metric.update(task.predict_groups(task.image_probabilities(p), sets, {}), torch.tensor([1]))
    assert metric.compute() == {"top-1": 1.0}


# --- parts ----------------------------------------------------------------------------------------------------------


def measure_parts(objects: torch.Tensor, predicted: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """From predicted object classes, part classes (channels) and true ones, `IGNORE` where unlabelled."""
    task = part_task()
    sets = part_sets(task)
    metric = task.metric(sets, dense=True)
    assert isinstance(metric, PaperPartMetric)
    groups = task.predict_groups(one_hot(predicted, len(task.classes)), sets, {"object": objects})
    metric.update(groups, sets.to_groups(torch.where(truth == IGNORE, 0, truth + 1)))
    return metric.compute()


CAR, HOUSE = OBJECTS.index("car"), OBJECTS.index("house")
NONE, WHEEL, DOOR, WALL, WINDOW = range(5)


def test_parts_on_the_background_are_false_positives() -> None:
    """Wheel: 1 hit, 3 predicted (one on "no part", one outside the car), 1 labelled: 1/3. Door: 1 of 1. P.A. 2/2."""
    objects = ids([CAR, CAR], [CAR, CAR])
    values = measure_parts(objects, ids([WHEEL, WHEEL], [WHEEL, DOOR]), ids([WHEEL, NONE], [_, DOOR]))
    assert values == pytest.approx({"mIoU-bg": (1 / 3 + 1) / 2, "PA": 1.0}, abs=1e-7)


def test_parts_count_inside_the_predicted_object_only() -> None:
    """The network says wheel everywhere, and car on one of two pixels; what it calls house cannot be a wheel."""
    values = measure_parts(ids([CAR, HOUSE]), ids([WHEEL, WHEEL]), ids([WHEEL, WHEEL]))
    assert values == pytest.approx({"mIoU-bg": (1 / 2 + 0) / 2, "PA": 1 / 2}, abs=1e-7)


def test_an_object_without_labelled_parts_is_not_judged() -> None:
    """The house has no labelled part, so its windows are no mistake; of the car's parts the door has no pixel: 0."""
    values = measure_parts(ids([CAR, HOUSE]), ids([WHEEL, WINDOW]), ids([WHEEL, WALL]))
    assert values == pytest.approx({"mIoU-bg": 1 / 2, "PA": 1.0}, abs=1e-7)


def test_a_part_that_no_label_names_is_wrong() -> None:
    """The source knows wheels only. Where the network says door, it says no wheel either."""
    task = part_task()
    sets = paper(["wheel", "rest"], task.classes, {"wheel": "car/wheel", "rest": "car/-"})
    p = torch.tensor([[0.1, 0.3, 0.6, 1.0, 0.0], [0.1, 0.5, 0.4, 1.0, 0.0]]).T[None, :, None]
    decoded = {"object": ids([CAR, CAR])}
    assert task.predict_groups(p, sets, decoded).tolist() == [[[IGNORE, 0]]]
    assert task.predict_groups(p, replace(sets, protocol="mmseg"), decoded).tolist() == [[[0, 0]]]


# --- against a literal reading --------------------------------------------------------------------------------------


def histogram(values: np.ndarray, count: int) -> np.ndarray:
    """How often each of 1 … count occurs."""
    return np.array([(values == value).sum() for value in range(1, count + 1)], dtype=np.float64)


def literal_objects(pred: np.ndarray, gt: np.ndarray) -> dict[str, float]:
    """SPEC E6, objects: (N, H, W) ids of all channels, 0 for "-" and unlabelled."""
    correct = labelled = 0
    inter, union = np.zeros(len(OBJECTS) - 1), np.zeros(len(OBJECTS) - 1)
    for p, g in zip(pred, gt, strict=True):
        correct += ((p == g) & (g > 0)).sum()
        labelled += (g > 0).sum()
        p = p * (g > 0)
        own = histogram(p * (p == g), len(inter))
        inter += own
        union += histogram(p, len(inter)) + histogram(g, len(inter)) - own
    return {"mIoU": float((inter / (union + 1e-8)).mean()), "PA": float(correct / labelled)}


def literal_parts(
    object_pred: np.ndarray, part_preds: dict[int, np.ndarray], object_gt: np.ndarray, part_gt: np.ndarray
) -> dict[str, float]:
    """SPEC E6, parts: object id → (N, H, W) arg-max inside its group, 0 for its background."""
    means, accuracies = [], []
    for number, predictions in part_preds.items():
        count = len(PARTS[OBJECTS[number]])
        inter, union, correct, pixels = np.zeros(count), np.zeros(count), 0, 0
        for i in range(len(object_gt)):
            gt = part_gt[i] * (object_gt[i] == number)
            if not (gt > 0).any():  # the object's part task is not valid
                continue
            pred = predictions[i] * (object_pred[i] == number)
            correct += ((gt == pred) & (gt > 0)).sum()
            pixels += (gt > 0).sum()
            own = histogram(pred * (pred == gt), count)
            inter += own
            union += histogram(pred, count) + histogram(gt, count) - own
        if pixels:
            means.append((inter / (union + 1e-8)).mean())
            accuracies.append(correct / pixels)
    return {"mIoU-bg": float(np.mean(means)), "PA": float(np.mean(accuracies))}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 10))
def test_objects_and_parts_as_in_a_literal_reading(seed: int, images: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    thing, part = Object(labels=OBJECTS), part_task()
    p_object = rng.dirichlet(np.ones(len(OBJECTS)), (images, 3, width)).transpose(0, 3, 1, 2)
    p_part = rng.random((images, len(part.classes), 3, width))
    object_gt = rng.integers(0, len(OBJECTS), (images, 3, width))
    object_gt[0, 0, 0] = CAR
    starts = {OBJECTS.index(name): block for name, block in zip(PARTS, part.blocks, strict=True)}
    part_gt = np.zeros_like(object_gt)
    labels = np.zeros_like(object_gt)  # of the source: 0 for unlabelled, then the channels
    for number, block in starts.items():
        index = rng.integers(0, block.stop - block.start, object_gt.shape)
        index[rng.random(images) < 0.4] = 0  # images without a part of this object
        if number == CAR:
            index[0, 0, 0] = 1
        inside = object_gt == number
        part_gt[inside] = index[inside]
        labels[inside] = index[inside] + block.start + 1
    object_pred = p_object.argmax(1)
    part_preds = {number: p_part[:, block].argmax(1) for number, block in starts.items()}

    sets, parts = object_sets(thing), part_sets(part)
    objects, of_parts = thing.metric(sets, dense=True), part.metric(parts, dense=True)
    for i in range(images):
        p = torch.from_numpy(p_object[i][None])
        decoded = {"object": thing.decode(p, {})}
        objects.update(thing.predict_groups(p, sets, {}), sets.to_groups(torch.from_numpy(object_gt[i][None])))
        predicted = part.predict_groups(torch.from_numpy(p_part[i][None]), parts, decoded)
        of_parts.update(predicted, parts.to_groups(torch.from_numpy(labels[i][None])))
    assert objects.compute() == pytest.approx(literal_objects(object_pred, object_gt), abs=1e-12)
    assert of_parts.compute() == pytest.approx(literal_parts(object_pred, part_preds, object_gt, part_gt), abs=1e-12)
