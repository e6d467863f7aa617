"""Sources bound to tasks, and their mixture: batches that are a pure function of the step."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import Memory, class_folder, facade, image_mask_folder
from PIL import Image
from torch.utils.data import DataLoader

from upernet.data import ClassFolder, Facade, ImageMaskFolder, Item
from upernet.data.config import AugmentConfig, DataConfig, SourceConfig, TargetConfig
from upernet.data.mixture import LabelledSource, SourceMixture, bind_sources
from upernet.data.sample import Batch, Sample
from upernet.errors import UserError, WorkError
from upernet.labels import IGNORE
from upernet.tasks import Object, Part, Scene, Semantic, Task

LEVELS = ["low", "middle", "high"]
TASKS: dict[str, Task] = {
    "object": Object(labels=LEVELS),
    "scene": Scene(labels=["low", "middle", "high", "inside"]),
}
AUGMENT = AugmentConfig(crop=(32, 40), brightness=0.2)


def sources(**options: dict[str, Any]) -> dict[str, LabelledSource]:
    """Memory sources by name: `images`, `salt`, `dense` … of the data set, the rest of the source."""
    made = {}
    for number, (name, values) in enumerate(options.items()):
        own = {key: values.pop(key) for key in list(values) if key in ("images", "dense", "size", "unlabelled")}
        targets = values.pop("targets", {"object": TargetConfig()})
        made[name] = SourceConfig(dataset=Memory(salt=number, **own), targets=targets, **values)
    return bind_sources(DataConfig(sources=made), TASKS)


def mixture(bound: dict[str, LabelledSource], steps: int = 20, batch: int = 2, **options: Any) -> SourceMixture:
    data = DataConfig(augment=AUGMENT, batch=batch)
    return SourceMixture(list(bound.values()), data, steps=steps, **({"seed": 0} | options))


def assert_equal(one: Batch, other: Batch) -> None:
    assert (one.source, one.ids, one.targets.keys()) == (other.source, other.ids, other.targets.keys())
    assert torch.equal(one.image, other.image)
    assert all(torch.equal(one.targets[key], other.targets[key]) for key in one.targets)


# --- batches --------------------------------------------------------------------------------------------------------


def test_a_batch_comes_from_one_source() -> None:
    bound = sources(
        maps={"batch": 3},
        whole={"dense": False, "targets": {"scene": TargetConfig(), "object": TargetConfig(constant=["low", "high"])}},
    )
    seen = set()
    for step in range(12):
        batch = mixture(bound)[step]
        seen.add(batch.source)
        assert all(id_.startswith("train_") for id_ in batch.ids)
        assert (batch.image.dtype, tuple(batch.image.shape[1:])) == (torch.float32, (3, 32, 40))
        assert 0 <= batch.image.min() < batch.image.max() <= 1
        shapes = {key: tuple(value.shape) for key, value in batch.targets.items()}
        assert all(value.dtype == torch.int64 for value in batch.targets.values())
        if batch.source == "maps":
            assert (len(batch.ids), shapes) == (3, {"object": (3, 32, 40)})
        else:
            assert (len(batch.ids), shapes) == (2, {"scene": (2,), "object": (2,)})
            assert batch.targets["object"].tolist() == [0, 0]
    assert seen == {"maps", "whole"}


def test_a_step_is_a_pure_function() -> None:
    """The same in any order, asked twice, by another object, whatever the global generator did, which is left alone."""
    bound = sources(a={}, b={"dense": False, "targets": {"scene": TargetConfig()}})
    one, other = mixture(bound), mixture(bound)
    forward = [one[step] for step in range(10)]
    torch.manual_seed(99)
    before = torch.get_rng_state()
    backward = [other[step] for step in reversed(range(10))][::-1]
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(forward, backward, strict=True):
        assert_equal(a, b)
    assert_equal(one[3], forward[3])


def test_workers_change_nothing() -> None:
    bound = sources(a={}, b={})
    alone, helped = (
        list(DataLoader(mixture(bound, steps=6), batch_size=None, sampler=range(2, 6), num_workers=n)) for n in (0, 1)
    )
    assert len(alone) == 4
    for a, b in zip(alone, helped, strict=True):
        assert_equal(a, b)


def test_seeds_give_different_runs() -> None:
    bound = sources(a={"images": 50}, b={"images": 50})
    one, other = mixture(bound, steps=100), mixture(bound, steps=100, seed=1)
    assert one.choices.tolist() != other.choices.tolist()
    assert one[0].ids != other[0].ids or not torch.equal(one[0].image, other[0].image)


def test_one_image_is_not_always_cut_alike() -> None:
    bound = sources(a={"images": 1})
    views = {mixture(bound, batch=1)[step].image.numpy().tobytes() for step in range(4)}
    assert len(views) == 4
    batch = mixture(bound, batch=4)[0]
    assert len({view.numpy().tobytes() for view in batch.image}) == 4


# --- order ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2])
def test_every_image_once_before_any_twice(world: int) -> None:
    """Ten images, batches of three, so that epochs begin within batches."""
    bound = sources(a={"images": 10})
    ranks = [mixture(bound, steps=10, batch=3, rank=rank, world=world) for rank in range(world)]
    ids = [id_ for step in range(10) for rank in ranks for id_ in rank[step].ids]
    epochs = [ids[i : i + 10] for i in range(0, 10 * (len(ids) // 10), 10)]
    everything = {f"train_{i}" for i in range(10)}
    assert all(set(epoch) == everything for epoch in epochs)
    assert len(epochs) == 3 * world
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    assert all(epoch != sorted(epoch) for epoch in epochs)


def test_ranks_share_the_source_and_divide_its_images() -> None:
    bound = sources(a={"images": 12}, b={"images": 12})
    ranks = [mixture(bound, steps=8, rank=rank, world=3) for rank in range(3)]
    for step in range(8):
        batches = [rank[step] for rank in ranks]
        assert len({batch.source for batch in batches}) == 1
        assert len({id_ for batch in batches for id_ in batch.ids}) == 6


def test_a_longer_run_begins_with_the_shorter_one() -> None:
    bound = sources(a={}, b={})
    short, long = mixture(bound, steps=40), mixture(bound, steps=1000)
    assert (len(short), len(long)) == (40, 1000)
    assert short.choices.tolist() == long.choices[:40].tolist()
    assert_equal(short[39], long[39])


# --- shares ---------------------------------------------------------------------------------------------------------


def test_shares_follow_the_weights() -> None:
    bound = sources(a={"weight": 1.0}, b={"weight": 2.0}, c={"weight": 5.0}, never={"weight": 0.0})
    made = mixture(bound, steps=20_000)
    expected = np.array([1, 2, 5, 0]) / 8
    np.testing.assert_allclose(made.shares, expected)
    counts = np.bincount(made.choices, minlength=4)
    deviation = np.sqrt(20_000 * expected * (1 - expected))
    assert (np.abs(counts - 20_000 * expected) <= 4 * deviation).all()
    # Independent draws, not blocks: a source follows itself as often as its share says.
    again = (made.choices[1:] == 2) & (made.choices[:-1] == 2)
    assert again.mean() == pytest.approx((5 / 8) ** 2, abs=0.02)


def test_without_weights_shares_are_the_numbers_of_images() -> None:
    assert mixture(sources(a={"images": 3}, b={"images": 9})).shares.tolist() == [0.25, 0.75]


def test_a_source_may_be_kept_for_evaluation() -> None:
    made = mixture(sources(a={}, later={"train": None}))
    assert [source.name for source in made.sources] == ["a"]
    with pytest.raises(UserError, match=r"no source to train on; name a split in data\.sources\.<name>\.train"):
        mixture(sources(later={"train": None}))


def test_bad_weights_are_told() -> None:
    with pytest.raises(UserError, match=r"data\.sources\.<name>\.weight: \[0\.0, 0\.0\] must be ≥ 0 and not all 0"):
        mixture(sources(a={"weight": 0.0}, b={"weight": 0.0}))
    with pytest.raises(UserError, match=r"weight: -1\.0 is not at least 0"):
        sources(a={"weight": -1.0})


def test_a_source_may_have_its_own_batch_and_augmentation() -> None:
    bound = sources(a={"batch": 5, "augment": AugmentConfig(crop=(48, 32))})
    assert tuple(mixture(bound)[0].image.shape) == (5, 3, 48, 32)


# --- samples --------------------------------------------------------------------------------------------------------


def test_a_sample_for_evaluation_is_the_whole_image() -> None:
    source = sources(a={"targets": {"object": TargetConfig(), "scene": TargetConfig(constant=["inside"])}})["a"]
    item = source.items("val")[0]
    sample = source.sample(item)
    array, values = source.config.dataset.read(item)
    assert torch.equal(sample.image, torch.from_numpy(array).permute(2, 0, 1))
    assert sample.targets["object"].tolist() == values["given"].tolist()
    assert (sample.targets["scene"].shape, sample.targets["scene"].item()) == ((), 0)
    assert (sample.source, sample.id) == ("a", "val_0")


def test_an_image_without_the_annotation_has_no_such_target() -> None:
    source = sources(a={"targets": {"object": TargetConfig(), "scene": TargetConfig(constant=["inside"])}})["a"]
    given = source.config.dataset.read(source.items("val")[0])[0]
    source.config.dataset.read = lambda item: (given, {})  # type: ignore[method-assign]
    assert set(source.sample(Item("val_0", Path("val_0"))).targets) == {"scene"}


def test_a_batch_stacks_and_scales() -> None:
    one = Sample(torch.zeros(3, 2, 2, dtype=torch.uint8), {"x": torch.tensor(1)}, "s", "one")
    two = Sample(torch.full((3, 2, 2), 255, dtype=torch.uint8), {"x": torch.tensor(IGNORE)}, "s", "two")
    batch = Batch.stack([one, two])
    assert batch.image.unique().tolist() == [0, 1]
    assert (batch.targets["x"].tolist(), batch.source, batch.ids) == ([1, IGNORE], "s", ["one", "two"])
    assert_equal(batch.to(torch.device("cpu")), batch)


def test_images_that_lack_a_target_are_unlabelled_in_a_batch() -> None:
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    targets = {"x": torch.tensor(1), "y": torch.ones(2, 2, dtype=torch.int64)}
    none, both = Sample(image, {}, "s", "none"), Sample(image, targets, "s", "both")
    for samples in ([none, both], [both, none]):
        batch = Batch.stack(samples)
        assert sorted(batch.targets["x"].tolist()) == [IGNORE, 1]
        assert sorted(batch.targets["y"].flatten(1).amax(1).tolist()) == [IGNORE, 1]


# --- binding --------------------------------------------------------------------------------------------------------


def bind(tasks: dict[str, Task], **targets: TargetConfig) -> LabelledSource:
    config = SourceConfig(dataset=Memory(), targets=targets)
    return bind_sources(DataConfig(sources={"mine": config}), tasks)["mine"]


def test_supervision_of_an_annotation_and_of_a_constant() -> None:
    bound = bind(
        TASKS,
        object=TargetConfig(classes={"high": None}, average=["middle", "high"]),
        scene=TargetConfig(constant=["low", "inside"]),
    )
    given, constant = bound.supervision["object"], bound.supervision["scene"]
    assert (given.annotation, given.dense, given.evaluate, given.average) == ("given", True, True, (1,))
    assert given.sets.group_of_label.tolist() == [0, 1, IGNORE, IGNORE]
    assert (constant.annotation, constant.dense, constant.evaluate, constant.average) == (None, False, False, None)
    assert constant.sets.members == ((0, 3),)


def test_an_auxiliary_task_shares_the_target_of_the_main_one() -> None:
    tasks: dict[str, Task] = {
        "auxiliary": Semantic(labels=LEVELS, target="semantic", auxiliary=True),
        "semantic": Semantic(labels=LEVELS),
    }
    assert set(bind(tasks, semantic=TargetConfig()).supervision) == {"semantic"}
    with pytest.raises(UserError, match="no task reads target 'auxiliary'; targets: semantic"):
        bind(tasks, auxiliary=TargetConfig())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"objct": TargetConfig()}, "source 'mine': no task reads target 'objct'; targets: object, scene"),
        (
            {"object": TargetConfig(annotation="mask")},
            "source 'mine', target 'object': annotation 'mask' is not one of given",
        ),
        ({"object": TargetConfig(classes={"high": "hgih"})}, "source 'mine', target 'object': unknown class 'hgih'"),
        ({"object": TargetConfig(classes={"top": "high"})}, "target 'object': the table maps label 'top'"),
        ({"object": TargetConfig(average=["top"])}, "'top'.*labels: low, middle, high"),
        ({"scene": TargetConfig()}, "source 'mine', target 'scene': annotation 'given' is a map, but the task answers"),
        ({"scene": TargetConfig(constant=["outside"])}, "source 'mine', target 'scene': unknown class 'outside'"),
    ],
)
def test_bad_targets_are_told(targets: dict[str, TargetConfig], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        bind(TASKS, **targets)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"classes": {"low": "high"}}, {"annotation": "given"}, {"average": ["low"]}])
def test_a_constant_leaves_no_room_for_an_annotation(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"constant: \['low'\] leaves no room"):
        TargetConfig(constant=["low"], **options)


def test_tasks_that_share_a_target_share_their_classes() -> None:
    tasks: dict[str, Task] = {
        "one": Semantic(labels=LEVELS, target="t"),
        "two": Semantic(labels=LEVELS[:2], target="t"),
    }
    with pytest.raises(UserError, match="task 'two' shares target 't' with another task but not its classes"):
        bind(tasks, t=TargetConfig())


def test_class_means_of_one_label_per_image_are_told() -> None:
    config = SourceConfig(dataset=Memory(dense=False), targets={"object": TargetConfig(average=["low"])})
    with pytest.raises(UserError, match=r"average: \['low'\] has no meaning for one label per image"):
        bind_sources(DataConfig(sources={"mine": config}), TASKS)


def test_an_image_that_cannot_be_read_is_handed_over_as_an_error(tmp_path: Path) -> None:
    """A loader's worker could only raise it with a traceback; the run is not to blame, so it failed, not was wrong."""
    root = facade(tmp_path)
    classes: dict[str, Any] = dict.fromkeys(Facade(root="").labels) | {"sky": "low"}
    source = SourceConfig(dataset=Facade(root=str(root)), targets={"object": TargetConfig(classes=classes)})
    made = mixture(bind_sources(DataConfig(sources={"fronts": source}), TASKS))
    for path in (root / "images/train").iterdir():
        path.write_bytes(b"not an image")
    (error,) = DataLoader(made, batch_size=None, sampler=[0], num_workers=1)
    assert isinstance(error, WorkError)
    assert str(error).startswith(f"source 'fronts': {root}/images/train/train_")


def test_a_file_that_a_split_names_must_be_there(tmp_path: Path) -> None:
    root = class_folder(tmp_path, LEVELS, lists=True)
    (root / "images/low/low_val_0.jpg").unlink()
    dataset = ClassFolder(root=str(root), images="images", lists="labels/{split}1.txt")
    source = bind_sources(DataConfig(sources={"listed": SourceConfig(dataset=dataset, targets={})}), TASKS)["listed"]
    assert len(source.items("train")) == 6
    with pytest.raises(UserError, match=r"source 'listed': .*low_val_0\.jpg: no such file; 1 of 3 images"):
        source.items("val")


def test_a_missing_split_names_the_source(tmp_path: Path) -> None:
    config = SourceConfig(dataset=Facade(root=str(facade(tmp_path))), targets={}, train="test")
    bound = bind_sources(DataConfig(sources={"fronts": config}), TASKS)
    with pytest.raises(UserError, match=r"source 'fronts': .*images/test: no images"):
        mixture(bound)


def test_labels_of_one_source_mean_parts_of_several_objects(tmp_path: Path) -> None:
    tasks: dict[str, Task] = {"object": Object(labels=["house"]), "part": Part(parts={"house": ["door", "window"]})}
    labels = Facade(root="").labels
    meaning = dict.fromkeys(labels) | {"building": "house/-", "door": "house/door", "window": "house/window"}
    config = SourceConfig(dataset=Facade(root=str(facade(tmp_path))), targets={"part": TargetConfig(classes=meaning)})
    sets = bind_sources(DataConfig(sources={"fronts": config}), tasks)["fronts"].supervision["part"].sets
    assert sets.group_names == ("house/-", "house/door", "house/window")
    assert sets.group_of_label.tolist() == [-1, 0, -1, 1, -1, -1, -1, -1, 2, -1]


class Half(Memory):
    """Every other image has no annotation at all."""

    def items(self, split: str) -> list[Item]:
        items = super().items(split)
        return [replace(item, annotations={}) if i % 2 else item for i, item in enumerate(items)]

    def read(self, item: Item) -> tuple[np.ndarray, dict[str, Any]]:
        if item.annotations:
            return super().read(item)
        image, _ = super().read(replace(item, annotations={"given": 0}))
        return image, {}


@pytest.mark.parametrize(("dense", "target"), [(True, "object"), (False, "scene")])
def test_every_batch_has_all_targets_of_its_source(dense: bool, target: str) -> None:
    """Else processes of one step would compute different branches."""
    config = SourceConfig(dataset=Half(dense=dense), targets={target: TargetConfig()})
    bound = bind_sources(DataConfig(sources={"half": config}), TASKS)
    unlabelled = []
    for step in range(12):
        batch = mixture(bound, batch=1)[step]
        assert batch.targets[target].shape == ((1, 32, 40) if dense else (1,))
        unlabelled.append(bool((batch.targets[target] == IGNORE).all()))
    assert {True, False} == set(unlabelled)


def test_a_split_without_annotations_is_told() -> None:
    class Bare(Memory):
        def items(self, split: str) -> list[Item]:
            return [replace(item, annotations={}) for item in super().items(split)]

    config = SourceConfig(dataset=Bare(), targets={"object": TargetConfig()})
    with pytest.raises(UserError) as caught:
        mixture(bind_sources(DataConfig(sources={"bare": config}), TASKS))
    assert str(caught.value) == (
        "source 'bare': no image of split 'train' has annotation 'given', which target 'object' learns from; "
        "name another split in data.sources.bare.train"
    )


def test_two_images_of_one_name_are_told(tmp_path: Path) -> None:
    root = image_mask_folder(tmp_path, LEVELS)
    first = root / "images" / "train" / "train_0.jpg"
    second = first.with_suffix(".png")
    Image.open(first).save(second)
    config = SourceConfig(dataset=ImageMaskFolder(root=str(root), labels=LEVELS), targets={"object": TargetConfig()})
    bound = bind_sources(DataConfig(sources={"town": config}), TASKS)
    with pytest.raises(UserError) as caught:
        bound["town"].items("train")
    said = f"{second}: has the name 'train_0', as {first} has"
    assert str(caught.value) == f"source 'town': {said}; 1 of 5 images of split 'train' have the name of another"


# --- steps of several batches, orientation, one size per batch ------------------------------------------------------


@dataclass(kw_only=True)
class Turned(Memory):
    """Every third image is higher than wide. Whether the size is told is a choice."""

    told: bool = True

    def items(self, split: str) -> list[Item]:
        made = super().items(split)
        return [replace(item, size=self._size(item) if self.told else None) for item in made]

    def _size(self, item: Item) -> tuple[int, int]:
        return (64, 48) if int(item.id.split("_")[1]) % 3 == 0 else self.size

    def read(self, item: Item) -> tuple[np.ndarray, dict[str, Any]]:
        return Memory.read(replace(self, size=self._size(item)), item)


WHOLE = AugmentConfig(short_sides=(32, 40, 48), long_side=80, multiple=32, label_stride=4)


def turned(told: bool = True, **options: Any) -> list[LabelledSource]:
    made = {
        name: SourceConfig(dataset=Turned(salt=i, images=9, told=told), targets={"object": TargetConfig()}, **options)
        for i, name in enumerate("ab")
    }
    return list(bind_sources(DataConfig(sources=made), TASKS).values())


def joint(bound: list[LabelledSource], **options: Any) -> SourceMixture:
    data = DataConfig(augment=WHOLE, batch=2, draw="step", group_orientation=True)
    return SourceMixture(bound, data, **({"steps": 6, "seed": 0} | options))


def test_one_process_that_accumulates_sees_what_several_processes_see() -> None:
    bound = turned()
    ranks = [joint(bound, rank=rank, world=3) for rank in range(3)]
    alone, mixed = joint(bound, accumulate=3), joint(bound, accumulate=1, rank=0, world=1)
    assert (len(alone), len(ranks[0]), len(mixed)) == (18, 6, 6)
    for step in range(6):
        for rank in range(3):
            assert_equal(alone[3 * step + rank], ranks[rank][step])
        assert len({alone[3 * step + i].source for i in range(3)}) == 1
    assert {alone[i].source for i in range(18)} == {"a", "b"}


def test_batches_of_a_step_are_drawn_one_by_one_unless_told_otherwise() -> None:
    made = SourceMixture(turned(), DataConfig(augment=WHOLE, batch=2), steps=12, accumulate=3, seed=0)
    assert len(made) == 36
    assert any(len(set(made.choices[3 * s : 3 * s + 3].tolist())) == 2 for s in range(12))
    whole = SourceMixture(turned(), DataConfig(augment=WHOLE, batch=2), steps=36, seed=0)
    assert made.choices.tolist() == whole.choices.tolist()


@pytest.mark.parametrize("told", [True, False])
def test_images_of_a_batch_share_their_orientation(told: bool) -> None:
    made = joint(turned(told=told), steps=12)
    orientations = set()
    for step in range(12):
        own = {int(id_.split("_")[1]) % 3 == 0 for id_ in made[step].ids}
        assert len(own) == 1
        orientations |= own
    assert orientations == {True, False}
    plain = SourceMixture(turned(), DataConfig(augment=WHOLE, batch=2), steps=12, seed=0)
    assert any(len({int(id_.split("_")[1]) % 3 == 0 for id_ in plain[step].ids}) == 2 for step in range(12))


def test_each_batch_has_a_shorter_side_of_its_own_drawn_anew_but_the_same_when_asked_again() -> None:
    """The shorter side shows in the extent of the labels of a 48×64 image: 8, 10 or 12 pixels."""
    made = joint(turned(), steps=30)
    sides = []
    for step in range(30):
        target = made[step].targets["object"]
        assert (made[step].pixels.shape[-2] % 32, made[step].pixels.shape[-1] % 32) == (0, 0)
        assert tuple(target.shape[1:]) == tuple(n // 4 for n in made[step].pixels.shape[-2:])
        rows, columns = (target != IGNORE).any(2).sum(1), (target != IGNORE).any(1).sum(1)
        shorter = {min(h, w) for h, w in zip(rows.tolist(), columns.tolist(), strict=True)}
        assert len(shorter) == 1
        sides.append(shorter.pop())
    assert set(sides) == {8, 10, 12}
    again = joint(turned(), steps=30)
    assert_equal(again[7], made[7])


def test_sizes_are_read_from_headers_upright(tmp_path: Path) -> None:
    root = image_mask_folder(tmp_path / "mine", LEVELS, counts={"train": 2})
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    path = sorted((root / "images/train").iterdir())[0]
    Image.open(path).save(path, exif=exif)
    source = SourceConfig(dataset=ImageMaskFolder(root=str(root)), targets={"object": TargetConfig()})
    root.joinpath("classes.json").write_text('["low", "middle", "high"]')
    bound = bind_sources(DataConfig(sources={"mine": source}), TASKS)["mine"]
    items = bound.items("train")
    assert [bound.config.dataset.image_size(item) for item in items] == [(64, 48), (48, 64)]
    assert [bound.is_higher(item) for item in items] == [True, False]


# --- faults ---------------------------------------------------------------------------------------------------------


def folder(tmp_path: Path, count: int = 6, **options: Any) -> tuple[Path, LabelledSource]:
    root = image_mask_folder(tmp_path / "mine", LEVELS, counts={"train": count, "val": 2})
    root.joinpath("classes.json").write_text('["low", "middle", "high"]')
    source = SourceConfig(dataset=ImageMaskFolder(root=str(root)), targets={"object": TargetConfig()}, **options)
    return root, bind_sources(DataConfig(sources={"mine": source}), TASKS)["mine"]


def damage(root: Path) -> None:
    """An image that is no image, a map of another size, and a map with a label that does not exist."""
    (root / "images/train/train_0.jpg").write_bytes(b"not an image")
    for name, mask in (("train_1", np.zeros((4, 4), np.uint8)), ("train_2", np.full((48, 64), 77, np.uint8))):
        Image.fromarray(mask).save(root / f"annotations/train/{name}.png")


def test_an_image_with_a_fault_gives_its_place_to_the_next(tmp_path: Path) -> None:
    root, source = folder(tmp_path, faults="skip")
    before = [mixture({"mine": source}, batch=3, steps=8)[step] for step in range(8)]
    damage(root)
    made = mixture({"mine": source}, batch=3, steps=8)
    after = [made[step] for step in range(8)]
    problems: dict[str, str] = {}
    for old, new in zip(before, after, strict=True):
        bad = [id_ for id_ in old.ids if id_ in ("train_0", "train_1", "train_2")]
        assert set(bad) <= {one.id for one in new.skipped}
        assert set(new.ids) <= {"train_3", "train_4", "train_5"}
        assert len(new.ids) == 3
        for place, id_ in enumerate(old.ids):
            if id_ not in bad:  # the others are as they would have been
                assert new.ids[place] == id_
                assert torch.equal(new.image[place], old.image[place])
        problems |= {one.id: str(one) for one in new.skipped}
    assert problems["train_0"].startswith("source 'mine': train_0 is left out: ")
    assert f"{root}/images/train/train_0.jpg: not an image that can be read" in problems["train_0"]
    assert "train_1.png: mask of 4×4 pixels for an image of 64×48" in problems["train_1"]
    assert "train_2.png: value 77 is no label; valid: 0 to 2" in problems["train_2"]
    again = mixture({"mine": source}, batch=3, steps=8)[5]
    assert_equal(again, after[5])
    assert again.skipped == after[5].skipped


def test_a_fault_stops_unless_it_is_to_be_skipped(tmp_path: Path) -> None:
    root, source = folder(tmp_path)
    damage(root)
    assert any(isinstance(mixture({"mine": source}, batch=3)[step], WorkError) for step in range(2))
    with pytest.raises(UserError, match="faults: 'ignore' is not one of stop, skip"):
        folder(tmp_path, faults="ignore")


def test_an_image_whose_file_name_shows_a_fault_is_left_out_of_the_split(tmp_path: Path) -> None:
    root, source = folder(tmp_path, faults="skip")
    (root / "annotations/train/train_4.png").unlink()
    made = mixture({"mine": source}, batch=2, steps=12)
    assert [one.id for one in made.skipped] == ["train_4"]
    assert "train_4.png: no such file" in str(made.skipped[0])
    seen = {id_ for step in range(12) for id_ in made[step].ids}
    assert seen == {f"train_{i}" for i in (0, 1, 2, 3, 5)}
    assert not any(made[step].skipped for step in range(12))
    strict = LabelledSource(source.name, replace(source.config, faults="stop"), source.supervision)
    with pytest.raises(UserError, match=r"train_4\.png: no such file; 1 of 6 label maps"):
        mixture({"mine": strict})


def test_a_photograph_without_a_size_is_left_out_too(tmp_path: Path) -> None:
    root, source = folder(tmp_path, faults="skip")
    (root / "images/train/train_0.jpg").write_bytes(b"not an image")
    made = joint([source])
    assert [one.id for one in made.skipped] == ["train_0"]
    assert all(not made[step].skipped and "train_0" not in made[step].ids for step in range(6))
    strict = LabelledSource(source.name, replace(source.config, faults="stop"), source.supervision)
    with pytest.raises(WorkError, match=r"source 'mine': .*train_0\.jpg: not an image"):
        joint([strict])


def test_too_many_faults_end_the_work(tmp_path: Path) -> None:
    root, source = folder(tmp_path, faults="skip")
    for path in (root / "images/train").iterdir():
        path.write_bytes(b"not an image")
    error = mixture({"mine": source})[0]
    assert isinstance(error, WorkError)
    assert re.match(r"source 'mine': 11 of 11 images tried for a batch have a fault, such as .*train_", str(error))
    with pytest.raises(WorkError, match=r"source 'mine': every image has a fault, such as .*train_"):
        joint([source])
    for path in (root / "annotations/train").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"source 'mine': .*no such file; 6 of 6 label maps of split 'train'"):
        mixture({"mine": source})


def test_of_images_with_one_name_the_first_stays_and_a_lone_map_harms_nobody(tmp_path: Path) -> None:
    root, source = folder(tmp_path, faults="skip")
    shutil.copy(root / "images/train/train_1.jpg", root / "images/train/train_1.jpeg")
    (root / "images/train/train_5.jpg").unlink()
    items, skipped = source.usable("train")
    assert [item.id for item in items] == [f"train_{i}" for i in range(5)]
    assert [one.id for one in skipped] == ["train_1"]
    assert "has the name 'train_1', as " in skipped[0].problem
