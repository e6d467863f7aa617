"""Answers to tasks from what the network said, for whole images and band by band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import upernet.inference.answers
from upernet.config import InferenceConfig
from upernet.errors import UserError
from upernet.inference.answers import Answers, order_tasks
from upernet.inference.views import run_network
from upernet.labels import IGNORE, ClassSets
from upernet.tasks import Object, Part, Scene, Semantic, Task


class Sided(nn.Module):
    """Says the left half of what it sees is the first class, with a certainty that depends on the size it sees."""

    upsampling_align_corners = False

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def forward(self, image: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        self.seen.append((image.shape[2], image.shape[3]))
        certainty = {64: 0.5, 32: 0.75, 128: 0.625}[image.shape[2]]
        logits = torch.tensor([[certainty, 1 - certainty]]).log()
        left = logits[:, :, None, None].expand(1, 2, 1, 2).clone()
        left[0, :, 0, 1] = logits[0].flip(0)
        scene = logits if image[0, 0, 0, 0] < 0.5 else logits.flip(1)
        return {"semantic": left.repeat_interleave(image.shape[2], 2).repeat_interleave(32, 3), "scene": scene}


def test_views_by_hand() -> None:
    """Scales 0.5, 1 and 2 with certainties 3/4, 1/2 and 5/8; mirrored, the left half is said of the right one.

    The picture is dark on its left and bright on its right, which turns the answer about the whole in mirrored views.
    """
    tasks: dict[str, Task] = {"scene": Scene(labels=["x", "y"]), "semantic": Semantic(labels=["x", "y"])}
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    images[..., 32:] = 255
    for flip, left, whole in ((False, (0.75 + 0.5 + 0.625) / 3, (0.75 + 0.5 + 0.625) / 3), (True, 0.5, 0.5)):
        model = Sided()
        config = InferenceConfig(short_side=64, scales=(0.5, 1, 2), flip=flip)
        answers = Answers(run_network(model, images, config, list(tasks)), tasks)
        bands = answers.bands((64, 64), ["semantic"], probabilities=True)
        p = torch.cat([band.probabilities["semantic"] for band in bands], 2)
        assert model.seen == [(side, side) for side in (32, 64, 128) for _ in range(1 + flip)]
        assert p[0, 0, 0, 0].item() == pytest.approx(left)
        assert p[0, 0, -1, -1].item() == pytest.approx(1 - left)
        assert answers.probabilities("scene")[0].tolist() == pytest.approx([whole, 1 - whole])
        assert answers.image_probabilities("semantic")[0].tolist() == pytest.approx([0.5, 0.5])


# --- several tasks --------------------------------------------------------------------------------------------------


class Colours:
    """No module of PyTorch: logits of a scene, two objects and their parts from the colours of the pixels.

    Red is a house, green a car; in a car, blue is a window. A bright image is a day.
    """

    upsampling_align_corners = True

    def __call__(self, image: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        red, green, blue = image.unbind(1)
        mean = image.mean((1, 2, 3))
        logits = {
            "scene": torch.stack([mean, 1 - mean], 1),
            "object": torch.stack([red, green], 1)[..., ::2, ::2],
            "part": torch.stack([0.5 - 0 * blue, blue], 1)[..., ::2, ::2],
        }
        return {name: 20 * logits[name] for name in tasks}


@dataclass(kw_only=True)
class Counted(Object):
    """Counts what it is asked to do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.decoded = self.grouped = 0

    def decode(self, probabilities: Tensor, decoded: Mapping[str, Tensor]) -> Tensor:
        self.decoded += 1
        return super().decode(probabilities, decoded)

    def predict_groups(self, probabilities: Tensor, sets: ClassSets, decoded: Mapping[str, Tensor]) -> Tensor:
        self.grouped += 1
        return super().predict_groups(probabilities, sets, decoded)


def street() -> dict[str, Task]:
    tasks: dict[str, Task] = {
        "part": Part(parts={"car": ["window"]}),
        "scene": Scene(labels=["day", "night"]),
        "object": Counted(labels=["house", "car"]),
    }
    for task in tasks.values():
        task.bind(tasks)
    return tasks


def painted() -> Tensor:
    """(2, 3, 32, 40) uint8: left half house, right half car with a window above; the same mirrored and bright."""
    image = torch.zeros(3, 32, 40, dtype=torch.uint8)
    image[0, :, :20], image[1, :, 20:], image[2, :16] = 200, 200, 200
    second = image.flip(-1).clone()
    second[2] = 255
    second[second == 200] = 255
    return torch.stack([image, second])


def maps_of(answers: Answers, size: tuple[int, int], **asked: Any) -> dict[str, Tensor]:
    """Task → (B, H, W) of ids or groups, and task → (B, K, H, W) under `task p` where probabilities are asked for."""
    pieces: dict[str, list[Tensor]] = {}
    end = 0
    for band in answers.bands(size, **asked):
        assert band.start == end < band.stop
        end = band.stop
        named = band.ids | band.groups | {f"{name} p": p for name, p in band.probabilities.items()}
        for name, rows in named.items():
            assert rows.shape[-2:] == (band.stop - band.start, size[1])
            pieces.setdefault(name, []).append(rows)
    assert end == size[0] or not pieces
    return {name: torch.cat(rows, -2) for name, rows in pieces.items()}


@pytest.mark.parametrize("band", [2 * 2 * 40 * 3, 2**19])
def test_a_network_that_is_no_module_answers_every_task(band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upernet.inference.answers, "BAND", band)
    tasks = street()
    answers = Answers(run_network(Colours(), painted(), InferenceConfig(), list(tasks)), tasks)
    assert (answers.maps, answers.image_level, list(answers.tasks)) == (
        ["object", "part"], ["scene"], ["scene", "object", "part"],
    )  # fmt: skip
    assert {name: ids.tolist() for name, ids in answers.image_ids(tasks).items()} == {"scene": [1, 0]}
    found = maps_of(answers, (32, 40), ids=tasks)
    assert found.keys() == {"object", "part"}
    assert found["object"].dtype == found["part"].dtype == torch.int64
    assert (found["object"][0, :, :19] == 0).all() and (found["object"][0, :, 21:] == 1).all()
    assert (found["object"][1] == found["object"][0].flip(-1)).float().mean() > 0.9
    assert (found["part"][0, :, :19] == IGNORE).all()
    assert (found["part"][0, :14, 21:] == 1).all() and (found["part"][0, 18:, 21:] == 0).all()
    assert (found["part"][1, :, :19] == 1).all() and (found["part"][1, :, 21:] == IGNORE).all()


@pytest.mark.parametrize("band", [5 * 40 * 2, 2**19])
@pytest.mark.parametrize(
    "change",
    [{}, {"window": (32, 32), "stride": (16, 9)}, {"short_side": 48, "flip": True, "scales": (0.75, 1.0)}],
    ids=str,
)
def test_two_images_are_answered_as_each_alone(
    change: dict[str, Any], band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that answer once per image, and parts that need the object, among them."""
    monkeypatch.setattr(upernet.inference.answers, "BAND", band)
    tasks, images, config = street(), painted(), InferenceConfig(**change)
    both = Answers(run_network(Colours(), images, config, list(tasks)), tasks)
    singles = [Answers(run_network(Colours(), image[None], config, list(tasks)), tasks) for image in images]
    together = maps_of(both, (32, 40), ids=tasks, probabilities=True)
    alone = [maps_of(one, (32, 40), ids=tasks, probabilities=True) for one in singles]
    assert together.keys() == {"object", "part", "object p", "part p"}
    for name in ("object p", "part p"):
        torch.testing.assert_close(together[name], torch.cat([one[name] for one in alone]))
    for name in ("object", "part"):
        assert (together[name] == torch.cat([one[name] for one in alone])).float().mean() > 0.99
    for name in tasks:
        expected = torch.cat([one.image_probabilities(name) for one in singles])
        torch.testing.assert_close(both.image_probabilities(name), expected)
    assert both.image_ids(tasks)["scene"].tolist() == [int(one.image_ids(tasks)["scene"]) for one in singles]


def test_the_size_of_the_answer_is_that_which_is_asked_for() -> None:
    tasks = street()
    answers = Answers(run_network(Colours(), painted(), InferenceConfig(), list(tasks)), tasks)
    small, large = (maps_of(answers, size, ids=["object"])["object"] for size in ((16, 20), (96, 120)))
    assert (small.shape, large.shape) == ((2, 16, 20), (2, 96, 120))
    assert (large[:, 1::6, 1::6] == small).float().mean() > 0.9


def test_only_what_is_needed_is_decoded() -> None:
    """Groups of parts need the ids of objects; groups of objects need nothing."""
    tasks = street()
    counted: Any = tasks["object"]
    sets = {
        "object": ClassSets.of(["building", "car"], tasks["object"].classes, {"building": "house"}),
        "part": ClassSets.of(["glass", "rest"], tasks["part"].classes, {"glass": "car/window", "rest": "car/-"}),
    }
    answers = Answers(run_network(Colours(), painted(), InferenceConfig(), list(tasks)), tasks)
    found = maps_of(answers, (32, 40), ids=(), sets={"object": sets["object"]})
    assert (counted.decoded, counted.grouped, found.keys()) == (0, 1, {"object"})
    assert (found["object"][0, :, 21:] == 1).all()
    found = maps_of(answers, (32, 40), ids=(), sets={"part": sets["part"]}, probabilities=True)
    assert (counted.decoded, counted.grouped, found.keys()) == (1, 1, {"part", "part p"})
    assert (found["part"][0, :14, 21:] == 0).all() and (found["part"][0, :, :19] == IGNORE).all()
    assert maps_of(answers, (32, 40), ids=["scene"]) == {}
    assert counted.decoded == 1


@dataclass(kw_only=True)
class Evening(Semantic):
    """At night the answer is the last class, whatever the probabilities."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("scene",)

    def decode(self, probabilities: Tensor, decoded: Mapping[str, Tensor]) -> Tensor:
        night = decoded["scene"][:, None, None] == 1
        return torch.where(night, probabilities.shape[1] - 1, super().decode(probabilities, decoded))


def test_a_map_may_need_an_answer_about_its_image() -> None:
    class Evenings(Colours):
        def __call__(self, image: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
            flat = torch.tensor([9.0, 0, 0])[None, :, None, None].expand(len(image), 3, 2, 2)
            return super().__call__(image, ["scene"]) | {"evening": flat}

    tasks: dict[str, Task] = {"evening": Evening(labels=["a", "b", "c"]), "scene": Scene(labels=["day", "night"])}
    answers = Answers(run_network(Evenings(), painted(), InferenceConfig(), list(tasks)), tasks)
    found = maps_of(answers, (32, 40), ids=["evening"])["evening"]
    assert (found[0] == 2).all() and (found[1] == 0).all()


@pytest.mark.parametrize("config", [InferenceConfig(), InferenceConfig(short_side=64, resize_twice=True)])
def test_a_band_holds_no_more_values_than_it_may(config: InferenceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images count: a band of two has half the rows; on the way through a larger input so do that one's rows."""
    monkeypatch.setattr(upernet.inference.answers, "BAND", 2000)
    tasks: dict[str, Task] = {"object": street()["object"]}
    rows = []
    for images in (painted()[:1], painted()):
        answers = Answers(run_network(Colours(), images, config, list(tasks)), tasks)
        bands = list(answers.bands((32, 40), ["object"], probabilities=True))
        rows.append(bands[0].stop)
        across = 40 if config.short_side is None else 64 * 80 // 32
        assert rows[-1] == max(1, 2000 // (len(images) * 2 * across))
        assert all(band.probabilities["object"].numel() <= 2000 for band in bands)
    assert rows[0] // 2 == rows[1]


# --- order of tasks -------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Waiting(Scene):
    """Wants to see other tasks' answers first."""

    after: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        return self.after


def test_each_task_comes_after_those_it_needs_and_otherwise_where_it_was() -> None:
    tasks: dict[str, Task] = {
        "part": Part(),
        "scene": Scene(),
        "late": Waiting(after=("part", "scene")),
        "object": Object(),
        "alone": Waiting(after=("not here",)),
    }
    assert list(order_tasks(tasks)) == ["scene", "object", "alone", "part", "late"]
    assert all(order_tasks(tasks)[name] is task for name, task in tasks.items())


def test_tasks_in_a_circle_are_told() -> None:
    tasks: dict[str, Task] = {"a": Waiting(after=("b",)), "b": Waiting(after=("a",)), "c": Scene()}
    with pytest.raises(UserError, match=r"tasks need one another in a circle: a, b$"):
        order_tasks(tasks)


def test_tasks_that_are_asked_for_bring_those_they_need() -> None:
    tasks: dict[str, Task] = {
        "last": Waiting(after=("middle", "not here")),
        "middle": Waiting(after=("first",)),
        "first": Scene(),
        "other": Scene(),
    }
    assert list(order_tasks(tasks, ["last"])) == ["first", "middle", "last"]
    assert list(order_tasks(tasks, ["other", "first"])) == ["first", "other"]
    assert order_tasks(tasks, []) == {}
