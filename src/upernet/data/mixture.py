"""Sources bound to tasks, and their mixture, in which every batch comes from one source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from upernet.contract import Task
from upernet.data.config import DataConfig, SourceConfig, TargetConfig
from upernet.data.faults import Skipped
from upernet.data.images import Photograph
from upernet.data.items import Annotation, Item
from upernet.data.label_tables import Table, label_table
from upernet.data.matching import SHOWN, as_yaml, propose
from upernet.data.order import Visits
from upernet.data.sample import Batch, Sample
from upernet.data.transforms import Augment
from upernet.errors import UserError, WorkError
from upernet.labels import ClassSets, MetricProtocol, UnmappedLabels, no_classes
from upernet.screen import progress

FEW = 10
"""Number of images with a fault that a batch passes over before it is asked whether they are too many."""


@dataclass(frozen=True)
class Supervision:
    """How a source supervises one target.

    Attributes:
        annotation: Name of the source's annotation; None if the same is known of every image, all of which then have
            label 0.
        sets: The classes that each label of the annotation stands for.
        dense: Whether the annotation is a map.
        evaluate: Whether the task is measured on this source.
        average: Ids of the groups over which class means are taken; None for all groups.
    """

    annotation: str | None
    sets: ClassSets
    dense: bool
    evaluate: bool
    average: tuple[int, ...] | None


@dataclass(frozen=True)
class LabelledSource:
    """A source whose labels are bound to the classes of tasks.

    Attributes:
        name: Its name in the configuration.
        config: Its data set, splits and share of the steps.
        supervision: Key of a training target → how the source supervises it.
    """

    name: str
    config: SourceConfig
    supervision: dict[str, Supervision]

    def items(self, split: str) -> list[Item]:
        """Images of a split; errors as `usable`."""
        return self.usable(split)[0]

    def usable(self, split: str) -> tuple[list[Item], list[Skipped]]:
        """Images of a split, and those left out because their file names show a fault (`SourceConfig.faults`).

        Raises:
            UserError: If the split has no images, or, unless these are left out, a fault that its file names show; the
                line names the source.
        """
        try:
            listing = self.config.dataset.listing(split)
            if self.config.faults == "stop":
                return listing.checked(), []
            items, faulty = listing.without_faults()
        except UserError as error:
            raise UserError(f"source {self.name!r}: {error}") from error
        return items, [Skipped(self.name, id_, fault.line()) for id_, fault in faulty.items()]

    def read(self, item: Item, augment: Augment | None = None, short_side: int | None = None) -> Sample | Skipped:
        """As `sample`, but where faults are to be skipped, an image with a fault gives its fault."""
        try:
            return self.sample(item, augment, short_side)
        except UserError as error:
            return self._skip(item, error)

    def is_higher(self, item: Item) -> bool | Skipped:
        """Whether an image is higher than wide; its fault, if that cannot be told and faults are to be skipped.

        Raises:
            WorkError: If it cannot be told; the line names the source.
        """
        try:
            height, width = self.config.dataset.image_size(item)
        except UserError as error:
            return self._skip(item, WorkError(f"source {self.name!r}: {error}"))
        return height > width

    def _skip(self, item: Item, error: UserError) -> Skipped:
        if self.config.faults == "stop":
            raise error
        return Skipped(self.name, item.id, str(error).removeprefix(f"source {self.name!r}: "))

    def sample(self, item: Item, augment: Augment | None = None, short_side: int | None = None) -> Sample:
        """Read one image and its annotations.

        Args:
            item: The image.
            augment: Random geometry and colour; None reads the whole image unchanged.
            short_side: The shorter side that the augmentation gives to all images of a batch, where it does.

        Raises:
            WorkError: If a file cannot be read; the line names the source.
        """
        try:
            image, annotations = self.config.dataset.read(item)
            photograph = image if isinstance(image, Photograph) else Photograph.from_pixels(image)
            values = {name: _label_ids(value) for name, value in annotations.items()}
            if augment is None:
                view, padding = torch.from_numpy(photograph.pixels).permute(2, 0, 1), None
            else:
                view, maps, padding = augment(photograph, {k: v for k, v in values.items() if v.ndim == 2}, short_side)
                values |= maps
        except UserError as error:
            raise WorkError(f"source {self.name!r}: {error}") from error
        targets = {
            key: torch.tensor(0) if s.annotation is None else values[s.annotation].long()
            for key, s in self.supervision.items()
            if s.annotation is None or s.annotation in values
        }
        return Sample(view, targets, self.name, item.id, padding)


def _training_items(source: LabelledSource) -> tuple[list[Item], list[Skipped]]:
    """Images of the training split, and those left out because of a fault.

    Raises:
        UserError: If the split has no images, or none of them has the annotation of a target.
    """
    split = str(source.config.train)
    items, skipped = source.usable(split)
    for key, supervision in source.supervision.items():
        name = supervision.annotation
        if name is not None and not any(name in item.annotations for item in items):
            problem = f"no image of split {split!r} has annotation {name!r}, which target {key!r} learns from"
            hint = f"name another split in data.sources.{source.name}.train"
            raise UserError(f"source {source.name!r}: {problem}; {hint}")
    return items, skipped


def _orientations(
    source: LabelledSource, items: list[Item], shown: bool
) -> tuple[list[Item], list[int], list[Skipped]]:
    """The images whose size can be told, whether each is higher than wide, and the others.

    Raises:
        WorkError: If a size cannot be told and faults are not to be skipped, or none can.
    """
    kept, kinds, skipped = [], [], []
    shown = shown and any(item.size is None for item in items)
    with progress(f"sizes in {source.name}", len(items), shown=shown) as advance:
        for item in items:
            higher = source.is_higher(item)
            if isinstance(higher, Skipped):
                skipped.append(higher)
            else:
                kept.append(item)
                kinds.append(int(higher))
            advance()
    if not kept:
        raise WorkError(f"source {source.name!r}: every image has a fault, such as {skipped[0].problem}")
    return kept, kinds, skipped


def _label_ids(value: Any) -> Tensor:
    """Label ids as a tensor. int16 and int32 stay, so that maps are widened only once they are cropped."""
    ids = torch.as_tensor(value)
    return ids if ids.dtype in (torch.int16, torch.int32) else ids.long()


def bind_sources(config: DataConfig, tasks: Mapping[str, Task]) -> dict[str, LabelledSource]:
    """Bind the labels of every source to the classes of the tasks.

    Raises:
        UserError: If a source names a target no task reads, an annotation it lacks, or a class that does not exist.
    """
    readers: dict[str, Task] = {}
    for name, task in tasks.items():
        first = readers.setdefault(task.target or name, task)
        if first.classes.names != task.classes.names:
            raise UserError(f"task {name!r} shares target {task.target!r} with another task but not its classes")
    bound = {}
    for name, source in config.sources.items():
        supervision = {}
        for key, target in source.targets.items():
            if key not in readers:
                raise UserError(f"source {name!r}: no task reads target {key!r}; targets: {', '.join(readers)}")
            try:
                supervision[key] = _supervise(source, target, readers[key], config.protocol)
            except UserError as error:
                raise UserError(f"source {name!r}, target {key!r}: {error}") from error
        bound[name] = LabelledSource(name, source, supervision)
    return bound


def _supervise(source: SourceConfig, target: TargetConfig, task: Task, protocol: MetricProtocol) -> Supervision:
    if target.constant:
        sets = ClassSets.of(["every image"], task.classes, {"every image": target.constant})
        return Supervision(None, sets, dense=False, evaluate=False, average=None)
    name, annotation = find_annotation(source, target)
    if annotation.dense and not task.maps:
        raise UserError(f"annotation {name!r} is a map, but the task answers once per image")
    sets = replace(_class_sets(annotation.labels, target, task), protocol=protocol)
    average = None
    if target.average and not annotation.dense:
        raise UserError(f"average: {target.average} has no meaning for one label per image; leave it out")
    if target.average:
        unknown = [label for label in target.average if label not in annotation.labels]
        if unknown:
            raise UserError(
                f"average: {unknown[0]!r} is no label of the source; labels: {', '.join(annotation.labels)}"
            )
        groups = {int(sets.group_of_label[annotation.labels.index(label)]) for label in target.average}
        average = tuple(sorted(g for g in groups if g >= 0))
    if target.evaluate:
        task.metric(sets, annotation.dense, average)  # raises before the run if the task cannot be measured on this
    return Supervision(name, sets, annotation.dense, target.evaluate, average)


def find_annotation(source: SourceConfig, target: TargetConfig) -> tuple[str, Annotation]:
    """The annotation that a target learns from, and its name.

    Raises:
        UserError: If the source has no annotation of that name, or several and the target names none.
    """
    annotations = source.dataset.annotations
    name = target.annotation or (next(iter(annotations)) if len(annotations) == 1 else None)
    if name not in annotations:
        raise UserError(f"annotation {target.annotation!r} is not one of {', '.join(annotations)}")
    return name, annotations[name]


def _class_sets(labels: Sequence[str], target: TargetConfig, task: Task) -> ClassSets:
    """The classes of each label.

    Raises:
        UserError: If the target's table does not fit. Where labels have no meaning yet, the line proposes one for each.
    """
    try:
        return ClassSets.of(labels, task.classes, meanings(labels, target))
    except UnmappedLabels as error:
        if isinstance(target.classes, str):
            first = ", ".join(error.labels[:SHOWN]) + (", …" if len(error.labels) > SHOWN else "")
            problem = f"are not in table {target.classes!r}: {first}; give a mapping in place of its name"
            raise UserError(f"{len(error.labels):,} of {len(labels):,} labels {problem}") from error
        proposals = as_yaml(propose(error.labels[:SHOWN], task.classes.names), len(error.labels))
        raise UserError(f"{no_classes(len(error.labels))}; add to its classes: {proposals}") from error


def meanings(labels: Sequence[str], target: TargetConfig) -> Table:
    """The table of a target. One that has a published name is reduced to the labels that the source has.

    Raises:
        UserError: If there is no table of that name.
    """
    if isinstance(target.classes, str):
        return {label: value for label, value in label_table(target.classes).items() if label in labels}
    return target.classes


class SourceMixture(Dataset[Batch | UserError]):
    """Batches by number. Each batch comes from one source, which is the same on every rank.

    A batch's source, images and augmentation are a pure function of (seed, number, rank), so that a run can be resumed
    at any step. Within a source, every image is seen once before any is seen again; with `group_orientation`, an image
    may wait for a partner until the next round. The batches of a source are counted over all ranks: N ranks see in one
    step what one rank sees in N batches of the source.

    Attributes:
        skipped: Images left out from the start because of a fault.
    """

    def __init__(
        self,
        sources: Sequence[LabelledSource],
        data: DataConfig,
        *,
        steps: int,
        seed: int,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
    ):
        """List the images and draw the source of every batch.

        Args:
            sources: The sources; those without a split to train on are left out.
            data: Batches, augmentation, and how sources are drawn.
            steps: Number of steps.
            seed: Seed of everything that is drawn.
            accumulate: Batches per step.
            rank: Number of this process.
            world: Processes that train together.

        Raises:
            UserError: If there is nothing to train on, or weights are not valid.
            WorkError: If the size of an image is needed and cannot be told.
        """
        self.sources = [s for s in sources if s.config.train is not None]
        if not self.sources:
            raise UserError("no source to train on; name a split in data.sources.<name>.train")
        self.items: list[list[Item]] = []
        self.visits: list[Visits] = []
        self.skipped: list[Skipped] = []
        for number, source in enumerate(self.sources):
            items, skipped = _training_items(source)
            kinds = [0] * len(items)
            if data.group_orientation:
                items, kinds, unknown = _orientations(source, items, shown=rank == 0)
                skipped = skipped + unknown
            self.items.append(items)
            self.skipped += skipped
            self.visits.append(Visits([seed, 2, number], kinds, source.config.batch or data.batch))
        self.augments = [Augment(s.config.augment or data.augment) for s in self.sources]
        self.seed, self.rank, self.world = seed, rank, world
        weights = np.array(
            [
                len(i) if s.config.weight is None else s.config.weight
                for s, i in zip(self.sources, self.items, strict=True)
            ]
        )
        if (weights < 0).any() or weights.sum() <= 0:
            raise UserError(f"data.sources.<name>.weight: {weights.tolist()} must be ≥ 0 and not all 0")
        self.shares = weights / weights.sum()
        # All draws are from one generator: a longer run starts with the same choices as a shorter one.
        per_draw = accumulate if data.draw == "step" else 1
        draws = np.random.default_rng([seed, 0]).random(steps * accumulate // per_draw).repeat(per_draw)
        self.choices = np.minimum(np.searchsorted(np.cumsum(self.shares), draws, side="right"), len(self.shares) - 1)
        chosen = self.choices[:, None] == np.arange(len(self.sources))
        self.rounds = chosen.cumsum(axis=0)[np.arange(len(draws)), self.choices] - 1

    def __len__(self) -> int:
        return len(self.choices)

    def __getitem__(self, step: int) -> Batch | UserError:
        """The batch of a step, or the error in its data: if a worker raised it, a traceback would bury its line."""
        try:
            return self._batch(step)
        except UserError as error:
            return error

    def _batch(self, step: int) -> Batch:
        number = int(self.choices[step])
        source, augment, visits = self.sources[number], self.augments[number], self.visits[number]
        index = int(self.rounds[step]) * self.world + self.rank
        samples: list[Sample] = []
        skipped: list[Skipped] = []
        with torch.random.fork_rng(devices=[]):
            self._seed(4, number, index)
            short_side = augment.draw_short_side()
            others = visits.batch(index)
            for place, image in list(islice(others, visits.size)):
                while True:
                    self._seed(1, number, place)
                    sample = source.read(self.items[number][image], augment, short_side)
                    if isinstance(sample, Sample):
                        break
                    skipped.append(sample)
                    if len(skipped) > max(visits.size, FEW):
                        count = f"{len(skipped)} of {len(skipped) + len(samples)} images tried for a batch have a fault"
                        raise WorkError(f"source {source.name!r}: {count}, such as {skipped[0].problem}")
                    _, image = next(others)
                samples.append(sample)
        # The batch has every target of the source, even if no sample does: processes must compute the same branches.
        batch = Batch.stack(
            samples,
            {key: s.dense for key, s in source.supervision.items()},
            multiple=augment.config.multiple,
            label_stride=augment.config.label_stride,
        )
        return replace(batch, skipped=skipped)

    def _seed(self, *key: int) -> None:
        """Seed what augmentation draws from."""
        torch.default_generator.manual_seed(int(np.random.SeedSequence([self.seed, *key]).generate_state(1)[0]))
