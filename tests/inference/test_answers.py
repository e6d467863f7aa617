"""Answers to tasks from what the network said, for whole images and band by band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import upernet.inference.answers
from upernet.config import InferenceConfig
from upernet.errors import UserError
from upernet.inference.answers import Answers, order_tasks
from upernet.inference.upsample import resize
from upernet.inference.views import View, run_network
from upernet.labels import IGNORE, ClassSets
from upernet.resize import Window
from upernet.tasks import DenseTask, Object, Part, Scene, Semantic, Task


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


# --- answers from the order of logits -------------------------------------------------------------------------------

PARTS = {"car": ["window", "wheel"], "house": ["door"], "cat": ["ear", "paw", "tail"]}


def scattered(seed: int, names: Sequence[str], small: tuple[int, int]) -> dict[str, Tensor]:
    """Logits of two images in which neighbours are often of one class."""
    generator = torch.Generator().manual_seed(seed)
    logits = {}
    for name in names:
        coarse = torch.randn(2, {"object": 5, "part": 9}[name], 2, 3, generator=generator)
        logits[name] = (
            4 * resize(coarse, small, True) + torch.randn(2, coarse.shape[1], *small, generator=generator) / 4
        )
    return logits


def view_of(logits: Mapping[str, Tensor], align_corners: bool, size: tuple[int, int] = (24, 36), **change: Any) -> View:
    pieces = {name: [values] for name, values in logits.items()}
    settings = {"mirrored": False, "align_corners": align_corners, "resize_twice": False} | change
    return View(size, [Window.whole(size)], pieces, **settings)


def town() -> dict[str, Task]:
    tasks: dict[str, Task] = {
        "object": Object(labels=["house", "car", "tree", "cat", "sky"]),
        "part": Part(parts=PARTS),
    }
    for task in tasks.values():
        task.bind(tasks)
    return tasks


SETS = {
    "names": lambda labels: ClassSets.of(labels.names[::-1], labels),
    "few": lambda labels: ClassSets.of(labels.names[1:4], labels),
    "pairs": lambda labels: ClassSets.of(["x", "y"], labels, {"x": list(labels.names[:2]), "y": labels.names[-1]}),
}
"""Label spaces of a source: one class per label, classes without a label, a label of several classes."""


@settings(max_examples=60, deadline=None)
@given(
    small=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    align_corners=st.booleans(),
    change=st.sampled_from([{}, {"resize_twice": True}, {"mirrored": True}, {"views": 2}]),
    kind=st.sampled_from(sorted(SETS)),
    paper=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_ids_and_groups_are_those_of_the_probabilities(
    small: tuple[int, int],
    size: tuple[int, int],
    align_corners: bool,
    change: dict[str, Any],
    kind: str,
    paper: bool,
    seed: int,
) -> None:
    """Upsampled, softmax, averaged over views, decoded: equal wherever the two likeliest differ by more than rounding.

    Objects decide which parts a pixel may have, so parts are compared where the object is certain too.
    """
    tasks = town()
    change = dict(change)
    count = change.pop("views", 1)
    views = [view_of(scattered(seed + i, list(tasks), small), align_corners, **change) for i in range(count)]
    sets = {name: SETS[kind](task.classes) for name, task in tasks.items()}
    sets = {name: replace(own, protocol="paper" if paper else "mmseg") for name, own in sets.items()}
    found = maps_of(Answers(views, tasks), size, ids=tasks)
    groups = maps_of(Answers(views, tasks), size, ids=(), sets=sets)
    certain = torch.ones(2, *size, dtype=torch.bool)
    decoded: dict[str, Tensor] = {}
    for name, task in tasks.items():
        full = [view.rows(name, size, 0, size[0]) for view in views]
        p = torch.stack([task.probabilities(logits) for logits in full]).mean(0)
        blocks = task.blocks if isinstance(task, Part) else [slice(0, p.shape[1])]
        for block in blocks:  # margins in the block that decides, or in any other
            values = (p if count > 1 else full[0])[:, block]
            top = values.topk(2, dim=1).values
            certain &= top[:, 0] - top[:, 1] > 1e-4
        decoded[name] = task.decode(p, decoded)
        assert torch.equal(found[name][certain], decoded[name][certain])
        sums = sets[name].probabilities(p).topk(2, dim=1).values if kind == "pairs" else None
        sure = certain if sums is None else certain & (sums[:, 0] - sums[:, 1] > 1e-4)
        assert torch.equal(groups[name][sure], task.predict_groups(p, sets[name], decoded)[sure])


def test_no_probabilities_are_computed_where_the_order_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = town()
    asked: list[str] = []
    real = View.rows

    def spy(view: View, name: str, size: tuple[int, int], start: int, stop: int) -> Tensor:
        asked.append(name)
        return real(view, name, size, start, stop)

    monkeypatch.setattr(View, "rows", spy)
    answers = Answers([view_of(scattered(0, list(tasks), (8, 9)), False)], tasks)
    sets = {"part": SETS["names"](tasks["part"].classes)}
    assert maps_of(answers, (40, 44), ids=["object"], sets=sets)["part"].shape == (2, 40, 44)
    assert asked == []
    sets = {"object": SETS["pairs"](tasks["object"].classes)}
    assert maps_of(answers, (40, 44), ids=["object"], sets=sets).keys() == {"object"}
    assert set(asked) == {"object"}
    asked.clear()
    maps_of(answers, (40, 44), ids=["part"], probabilities=True)
    assert set(asked) == {"part"}


@dataclass(kw_only=True)
class Cautious(DenseTask):
    """A task of another package: only what is likelier than 0.6 is told; it knows nothing of choices."""

    labels: tuple[str, ...] = ("a", "b", "c")

    def decode(self, probabilities: Tensor, decoded: Mapping[str, Tensor]) -> Tensor:
        p, ids = probabilities.max(1)
        return ids.where(p > 0.6, IGNORE)


@dataclass(kw_only=True)
class Weighed(DenseTask):
    """Another: the first class counts three times."""

    labels: tuple[str, ...] = ("a", "b", "c")

    def probabilities(self, logits: Tensor) -> Tensor:
        p = super().probabilities(logits) * torch.tensor([3.0, 1, 1])[:, None, None]
        return p / p.sum(1, keepdim=True)


@pytest.mark.parametrize("task", [Cautious(), Weighed()])
def test_a_task_that_changes_how_it_decodes_gets_probabilities(task: DenseTask) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 7, generator=generator)
    answers = Answers([view_of({"own": logits}, False)], {"own": task})
    sets = SETS["names"](task.classes)
    found = maps_of(answers, (30, 41), ids=["own"])["own"]
    groups = maps_of(answers, (30, 41), ids=(), sets={"own": sets})["own"]
    p = task.probabilities(resize(logits, (30, 41), False))
    decoded = task.decode(p, {})
    assert (found == decoded).float().mean() > 0.99
    assert (groups == task.predict_groups(p, sets, {})).float().mean() > 0.99
    assert (decoded != resize(logits, (30, 41), False).argmax(1)).float().mean() > 0.1


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
