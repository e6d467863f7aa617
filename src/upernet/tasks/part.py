"""Which part of its object a pixel belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from upernet.contract import Choice, Task
from upernet.data.sets import published_parts
from upernet.errors import UserError, check
from upernet.labels import IGNORE, NO_PART, ClassSets, Labels, distinct_colours, part_names
from upernet.model.heads import DenseHead
from upernet.tasks.bands import summaries
from upernet.tasks.losses import denominator, log_truth, on_device
from upernet.tasks.softmax import choice_of_groups, expand_to_map

if TYPE_CHECKING:
    from torch import nn

    from upernet.contract import TaskMetric


@dataclass(kw_only=True)
class Part(Task):
    """Parts of objects: one softmax per object over "no part" and that object's parts (Xiao et al. 2018, section 3.1).

    The logits are the objects' blocks one after the other; classes are called `object/part`, the first of each block
    `object/-`. Training looks only at the block a label belongs to; the answer is taken inside the predicted object.
    """

    parts: dict[str, list[str]] | str = field(default_factory=dict)
    """Object name → names of its parts; objects in the order of the blocks. Or the name of a published list:
    `broden_plus`."""
    objects: str = "object"
    """Name of the task that finds the objects."""
    convs: int = 1
    """3×3 convolutions in the head before the classifier."""
    width: int = 128
    """Channels of those convolutions."""
    no_part_weight: float = 1.0
    """Weight of the loss on pixels of no named part. A value below 1 helps parts that cover little of their object."""
    needs_a_part: bool = False
    """Train an object on an image only if the image's labels show a named part of it, as the authors' code does (SPEC
    E4). Otherwise an object whose parts nobody has labelled, or whose parts are too small for the label map, would be
    taken for one without parts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check("no_part_weight", self.no_part_weight, 0)

    @property
    def needs(self) -> tuple[str, ...]:
        """The task that finds the objects."""
        return (self.objects,)

    @cached_property
    def table(self) -> dict[str, list[str]]:
        """Object name → names of its parts, as `parts` gives or names them.

        Raises:
            UserError: If there is no such list.
        """
        return published_parts(self.parts) if isinstance(self.parts, str) else self.parts

    def bind(self, tasks: Mapping[str, Task]) -> None:
        """Look up the object classes whose parts these are.

        Raises:
            UserError: If the object task or one of the objects is missing.
        """
        if self.objects not in tasks:
            raise UserError(f"the part task reads the objects of task {self.objects!r}; tasks: {', '.join(tasks)}")
        self._object_ids = [tasks[self.objects].classes.index(name) for name in self.table]

    @cached_property
    def classes(self) -> Labels:
        """`object/part` for every part, block by block. The first class of each block, "no part", is grey.

        Raises:
            UserError: If a part is named twice within its object.
        """
        names = part_names(self.table, no_part=True)
        if len(set(names)) != len(names):
            raise UserError("a part is named twice within its object")
        bright = distinct_colours(len(names))
        colours = [(128, 128, 128) if name.endswith(f"/{NO_PART}") else next(bright) for name in names]
        return Labels(names, tuple(colours))

    @cached_property
    def blocks(self) -> list[slice]:
        """The channels of each object, in the order of `parts`."""
        bounds = [0]
        for parts in self.table.values():
            bounds.append(bounds[-1] + 1 + len(parts))
        return [slice(a, b) for a, b in pairwise(bounds)]

    def build_head(self, in_channels: int) -> nn.Module:
        """A `DenseHead` over the channels of all blocks."""
        return DenseHead(in_channels, len(self.classes), convs=self.convs, width=self.width, dropout=0.0)

    def loss(self, logits: Tensor, target: Tensor, sets: ClassSets) -> Tensor:
        """Mean negative log-likelihood over the labelled pixels of each object, summed over objects.

        The mean is weighted where `no_part_weight` is not 1. With `needs_a_part`, it leaves out the pixels of an object
        in the images that show no part of it.
        """
        groups = expand_to_map(sets.to_groups(target), logits)
        return self._mean(self._log_truth(logits.float(), groups, sets), groups, sets)

    def resized_loss(self, logits: Tensor, target: Tensor, sets: ClassSets, align_corners: bool) -> Tensor:
        """`loss` of resized logits, without the whole map of them."""
        if type(self).loss is not Part.loss:
            return super().resized_loss(logits, target, sets, align_corners)
        groups = sets.to_groups(target)
        (found,) = summaries(
            logits, groups, lambda z, rows: [self._log_truth(z, rows, sets).unsqueeze(1)], [True], align_corners
        )
        return self._mean(found[:, 0], groups, sets)

    def _log_truth(self, logits: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """Log-probability of each pixel's group within its object, (B, H, W); 0 where unlabelled."""
        log_p = torch.cat([F.log_softmax(logits[:, block], dim=1) for block in self.blocks], dim=1)
        return log_truth(sets.log_probabilities(log_p), groups)

    def _mean(self, truth: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        """The loss from the log-probability of each pixel's group."""
        blocks, groups = self._group_blocks(sets), groups.flatten(1)
        block_of_group = on_device([*blocks, len(self.blocks)], groups.device)  # last one: unlabelled
        blocks_by_image = block_of_group[groups]
        weight = on_device([*self._group_weights(sets), 0.0], groups.device)[groups]
        if self.needs_a_part:
            named = on_device([*self._named(sets), False], groups.device)[groups]
            # The blocks of which each image shows a part; pixels that show none count for the block of the unlabelled.
            seen = blocks_by_image.where(named, len(self.blocks))
            shown = torch.zeros(len(groups), len(self.blocks) + 1, device=groups.device).scatter_(1, seen, 1.0)
            weight = weight * shown.gather(1, blocks_by_image)
        pixel_block, weight = blocks_by_image.flatten(), weight.flatten()
        total = torch.zeros(len(self.blocks) + 1, device=groups.device).index_add_(0, pixel_block, weight)
        return (-truth.flatten() * weight / denominator(total)[pixel_block]).sum()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax within each block: (B, K, h, w) float32. The classes of each block sum to 1."""
        return torch.cat([logits[:, block].float().softmax(dim=1) for block in self.blocks], dim=1)

    def decode(self, probabilities: Tensor, decoded: Mapping[str, Tensor]) -> Tensor:
        """The likeliest class in the block of the predicted object; `IGNORE` where that object has no parts."""
        objects = decoded[self.objects]
        answer = torch.full_like(objects, IGNORE)
        for object_id, block in zip(self._object_ids, self.blocks, strict=True):
            inside = objects == object_id
            # A graph cannot leave out what an image does not need; it computes every block.
            if torch.compiler.is_compiling() or inside.any():
                answer = torch.where(inside, probabilities[:, block].argmax(dim=1) + block.start, answer)
        return answer

    def image_probabilities(self, probabilities: Tensor) -> Tensor:
        """Mean over all positions: (B, K, h, w) to (B, K)."""
        return probabilities.mean(dim=(2, 3))

    def predict_groups(self, probabilities: Tensor, sets: ClassSets, decoded: Mapping[str, Tensor]) -> Tensor:
        """The likeliest group in the block of the predicted object; `IGNORE` where the source labels no part of it.

        With protocol `paper`, also where a part that the source does not label is the likeliest.

        Raises:
            UserError: If a label stands for parts of several objects.
        """
        objects, labelled = decoded[self.objects], set(self._group_blocks(sets))
        answer = torch.full_like(objects, IGNORE)
        for number, (object_id, block) in enumerate(zip(self._object_ids, self.blocks, strict=True)):
            inside = objects == object_id
            if number in labelled and inside.any():
                answer = torch.where(inside, sets.likeliest(probabilities, (block.start, block.stop)), answer)
        return answer

    def choices(self, sets: ClassSets | None = None) -> Sequence[Choice] | None:
        """A choice in the block of each object, where that object is; among groups, if each is one class.

        Raises:
            UserError: If a label stands for parts of several objects.
        """
        owners = [(self.objects, object_id) for object_id in self._object_ids]
        blocks = [range(block.start, block.stop) for block in self.blocks]
        if sets is None:
            return [Choice(block, block, owner) for block, owner in zip(blocks, owners, strict=True)]
        labelled = sorted(set(self._group_blocks(sets)))
        choices = [choice_of_groups(sets, (blocks[n].start, blocks[n].stop), owners[n]) for n in labelled]
        found = [choice for choice in choices if choice is not None]
        return found if len(found) == len(choices) else None

    def metric(self, sets: ClassSets, dense: bool, average: Sequence[int] | None = None) -> TaskMetric:
        """A part metric of the protocol of `sets`.

        Raises:
            UserError: If the target is no map, or means are to be taken over some of the parts.
        """
        from upernet.tasks.metrics import PaperPartMetric, PartMetric

        if not dense or average:
            raise UserError(
                "parts are measured on maps and over all of them; set evaluate: false, or leave out average"
            )

        no_part = {block.start for block in self.blocks}
        objects = [list(self.table)[block] for block in self._group_blocks(sets)]
        kind = PaperPartMetric if sets.protocol == "paper" else PartMetric
        return kind(sets.group_names, objects, [bool(no_part & set(group)) for group in sets.groups])

    def _group_weights(self, sets: ClassSets) -> list[float]:
        no_part = {block.start for block in self.blocks}
        return [self.no_part_weight if set(group) <= no_part else 1.0 for group in sets.groups]

    def _named(self, sets: ClassSets) -> list[bool]:
        """Whether each group stands for named parts alone."""
        no_part = {block.start for block in self.blocks}
        return [not set(group) & no_part for group in sets.groups]

    def _group_blocks(self, sets: ClassSets) -> list[int]:
        """The number of the block in which each group lies.

        Raises:
            UserError: If a label stands for parts of several objects, which no softmax covers.
        """
        starts = [block.start for block in self.blocks]
        numbers = []
        for name, group in zip(sets.group_names, sets.groups, strict=True):
            found = {sum(start <= c for start in starts) - 1 for c in group}
            if len(found) != 1:
                raise UserError(f"label {name!r} stands for parts of several objects; name parts of one object only")
            numbers.append(found.pop())
        return numbers
