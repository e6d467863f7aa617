"""Parts of objects: one softmax per object, looked at only where a label belongs to it."""

from __future__ import annotations

import math

import pytest
import torch
from fake_data import own_labels

from upernet.errors import UserError
from upernet.labels import IGNORE, ClassSets
from upernet.tasks import Object, Part
from upernet.tasks.metrics import PartMetric

OBJECTS = ["sky", "car", "house"]
NAMES = ("house/-", "house/window", "house/door", "car/-", "car/wheel")


def make(**options: object) -> Part:
    task = Part(parts={"house": ["window", "door"], "car": ["wheel"]}, **options)  # type: ignore[arg-type]
    task.bind({"object": Object(labels=OBJECTS), "part": task})
    return task


def pixels(*rows: list[float]) -> torch.Tensor:
    """One row of pixels, (1, K, 1, W), from the values of each pixel."""
    return torch.tensor(rows).T[None, :, None]


def test_classes_are_blocks_of_no_part_and_parts() -> None:
    task = make()
    assert task.classes.names == NAMES
    assert task.blocks == [slice(0, 3), slice(3, 5)]
    assert task.needs == ("object",)
    assert task.classes.colours[0] == task.classes.colours[3] == (128, 128, 128)
    assert len(set(task.classes.colours)) == 4


def test_softmax_within_each_object() -> None:
    p = make().probabilities(pixels([0.0, math.log(2), math.log(5), 1.0, 1.0]))
    torch.testing.assert_close(p.flatten(), torch.tensor([1 / 8, 2 / 8, 5 / 8, 1 / 2, 1 / 2]))


def test_loss_is_the_mean_of_each_object_and_their_sum() -> None:
    """Three house pixels at log 8, log 4 and log 4, one of a car at log 2: (7 log 2) / 3 + log 2, not a mean of four.

    The logits of the other object's block are large and must not matter.
    """
    house, other = [0.0, math.log(2), math.log(5)], [9.0, -9.0]
    logits = pixels([*house, *other], [*house, *other], [*house, *other], [5.0, -5.0, 9.0, 1.0, 1.0], [7.0] * 5)
    target = torch.tensor([[[0, 1, 1, 4, IGNORE]]])
    task = make()
    loss = task.loss(logits, target, own_labels(task))
    assert loss.item() == pytest.approx((7 / 3 + 1) * math.log(2), rel=1e-6)


def test_a_label_moves_its_objects_block_alone() -> None:
    logits = torch.randn(1, 5, 1, 3, requires_grad=True)
    task = make()
    task.loss(logits, torch.tensor([[[1, 4, IGNORE]]]), own_labels(task)).backward()
    assert logits.grad is not None
    moved = logits.grad[0, :, 0].ne(0)
    assert moved[:, 0].tolist() == [True, True, True, False, False]
    assert moved[:, 1].tolist() == [False, False, False, True, True]
    assert moved[:, 2].tolist() == [False] * 5


def test_a_label_of_several_parts_costs_their_summed_probability() -> None:
    task = make()
    table = {"opening": ["house/window", "house/door"], "wall": "house/-", "tyre": "car/wheel", "else": None}
    sets = ClassSets.of(list(table), task.classes, table)
    logits = pixels([0.0, math.log(2), math.log(5), 0.0, 0.0])
    assert task.loss(logits, torch.tensor([[[0]]]), sets).item() == pytest.approx(-math.log(7 / 8))
    assert task.loss(logits, torch.tensor([[[3]]]), sets).item() == 0


def test_one_label_per_image_trains_every_pixel() -> None:
    task, logits = make(), torch.randn(2, 5, 3, 4)
    sets = own_labels(task)
    filled = torch.tensor([1, 4])[:, None, None].expand(2, 3, 4)
    torch.testing.assert_close(task.loss(logits, torch.tensor([1, 4]), sets), task.loss(logits, filled, sets))


def test_parts_are_decoded_inside_the_predicted_object_only() -> None:
    task = make()
    p = task.probabilities(pixels(*[[0.0, 3.0, 1.0, 0.0, 9.0]] * 3, [2.0, 0.0, 1.0, 8.0, 0.0]))
    objects = torch.tensor([[[2, 1, 0, 1]]])  # house, car, sky, car
    assert task.decode(p, {"object": objects}).tolist() == [[[1, 4, IGNORE, 3]]]
    assert task.decode(p, {"object": torch.zeros_like(objects)}).tolist() == [[[IGNORE] * 4]]


def test_prediction_in_the_merged_labels_of_a_source() -> None:
    """Window .3 and door .3 are both less likely than no part at .4; their merged label is likelier."""
    task = make()
    table = {"facade": "house/-", "opening": ["house/window", "house/door"]}
    sets = ClassSets.of(list(table), task.classes, table)
    p = pixels([0.4, 0.3, 0.3, 0.0, 1.0], [0.8, 0.1, 0.1, 0.0, 1.0], [0.4, 0.3, 0.3, 0.0, 1.0])
    objects = torch.tensor([[[2, 2, 1]]])
    assert task.decode(p, {"object": objects}).tolist() == [[[0, 0, 4]]]
    # The source knows nothing of cars: no group of its own covers the last pixel.
    assert task.predict_groups(p, sets, {"object": objects}).tolist() == [[[1, 0, IGNORE]]]


@pytest.mark.parametrize("names", [["house/door", "car/wheel"], ["house/-", "car/-"]])
def test_no_softmax_covers_parts_of_two_objects(names: list[str]) -> None:
    task = make()
    sets = ClassSets.of(["thing", "tyre"], task.classes, {"thing": names, "tyre": "car/wheel"})
    with pytest.raises(UserError, match="label 'thing' stands for parts of several objects"):
        task.loss(torch.zeros(1, 5, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64), sets)
    with pytest.raises(UserError, match="label 'thing' stands for parts of several objects"):
        task.metric(sets, dense=True)


def test_metric_knows_objects_and_no_part() -> None:
    task = make()
    table = {"glass": "house/window", "wall": "house/-", "wheel or none": ["car/-", "car/wheel"], "void": None}
    metric = task.metric(ClassSets.of(list(table), task.classes, table), dense=True)
    assert isinstance(metric, PartMetric)
    assert metric.names == ("house/window", "house/-", "wheel or none")
    assert metric.objects == ("house", "house", "car")
    assert metric.no_part == (False, True, True)


def test_what_cannot_be_measured_is_told() -> None:
    task = make()
    for dense, average in ((False, None), (True, [1])):
        with pytest.raises(UserError, match="parts are measured on maps and over all of them"):
            task.metric(own_labels(task), dense, average)


def test_mean_answer_of_an_image() -> None:
    p = pixels([0.2, 0.8, 0.0, 1.0, 0.0], [0.4, 0.0, 0.6, 0.0, 1.0])
    torch.testing.assert_close(make().image_probabilities(p), torch.tensor([[0.3, 0.4, 0.3, 0.5, 0.5]]))


def test_another_name_for_the_object_task() -> None:
    task = Part(parts={"car": ["wheel"]}, objects="things")
    task.bind({"things": Object(labels=["car"])})
    p = task.probabilities(pixels([0.0, 1.0]))
    assert task.decode(p, {"things": torch.zeros(1, 1, 1, dtype=torch.int64)}).tolist() == [[[1]]]


def test_missing_objects_are_told() -> None:
    task = Part(parts={"boat": ["mast"]})
    with pytest.raises(UserError, match="reads the objects of task 'object'; tasks: part"):
        task.bind({"part": task})
    with pytest.raises(UserError, match="unknown class 'boat'; valid: sky, car, house"):
        task.bind({"part": task, "object": Object(labels=OBJECTS)})


def test_a_part_named_twice_is_told() -> None:
    with pytest.raises(UserError, match="named twice within its object"):
        _ = Part(parts={"car": ["wheel", "wheel"]}).classes
    assert len(Part(parts={"car": ["door"], "house": ["door"]}).classes) == 4


# --- objects without a part -----------------------------------------------------------------------------------------


def rows_of(*images: list[int]) -> torch.Tensor:
    """Targets (B, 1, W) of several images."""
    return torch.tensor(images)[:, None]


def test_an_object_counts_in_the_images_that_show_a_part_of_it() -> None:
    """Two images of two house pixels and one of a car; the second image shows no part of its house.

    House: log 8 for "no part" and log 4 for a window, over two pixels; the other image's four are not counted. Car:
    log 2 for a wheel in the first image, the second image's "no part" is not counted either.
    """
    house, car = [0.0, math.log(2), math.log(5)], [0.0, 0.0]
    logits = pixels(*[[*house, *car]] * 3).repeat(2, 1, 1, 1)
    target = rows_of([0, 1, 4], [0, 0, 3])
    strict, usual = make(needs_a_part=True), make()
    expected = (math.log(8) + math.log(4)) / 2 + math.log(2)
    assert strict.loss(logits, target, own_labels(strict)).item() == pytest.approx(expected, rel=1e-6)
    usually = (3 * math.log(8) + math.log(4)) / 4 + math.log(2)
    assert usual.loss(logits, target, own_labels(usual)).item() == pytest.approx(usually, rel=1e-6)


def test_background_inside_the_mask_trains_where_a_part_is_shown_and_nowhere_else() -> None:
    task = make(needs_a_part=True)
    logits = torch.randn(2, 5, 1, 3, requires_grad=True)
    task.loss(logits, rows_of([0, 1, IGNORE], [0, 4, 3]), own_labels(task)).backward()
    assert logits.grad is not None
    moved = logits.grad[:, :, 0].ne(0).any(1)
    assert moved.tolist() == [[True, True, False], [False, True, True]]


def test_no_image_that_shows_a_part_is_no_loss() -> None:
    task = make(needs_a_part=True)
    logits = torch.randn(1, 5, 1, 3, requires_grad=True)
    loss = task.loss(logits, rows_of([0, 0, 3]), own_labels(task))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_label_that_may_be_no_part_shows_none() -> None:
    task = make(needs_a_part=True)
    table = {"wheel or none": ["car/-", "car/wheel"], "wheel": "car/wheel"}
    sets = ClassSets.of(list(table), task.classes, table)
    logits = pixels([0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0])
    assert task.loss(logits, rows_of([0, 0]), sets).item() == 0
    assert task.loss(logits, rows_of([0, 1]), sets).item() == pytest.approx(math.log(2) / 2)


def test_parts_of_a_published_list() -> None:
    task = Part(parts="broden_plus")
    assert (len(task.blocks), len(task.classes), task.blocks[1]) == (77, 427, slice(2, 26))
    assert task.classes.names[:3] == ("sky/-", "sky/cloud", "building/-")
    with pytest.raises(UserError, match="no list of parts 'pascal'; valid: broden_plus, or the parts themselves"):
        _ = Part(parts="pascal").classes
