"""The interface by which network dissection segments images (`netdissect/segmenter.py`, Bau et al.), on any model here.

Numbers of labels: 0 means "no prediction"; then come the objects, with `segdiv="quad"` their tops, lefts, bottoms and
rights, the materials, and the parts that are not the name of an object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from upernet.contract import Task
from upernet.errors import UserError
from upernet.inference.upsample import resize
from upernet.labels import NO_PART
from upernet.parse.parser import Parser, load
from upernet.tasks import Material, Object, Part

PUBLISHED = "upp-resnet50-upernet"
"""The model that network dissection uses."""
USUAL_OWNERS = ("sky", "building", "person")
"""The objects whose parts are segmented unless all are asked for."""
QUARTERS = ("t", "l", "b", "r")
"""Suffixes of the labels of an object's top, left, bottom and right half, in the order of their numbers."""

SomeTask = TypeVar("SomeTask", bound=Task)


class UnifiedParsingSegmenter:
    """A model with object, material and part tasks that is called like the class of this name in netdissect.

    Attributes:
        segsizes: Sides of the squares to which images are brought, in pixels; probabilities are summed over them.
        segdiv: `undivided`, or `quad` if objects are also divided into halves.
        num_classes: Number of labels, that of "no prediction" included.
        num_object_classes: Number of objects.
        part_names: Names of the parts that have numbers of their own.
        objects_with_parts: Number of each object whose parts are segmented.
        part_index: For each of those, the number of each class of its block, "no part" first.

    Example:
        >>> segmenter = UnifiedParsingSegmenter(segsizes=[256])
        >>> segments = segmenter.segment_batch(images, downsample=4)  # (n, 3, y // 4, x // 4)
        >>> labels, categories = segmenter.get_label_and_category_names()
    """

    def __init__(
        self,
        segsizes: Sequence[int] | None = None,
        segdiv: Literal["undivided", "quad"] | None = None,
        all_parts: bool = False,
        *,
        model: str | Path | Sequence[str | Path] | Parser = PUBLISHED,
        device: str = "auto",
    ) -> None:
        """Load the model.

        Args:
            segsizes: Sides of squares in pixels, each at least 32; None for [256]. The aspect ratio is not kept.
            segdiv: `quad` to add the halves of every object; None for `undivided`.
            all_parts: Segment the parts of every object that has some, and not only those of sky, building and person.
            model: What `upernet.load` takes, or a parser.
            device: `auto` (a GPU if there is one), `cpu` or `cuda`; not used for a parser, which has its own.

        Raises:
            UserError: If an option is not valid, the model cannot be used, or it lacks one of the three tasks.
            WorkError: If the model cannot be downloaded or is damaged.
        """
        self.segsizes = [256] if segsizes is None else list(segsizes)
        if not self.segsizes or min(self.segsizes) < 32:
            raise UserError(
                f"segsizes: {self.segsizes} is not a list of sides of at least 32 pixels; for example [256]"
            )
        if segdiv not in (None, "undivided", "quad"):
            raise UserError(f"segdiv: {segdiv!r} is not one of undivided, quad")
        self.segdiv = segdiv or "undivided"
        # Gradients go through the plain network alone.
        self.parser = model if isinstance(model, Parser) else load(model, device, reference=True)
        self._object, self._material = self._task(Object), self._task(Material)
        self._part, part = self._task(Part), self.parser.tasks[self._task(Part)]
        assert isinstance(part, Part)
        objects, materials = self._names(self._object), self._names(self._material)
        copies = 1 + len(QUARTERS) if self.segdiv == "quad" else 1
        self.num_object_classes, self._material_offset = len(objects), len(objects) * copies
        first_part = 1 + self._material_offset + len(materials)
        number_of = {name: i for i, name in enumerate(objects, start=1)}
        owners = [name for name in part.table if name in number_of and (all_parts or name in USUAL_OWNERS)]
        # A part that is also the name of an object, such as a door, has the object's number.
        self.part_names: list[str] = []
        known = {NO_PART: 0} | number_of
        self.part_index: list[Tensor] = []
        for owner in owners:
            for name in part.table[owner]:
                if name not in known:
                    known[name] = first_part + len(self.part_names)
                    self.part_names.append(name)
            self.part_index.append(torch.tensor([known[name] for name in (NO_PART, *part.table[owner])]))
        self.objects_with_parts = [number_of[owner] for owner in owners]
        self._blocks = [dict(zip(part.table, part.blocks, strict=True))[owner] for owner in owners]
        self.num_classes = first_part + len(self.part_names)
        suffixes = QUARTERS if self.segdiv == "quad" else ()
        self._labels = [
            ("-", "object"),
            *((name, "object") for name in objects),
            *((f"{name}-{suffix}", "part") for suffix in suffixes for name in objects),
            *((name, "material") for name in materials),
            *((name, "part") for name in self.part_names),
        ]

    def get_label_and_category_names(self, dataset: object = None) -> tuple[list[tuple[str, str]], list[str]]:
        """Name and category of every label, by number, and the categories. `dataset` is not used."""
        return self._labels, ["object", "part", "material"]

    def raw_seg_prediction(
        self, tensor_images: Tensor, downsample: int = 1
    ) -> tuple[dict[str, Tensor], dict[int, Tensor]]:
        """Probabilities at every pixel, summed over `segsizes`. Gradients reach the images.

        Args:
            tensor_images: (n, 3, y, x) RGB in [-1, 1], floating point.
            downsample: Factor by which the answer is smaller than the images; its sides are rounded down.

        Returns:
            `object` and `material` → (n, K + 1, y', x'), first "no prediction" and then the classes in the order of
            their numbers; and position in `objects_with_parts` → (n, 1 + parts, y', x'), "no part" first.

        Raises:
            UserError: If the images are not of that shape or type.
        """
        if tensor_images.ndim != 4 or tensor_images.shape[1] != 3 or not tensor_images.is_floating_point():
            found = f"{tuple(tensor_images.shape)} {tensor_images.dtype}"
            raise UserError(f"tensor_images: {found} is not (n, 3, y, x) of floating point in [-1, 1]")
        size = tensor_images.shape[2] // downsample, tensor_images.shape[3] // downsample
        if downsample < 1 or min(size) < 1:
            raise UserError(f"downsample: {downsample} leaves no pixel, or is below 1; for example 1")
        network, tasks = self.parser.model, self.parser.tasks
        images = (tensor_images.to(self.parser.device).float() + 1) / 2
        total: dict[str, Tensor] = {}
        for side in self.segsizes:
            shown = images if images.shape[2:] == (side, side) else F.adaptive_avg_pool2d(images, side)
            shown = shown.contiguous(memory_format=torch.channels_last)
            logits = network(shown, [self._object, self._material, self._part])
            for name, own in logits.items():
                p = tasks[name].probabilities(resize(own.float(), size, network.upsampling_align_corners))
                total[name] = total[name] + p if name in total else p
        named = {"object": self._by_number(self._object, total), "material": self._by_number(self._material, total)}
        return named, {i: total[self._part][:, block] for i, block in enumerate(self._blocks)}

    def segment_batch(self, tensor_images: Tensor, downsample: int = 1) -> Tensor:
        """Labels at every pixel.

        Args:
            tensor_images: (n, 3, y, x) RGB in [-1, 1], floating point.
            downsample: Factor by which the answer is smaller than the images; its sides are rounded down.

        Returns:
            (n, 3, y', x') int64 on the images' device: the object, the material, and the part inside the predicted
            object, 0 where there is none. With `quad` (n, 5, y', x'): also the top or bottom half, and the left or
            right half, of each connected region of an object.

        Raises:
            UserError: If the images are not of that shape or type.
        """
        with torch.no_grad():
            probabilities, parts = self.raw_seg_prediction(tensor_images, downsample)
            objects, materials = probabilities["object"].argmax(1), probabilities["material"].argmax(1)
            part = torch.zeros_like(objects)
            for number, index, p in zip(self.objects_with_parts, self.part_index, parts.values(), strict=True):
                part = torch.where(objects == number, index.to(p.device)[p.argmax(1)], part)
            materials = torch.where(materials == 0, 0, materials + self._material_offset)
            layers = [objects, materials, part]
            if self.segdiv == "quad":
                layers += self._halves(objects)
            return torch.stack(layers, 1).to(tensor_images.device)

    def predict_single_class(self, tensor_images: Tensor, classnum: int, downsample: int = 1) -> tuple[Tensor, Tensor]:
        """How likely a label is at every pixel, and where it is the answer. Gradients reach the images.

        An object that is also a part of others, such as a door, has the scores of both. Halves have none.

        Args:
            tensor_images: (n, 3, y, x) RGB in [-1, 1], floating point.
            classnum: Number of a label.
            downsample: Factor by which the answer is smaller than the images; its sides are rounded down.

        Returns:
            (n, y', x') probability, summed over `segsizes`, and (n, y', x') bool.

        Raises:
            UserError: If there is no such label, or the images are not of the right shape or type.
        """
        probabilities, parts = self.raw_seg_prediction(tensor_images, downsample)
        material = classnum - self._material_offset
        if 0 < material < probabilities["material"].shape[1]:
            return probabilities["material"][:, material], probabilities["material"].argmax(1) == material
        objects = probabilities["object"].argmax(1)
        scores, masks = [], []
        if 0 <= classnum <= self.num_object_classes:
            scores.append(probabilities["object"][:, classnum])
            masks.append(objects == classnum)
        for number, index, p in zip(self.objects_with_parts, self.part_index, parts.values(), strict=True):
            for position in (index == classnum).nonzero()[:, 0].tolist():
                scores.append(p[:, position])
                masks.append((objects == number) & (p.argmax(1) == position))
        if not scores:
            raise UserError(
                f"classnum: {classnum} is no label with a score; valid: a number of an object, material or part"
            )
        return torch.stack(scores).sum(0), torch.stack(masks).any(0)

    def _task(self, kind: type[SomeTask]) -> str:
        """Name of the model's first task of a kind."""
        for name, task in self.parser.tasks.items():
            if isinstance(task, kind):
                return name
        raise UserError(
            f"{self.parser.name}: has no {kind.__name__} task, which network dissection needs; tasks: "
            f"{', '.join(self.parser.tasks)}"
        )

    def _names(self, task: str) -> list[str]:
        """Names of a task's classes without "-", which stands for "no prediction"."""
        return [name for name in self.parser.labels[task].names if name != NO_PART]

    def _by_number(self, task: str, probabilities: dict[str, Tensor]) -> Tensor:
        """Probabilities with "no prediction" first. A model without that class never gives it."""
        p, names = probabilities[task], self.parser.labels[task].names
        if NO_PART not in names:
            return F.pad(p, (0, 0, 0, 0, 1, 0))
        first = names.index(NO_PART)
        return p if first == 0 else torch.cat([p[:, first : first + 1], p[:, :first], p[:, first + 1 :]], 1)

    def _halves(self, objects: Tensor) -> list[Tensor]:
        """Top or bottom, and left or right: two maps (n, y, x) of labels, 0 outside the regions that are divided."""
        maps = objects.cpu().numpy()
        upright, across = np.zeros_like(maps), np.zeros_like(maps)
        for i, objects_of_image in enumerate(maps):
            for number, (top, left, bottom, right), region in _divided_regions(objects_of_image):
                rows, columns = slice(top, bottom), slice(left, right)
                middle = (bottom - top) // 2, (right - left) // 2
                below = np.arange(bottom - top)[:, None] >= middle[0]
                beyond = np.arange(right - left)[None] >= middle[1]
                for layer, second, suffixes in ((upright, below, "tb"), (across, beyond, "lr")):
                    copies = [1 + QUARTERS.index(suffix) for suffix in suffixes]
                    own = number + self.num_object_classes * np.where(second, copies[1], copies[0])
                    np.copyto(layer[i, rows, columns], own, where=region)
        return [torch.from_numpy(layer).to(objects.device) for layer in (upright, across)]


def _divided_regions(objects: np.ndarray) -> Iterator[tuple[int, tuple[int, int, int, int], np.ndarray]]:
    """The connected regions (8 neighbours) of one object each, but for the last one in reading order.

    netdissect leaves that one out too.

    Yields:
        Number of the object; top, left, bottom and right of the region; and (bottom - top, right - left) bool.
    """
    found = []
    for number in np.unique(objects[objects > 0]).tolist():
        count, regions, boxes, _ = cv2.connectedComponentsWithStats(
            (objects == number).astype(np.uint8), connectivity=8
        )
        for region in range(1, count):
            left, top, width, height = boxes[region, :4].tolist()
            inside = regions[top : top + height, left : left + width] == region
            found.append(
                ((top, left + int(inside[0].argmax())), number, (top, left, top + height, left + width), inside)
            )
    found.sort(key=lambda region: region[0])
    for _, number, box, inside in found[:-1]:
        yield number, box, inside
