"""A model that sees through the pictures, and one that is wrong in a known way, measured on sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import blocks, picture
from torch import Tensor

from upernet.config import InferenceConfig
from upernet.data.config import DataConfig, SourceConfig, TargetConfig
from upernet.data.mixture import LabelledSource, bind_sources
from upernet.data.source import Annotation, Item, Source
from upernet.engine.evaluator import evaluate_source, measured_targets, predict_groups, true_groups
from upernet.errors import WorkError
from upernet.labels import IGNORE, MetricProtocol
from upernet.tasks import Object, Part, Scene, Semantic, Task

LABELS = ["sky", "car", "wheel", "void"]


class Coloured(Source):
    """Pictures whose colours tell their labels exactly, with a mask and an image-level label."""

    layout = "nothing"
    size = (32, 48)
    count = 3

    @property
    def annotations(self) -> dict[str, Annotation]:
        return {"mask": Annotation(tuple(LABELS), dense=True), "kind": Annotation(("empty", "busy"), dense=False)}

    def items(self, split: str) -> list[Item]:
        return [Item(f"{split}_{i}", Path(__file__), {"kind": i % 2}) for i in range(self.count)]

    def read(self, item: Item) -> tuple[np.ndarray, dict[str, Any]]:
        mask = blocks(item.id, range(4), self.size)
        return picture(mask), {"mask": mask, **item.annotations}


CPU = torch.device("cpu")


class Seer:
    """Logits at full size from the distance of a pixel's colour to each label's; what was asked last is remembered.

    No module of PyTorch: whatever has the call of a network can be measured.
    """

    upsampling_align_corners = False

    def __init__(self, answers: dict[str, Tensor], image_logits: dict[str, Tensor] | None = None) -> None:
        self.colours = torch.from_numpy(picture(np.arange(4))).float()
        self.answers, self.image_logits = answers, image_logits or {}

    def __call__(self, image: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        self.asked, self.seen = set(tasks), tuple(image.shape)
        distance = (image[0, None] * 255 - self.colours[:, :, None, None]).abs().sum(1)
        label = distance.argmin(0)
        logits = {n: t[label].permute(2, 0, 1)[None] * 20 for n, t in self.answers.items() if n in tasks}
        return logits | {n: t[None] for n, t in self.image_logits.items() if n in tasks}


def bind(tasks: dict[str, Task], protocol: MetricProtocol = "mmseg", **targets: TargetConfig) -> LabelledSource:
    for task in tasks.values():
        task.bind(tasks)
    config = SourceConfig(dataset=Coloured(root="."), targets=targets)
    return bind_sources(DataConfig(sources={"drawn": config}, protocol=protocol), tasks)["drawn"]


def evaluate(model: Seer, tasks: dict[str, Task], source: LabelledSource, **options: Any) -> list[Any]:
    inference = InferenceConfig(**options.pop("inference", {}))
    return evaluate_source(model, tasks, source, inference, device=CPU, **options)


CLASSES = ["sky", "car"]
MEANING = {"wheel": "car", "void": None}
RIGHT = torch.tensor([[1.0, 0], [0, 1], [0, 1], [1, 0]])
"""Label → class: sky is sky; car and wheel are car; void, unlabelled, is called sky."""


def test_a_perfect_model() -> None:
    tasks: dict[str, Task] = {"object": Object(labels=CLASSES)}
    source = bind(tasks, object=TargetConfig(classes=MEANING, annotation="mask"))
    (result,) = evaluate(Seer({"object": RIGHT}), tasks, source)
    assert (result.source, result.task, result.images) == ("drawn", "object", 3)
    assert result.values == {"mIoU": 1.0, "mAcc": 1.0, "PA": 1.0}
    assert list(result.per_class) == ["sky", "car"]


def test_a_model_that_takes_wheels_for_sky() -> None:
    """Every count from the masks themselves."""
    tasks: dict[str, Task] = {"object": Object(labels=CLASSES)}
    source = bind(tasks, object=TargetConfig(classes=MEANING, annotation="mask"))
    wrong = RIGHT.clone()
    wrong[2] = torch.tensor([1.0, 0])
    (result,) = evaluate(Seer({"object": wrong}), tasks, source)
    masks = np.stack([blocks(f"val_{i}", range(4), Coloured.size) for i in range(3)])
    sky, car, wheel = ((masks == i).sum() for i in range(3))
    assert result.per_class["sky"]["IoU"] == pytest.approx(sky / (sky + wheel))
    assert result.per_class["car"]["IoU"] == pytest.approx(car / (car + wheel))
    assert result.values["PA"] == pytest.approx((sky + car) / (sky + car + wheel))


def test_a_class_that_no_label_names_is_a_mistake_by_the_papers_protocol() -> None:
    """The network takes wheels for boats, of which the source knows nothing. The usual figures never see a boat."""
    tasks: dict[str, Task] = {"object": Object(labels=["sky", "car", "boat"])}
    answers = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0.5, 1], [1, 0, 0]])
    masks = np.stack([blocks(f"val_{i}", range(4), Coloured.size) for i in range(3)])
    sky, car, wheel = ((masks == i).sum() for i in range(3))
    target = TargetConfig(classes=MEANING, annotation="mask")
    (usual,) = evaluate(Seer({"object": answers}), tasks, bind(tasks, object=target))
    assert (usual.protocol, usual.values["PA"]) == ("mmseg", 1.0)
    saved = []
    (paper,) = evaluate(
        Seer({"object": answers}),
        tasks,
        bind(tasks, "paper", object=target),
        save=lambda item, task, supervision, groups: saved.append(groups),
    )
    assert paper.protocol == "paper"
    assert paper.values == pytest.approx(
        {"mIoU": (1 + car / (car + wheel)) / 2, "PA": (sky + car) / (sky + car + wheel)}
    )
    assert np.array_equal(torch.stack(saved).numpy() == IGNORE, masks == 2)


def test_maps_are_compared_at_the_labels_own_size() -> None:
    tasks: dict[str, Task] = {"object": Object(labels=CLASSES)}
    source = bind(tasks, object=TargetConfig(classes=MEANING, annotation="mask"))
    model = Seer({"object": RIGHT})
    sample = source.sample(source.items("val")[0])
    measured = measured_targets(tasks, source)
    predicted = predict_groups(model, tasks, measured, sample.image, InferenceConfig(short_side=64), CPU)["object"]
    truth = true_groups(tasks, measured, sample, CPU)["object"]
    assert model.seen == (1, 3, 64, 96)
    assert (tuple(predicted.shape), tuple(truth.shape)) == ((1, 32, 48), (1, 32, 48))
    assert (predicted == truth)[truth != IGNORE].float().mean() > 0.6


def test_an_image_level_answer_is_measured_as_top_1() -> None:
    """Kinds 0, 1, 0; the model always says the first class, which the source calls busy."""
    tasks: dict[str, Task] = {"scene": Scene(labels=["crowd", "desert"])}
    target = TargetConfig(classes={"busy": "crowd", "empty": "desert"}, annotation="kind")
    model = Seer({}, {"scene": torch.tensor([1.0, 0.0])})
    (result,) = evaluate(model, tasks, bind(tasks, scene=target))
    assert (result.images, result.values) == (3, {"top-1": pytest.approx(1 / 3)})
    assert result.per_class == {"desert": {"top-1": 0.0}, "crowd": {"top-1": 1.0}}


def test_a_dense_task_may_be_measured_by_one_label_per_image() -> None:
    tasks: dict[str, Task] = {"material": Object(labels=["paper", "glass"])}
    target = TargetConfig(classes={"empty": "paper", "busy": "glass"}, annotation="kind")
    everywhere_glass = torch.tensor([[0.0, 1.0]] * 4)
    (result,) = evaluate(Seer({"material": everywhere_glass}), tasks, bind(tasks, material=target))
    assert (result.images, result.values) == (3, {"top-1": pytest.approx(1 / 3)})


def test_sets_are_measured_in_the_sources_own_labels() -> None:
    """The source says "car or sky" and "wheel"; predicting sky where it means a car is right there."""
    tasks: dict[str, Task] = {"object": Object(labels=["sky", "car", "wheel"])}
    meaning = {"sky": ["sky", "car"], "car": ["sky", "car"], "wheel": "wheel", "void": None}
    always_sky_or_wheel = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]])
    source = bind(tasks, object=TargetConfig(classes=meaning, annotation="mask"))
    (result,) = evaluate(Seer({"object": always_sky_or_wheel}), tasks, source)
    assert result.values == {"mIoU": 1.0, "mAcc": 1.0, "PA": 1.0}
    assert list(result.per_class) == ["sky", "wheel"]


def test_parts_are_taken_inside_predicted_objects_though_the_source_measures_none() -> None:
    tasks: dict[str, Task] = {"part": Part(parts={"car": ["wheel"]}), "object": Object(labels=CLASSES)}
    meaning = {"sky": None, "car": "car/-", "wheel": "car/wheel", "void": None}
    source = bind(tasks, part=TargetConfig(classes=meaning, annotation="mask"))
    right = torch.tensor([[0.0, 1], [1, 0], [0, 1], [0, 1]])  # outside cars it says wheel, which must not count
    model = Seer({"object": RIGHT, "part": right})
    (result,) = evaluate(model, tasks, source)
    assert model.asked == {"part", "object"}
    assert (result.task, result.values) == ("part", {"mIoU-bg": 1.0, "PA": 1.0})
    blind = Seer({"object": torch.tensor([[1.0, 0]] * 4), "part": right})
    assert evaluate(blind, tasks, source)[0].values == {"mIoU-bg": 0.0, "PA": 0.0}


def test_only_what_is_marked_is_measured() -> None:
    tasks: dict[str, Task] = {
        "object": Object(labels=CLASSES),
        "helper": Semantic(labels=CLASSES, target="object", auxiliary=True),
        "other": Semantic(labels=CLASSES),
        "scene": Scene(labels=["x"]),
    }
    source = bind(
        tasks,
        object=TargetConfig(classes=MEANING, annotation="mask"),
        other=TargetConfig(classes=MEANING, annotation="mask", evaluate=False),
        scene=TargetConfig(constant=["x"]),
    )
    model = Seer({"object": RIGHT, "helper": RIGHT, "other": RIGHT}, {"scene": torch.zeros(1)})
    results = evaluate(model, tasks, source)
    assert [result.task for result in results] == ["object"]
    assert model.asked == {"object"}


def test_nothing_to_measure_reads_nothing() -> None:
    tasks: dict[str, Task] = {"scene": Scene(labels=["x"])}
    source = bind(tasks, scene=TargetConfig(constant=["x"]))
    called: list[int] = []
    assert evaluate(Seer({}), tasks, source, advance=lambda: called.append(1)) == []
    assert called == []


def test_every_image_is_told_of() -> None:
    tasks: dict[str, Task] = {"object": Object(labels=CLASSES)}
    source = bind(tasks, object=TargetConfig(classes=MEANING, annotation="mask"))
    called: list[int] = []
    (result,) = evaluate(Seer({"object": RIGHT}), tasks, source, advance=lambda: called.append(1))
    assert result.images == len(called) == 3


def test_images_without_a_label_are_not_counted() -> None:
    tasks: dict[str, Task] = {"object": Object(labels=CLASSES), "scene": Scene(labels=["crowd"])}
    source = bind(
        tasks,
        object=TargetConfig(classes=dict.fromkeys(LABELS, None) | {"car": "car"}, annotation="mask"),
        scene=TargetConfig(classes={"busy": "crowd", "empty": None}, annotation="kind"),
    )
    results = evaluate(Seer({"object": RIGHT}, {"scene": torch.zeros(1)}), tasks, source)
    assert {result.task: result.images for result in results} == {"object": 3, "scene": 1}
    assert results[1].values == {"top-1": 1.0}


def test_windows_scales_and_flips_see_a_perfect_model_too() -> None:
    tasks: dict[str, Task] = {"object": Object(labels=CLASSES)}
    source = bind(tasks, object=TargetConfig(classes=MEANING, annotation="mask"))
    for inference in ({"window": (32, 32), "stride": (16, 9)}, {"flip": True}):
        (result,) = evaluate(Seer({"object": RIGHT}), tasks, source, inference=inference)
        assert result.values == {"mIoU": 1.0, "mAcc": 1.0, "PA": 1.0}
        assert result.further["SceneParse150"] == 1.0


class Unlabelled(Coloured):
    """The same pictures, nobody's labels."""

    def items(self, split: str) -> list[Item]:
        return [Item(item.id, item.image) for item in super().items(split)]

    def read(self, item: Item) -> tuple[np.ndarray, dict[str, Any]]:
        return super().read(item)[0], {}


@pytest.mark.parametrize("dataset", [Coloured, Unlabelled])
def test_maps_are_handed_over_with_and_without_labels(dataset: type[Source]) -> None:
    tasks: dict[str, Task] = {"object": Object(labels=CLASSES), "scene": Scene(labels=["crowd", "desert"])}
    for task in tasks.values():
        task.bind(tasks)
    targets = {
        "object": TargetConfig(classes=MEANING, annotation="mask"),
        "scene": TargetConfig(classes={"busy": "crowd", "empty": "desert"}, annotation="kind"),
    }
    config = SourceConfig(dataset=dataset(root="."), targets=targets)
    source = bind_sources(DataConfig(sources={"drawn": config}), tasks)["drawn"]
    saved: dict[str, Tensor] = {}

    def save(item: str, task: str, supervision: Any, groups: Tensor) -> None:
        assert (task, supervision.sets.group_names) == ("object", ("sky", "car"))
        saved[item] = groups

    model = Seer({"object": RIGHT}, {"scene": torch.tensor([1.0, 0.0])})
    results = evaluate(model, tasks, source, save=save)
    assert list(saved) == ["val_0", "val_1", "val_2"]
    for name, groups in saved.items():
        label = blocks(name, range(4), Coloured.size)
        assert np.array_equal(groups.numpy(), (label == 1) | (label == 2))
    assert {result.images for result in results} == ({3} if dataset is Coloured else {0})


def test_shares_of_the_images_are_all_of_them() -> None:
    tasks: dict[str, Task] = {"object": Object(labels=CLASSES)}
    source = bind(tasks, object=TargetConfig(classes=MEANING, annotation="mask"))
    seen: list[list[str]] = []
    for rank in range(2):
        seen.append([])
        with pytest.raises((WorkError, ValueError)):  # there is no other process to sum with
            evaluate(
                Seer({"object": RIGHT}),
                tasks,
                source,
                rank=rank,
                world=2,
                save=lambda item, task, supervision, groups: seen[-1].append(item),
            )
    assert seen == [["val_0", "val_2"], ["val_1"]]
