"""Answers to tasks from the network's logits: for each image as a whole, and for its pixels a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from upernet.contract import Choice, Task, order_decides
from upernet.errors import UserError
from upernet.inference.cells import largest_class
from upernet.inference.upsample import BAND
from upernet.inference.views import View
from upernet.labels import IGNORE, ClassSets
from upernet.resize import Size

GPU_BANDS = 64
"""Factor of `BAND` on a GPU, which would spend its time waiting if bands were small."""


def order_tasks(tasks: Mapping[str, Task], names: Collection[str] | None = None) -> dict[str, Task]:
    """Tasks and all the tasks that they need, each after those it needs.

    Args:
        tasks: All tasks by name.
        names: The tasks that are wanted; None for all.

    Raises:
        UserError: If tasks need one another in a circle.
    """
    wanted = set(tasks if names is None else names)
    while more := {need for name in wanted for need in tasks[name].needs if need in tasks} - wanted:
        wanted |= more
    ordered: dict[str, Task] = {}
    while waiting := {name: task for name, task in tasks.items() if name in wanted and name not in ordered}:
        ready = {name: task for name, task in waiting.items() if waiting.keys().isdisjoint(task.needs)}
        if not ready:
            raise UserError(f"tasks need one another in a circle: {', '.join(waiting)}")
        ordered |= ready
    return ordered


class Band(NamedTuple):
    """Answers at neighbouring rows of every image of a batch.

    Attributes:
        start: First row.
        stop: Row after the last.
        ids: Task → (B, stop - start, W) int64 class ids, `IGNORE` where the question does not arise.
        groups: Task → (B, stop - start, W) int64 group ids in the label space of a source.
        probabilities: Task → (B, K, stop - start, W) float32.
    """

    start: int
    stop: int
    ids: dict[str, Tensor]
    groups: dict[str, Tensor]
    probabilities: dict[str, Tensor]


class Answers:
    """Answers to tasks about a batch of images of equal size, computed when they are asked for.

    Probabilities are averaged over all views, not logits. If there is one view and the order of a task's logits decides
    its answer, probabilities are computed only where they are asked for.

    Attributes:
        tasks: The tasks by name, each after those it needs.
        maps: Names of those whose answer is a map, in that order.
        image_level: Names of those that answer once per image, in that order.
    """

    def __init__(self, views: Sequence[View], tasks: Mapping[str, Task]) -> None:
        """Keep the network's logits; nothing is decoded yet.

        Args:
            views: The result of `run_network`, with logits of every task.
            tasks: The tasks by name, in any order.

        Raises:
            UserError: If tasks need one another in a circle.
        """
        self.tasks = order_tasks(tasks)
        self._views = views
        # Logits of one window. Those of all others have the same batch size, classes and device.
        self._sample = {name: views[0].logits[name][0] for name in self.tasks}
        self.maps = [name for name, logits in self._sample.items() if logits.ndim == 4]
        self.image_level = [name for name, logits in self._sample.items() if logits.ndim == 2]

    # --- of images as a whole -----------------------------------------------------------------------------------------

    def probabilities(self, name: str) -> Tensor:
        """(B, K) float32 probabilities of a task that answers once per image: the mean over views and their windows."""
        return self._mean(name, self.tasks[name].probabilities)

    def image_probabilities(self, name: str) -> Tensor:
        """(B, K) float32 probabilities for each image as a whole, of any task."""
        task = self.tasks[name]
        if name in self.image_level:
            return task.image_probabilities(self.probabilities(name))

        def whole(logits: Tensor) -> Tensor:
            p = task.image_probabilities(task.probabilities(logits))
            return p.mean(dim=(2, 3)) if p.ndim == 4 else p

        return self._mean(name, whole)

    def image_ids(self, names: Collection[str]) -> dict[str, Tensor]:
        """Task → (B,) int64 class ids, for those of the named tasks that answer once per image."""
        decoded: dict[str, Tensor] = {}
        for name in self.image_level:
            if name in names:
                decoded[name] = self.tasks[name].decode(self.probabilities(name), decoded)
        return decoded

    def _mean(self, name: str, probabilities: Callable[[Tensor], Tensor]) -> Tensor:
        views = [torch.stack([probabilities(piece) for piece in v.logits[name]]).mean(0) for v in self._views]
        return torch.stack(views).mean(0)

    # --- of their pixels ----------------------------------------------------------------------------------------------

    def bands(
        self,
        size: Size,
        ids: Collection[str],
        sets: Mapping[str, ClassSets] | None = None,
        *,
        probabilities: bool = False,
    ) -> Iterator[Band]:
        """Maps at the size of the answer, a few rows at a time from the first to the last.

        Other tasks are decoded only if the named ones need them.

        Args:
            size: (H, W) of the answer, which may differ from that of the images.
            ids: Tasks whose class ids are wanted; those that answer once per image are skipped.
            sets: Task with a map whose groups are wanted → label space of the source.
            probabilities: Whether the probabilities of all named tasks are wanted too.
        """
        sets = sets or {}
        wanted = order_tasks(self.tasks, {*ids, *sets})
        maps = [name for name in wanted if name in self.maps]
        to_decode = {*ids, *(need for task in wanted.values() for need in task.needs)}
        image_ids = self.image_ids(to_decode)
        shown = [name for name in maps if probabilities and (name in ids or name in sets)]
        ordered = [name for name in maps if len(self._views) == 1 and name not in shown]
        id_choices = {name: order_decides(self.tasks[name]) for name in ordered if name in to_decode}
        group_choices = {name: order_decides(self.tasks[name], sets[name]) for name in ordered if name in sets}
        pruned = [
            name
            for name in ordered
            if self._views[0].prunes(size)
            and id_choices.get(name, ()) is not None
            and group_choices.get(name, ()) is not None
        ]
        for start, stop in self._spans(size, maps, [name for name in maps if name not in pruned]):
            decoded = dict(image_ids)
            band = Band(start, stop, {}, {}, {})
            for name in maps:
                rows = _Rows(self._views, self.tasks[name], name, size, start, stop)
                if name in to_decode:
                    decoded[name] = rows.decode(id_choices.get(name), decoded)
                if name in ids:
                    band.ids[name] = decoded[name]
                if name in sets:
                    band.groups[name] = rows.predict_groups(group_choices.get(name), sets[name], decoded)
                if name in shown:
                    band.probabilities[name] = rows.probabilities
            yield band

    def _spans(self, size: Size, maps: Sequence[str], complete: Sequence[str]) -> Iterator[tuple[int, int]]:
        """First row and row after the last of each band; nothing if there are no maps.

        Args:
            size: (H, W) of the answer.
            maps: Tasks with maps.
            complete: Those of them whose values of all classes are computed at every pixel.
        """
        if not maps:
            return
        height, width = size
        # If logits are resized to the input's size first, a band may hold more values there: `across` counts these too.
        longer = [v for v in self._views if v.via_input_size]
        across = max([width, *(-(-v.size[0] * v.size[1] // height) for v in longer)])
        count, device = len(self._sample[maps[0]]), self._sample[maps[0]].device
        budget = BAND if device.type == "cpu" else BAND * GPU_BANDS
        values = max([1, *(self._sample[name].shape[1] for name in complete)])
        rows = max(1, budget // (count * across * values))
        for start in range(0, height, rows):
            yield start, min(start + rows, height)


class _Rows:
    """Neighbouring rows of one task's map at the size of the answer. Nothing is computed before it is asked for."""

    def __init__(self, views: Sequence[View], task: Task, name: str, size: Size, start: int, stop: int) -> None:
        self._views, self._task, self._name = views, task, name
        self._size, self._start, self._stop = size, start, stop

    @cached_property
    def probabilities(self) -> Tensor:
        """(B, K, stop - start, W) probabilities: the mean over views."""
        total = self._task.probabilities(self._logits)
        for view in self._views[1:]:
            total = total + self._task.probabilities(view.rows(self._name, self._size, self._start, self._stop))
        return total if len(self._views) == 1 else total / len(self._views)

    @cached_property
    def _logits(self) -> Tensor:
        """(B, K, stop - start, W) logits of the first view."""
        return self._views[0].rows(self._name, self._size, self._start, self._stop)

    def decode(self, choices: Sequence[Choice] | None, decoded: Mapping[str, Tensor]) -> Tensor:
        """(B, stop - start, W) class ids, by choices if there are any."""
        if choices is None:
            return self._task.decode(self.probabilities, decoded)
        return self._choose(choices, decoded)

    def predict_groups(
        self, choices: Sequence[Choice] | None, sets: ClassSets, decoded: Mapping[str, Tensor]
    ) -> Tensor:
        """(B, stop - start, W) group ids, by choices if there are any."""
        if choices is None:
            return self._task.predict_groups(self.probabilities, sets, decoded)
        return self._choose(choices, decoded)

    def _choose(self, choices: Sequence[Choice], decoded: Mapping[str, Tensor]) -> Tensor:
        """The answers of choices, from the logits of the only view."""
        sample = self._views[0].logits[self._name][0]
        shape = len(sample), self._stop - self._start, self._size[1]
        answer = torch.full(shape, IGNORE, device=sample.device)
        present = {name: _occurring(decoded[name]) for name in {c.where[0] for c in choices if c.where}}
        for choice in choices:
            if choice.where is None:
                return self._winners(choice)
            name, answered = choice.where
            if answered in present[name]:
                ids = decoded[name] if decoded[name].ndim == 3 else decoded[name][:, None, None].expand(shape)
                here = ids == answered
                answer = torch.where(here, self._winners(choice, here), answer)
        return answer

    def _winners(self, choice: Choice, where: Tensor | None = None) -> Tensor:
        """The answers of one choice; where it does not hold they may be any of them."""
        view = self._views[0]
        if view.prunes(self._size):
            logits = view.logits[self._name][0][:, choice.channels]
            best = largest_class(logits, self._size, self._start, self._stop, view.align_corners, where)
        else:
            best = self._logits[:, choice.channels].argmax(1)
        first = choice.answers[0]
        if [*choice.answers] == [*range(first, first + len(choice.answers))]:
            return best + first if first else best
        return torch.tensor(choice.answers, device=best.device)[best]


def _occurring(ids: Tensor) -> set[int]:
    """The class ids that occur in a map, or `IGNORE`."""
    return set((torch.bincount((ids - IGNORE).flatten()).nonzero()[:, 0] + IGNORE).tolist())
