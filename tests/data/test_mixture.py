"""Sources bound to tasks, and their mixture: batches that are a pure function of the step."""

from __future__ import annotations

from dataclasses import replace
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
