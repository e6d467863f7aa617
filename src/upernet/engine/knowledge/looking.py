"""One image after the other: its annotations where it has them, the model's answers where it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from upernet.config import InferenceConfig
from upernet.contract import Task
from upernet.data.faults import Skipped
from upernet.data.images import read_image
from upernet.data.items import Item
from upernet.data.mixture import LabelledSource, Supervision
from upernet.device import is_out_of_memory
from upernet.engine.evaluator import read_ahead
from upernet.engine.knowledge.chunks import chunk_file, write_chunk
from upernet.engine.knowledge.examples import Best, example_file, write_example
from upernet.engine.knowledge.observation import Answer, Observation, Origin, observe
from upernet.engine.knowledge.vocabulary import Vocabulary
from upernet.errors import UserError
from upernet.inference.answers import Answers, order_tasks
from upernet.inference.views import Network, run_network
from upernet.labels import IGNORE, ClassSets


@dataclass(frozen=True)
class Photo:
    """An image to look at, not yet read.

    Attributes:
        name: Its name in all tables, which no other image has.
        place: Its file; the item of a source; or the fault for which a source leaves it out.
        source: Name of the source; empty for a file.
    """

    name: str
    place: Path | Item | Skipped
    source: str = ""


@dataclass(frozen=True)
class Chunk:
    """Some neighbouring images of the list.

    Attributes:
        number: Its number, from 0.
        first: Number of its first image.
        photos: Its images.
    """

    number: int
    first: int
    photos: tuple[Photo, ...]


@dataclass(frozen=True)
class Model:
    """A network with all that it needs to answer.

    Attributes:
        network: The network, in evaluation mode.
        inference: How images are shown to it.
        device: The device on which it computes.
    """

    network: Network
    inference: InferenceConfig
    device: torch.device


class Looker:
    """Looks at chunks of images and writes what they tell into files.

    What a chunk's file holds depends on its images alone. Which examples are written depends on the chunks that this
    looker has seen before, but they always include those that are among the best of all images.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        vocabulary: Vocabulary,
        sources: Mapping[str, LabelledSource],
        model: Model | None,
        folder: Path,
        examples: int,
    ) -> None:
        """Remember what to look with.

        Args:
            tasks: The tasks by name.
            vocabulary: The tasks that are asked, and their classes.
            sources: The sources by name.
            model: Answers where there is no annotation; None uses annotations alone.
            folder: Where the files of chunks and examples go.
            examples: Most examples of each concept.
        """
        self._tasks, self._sources, self._model, self._folder = dict(tasks), dict(sources), model, folder
        self._vocabulary, self._best = vocabulary, Best(examples, vocabulary)

    def look(self, chunk: Chunk) -> list[str]:
        """Write the file of a chunk, and before it those of its examples.

        Returns:
            A line for each image that could not be read.
        """
        observations, displaced = [], set()
        for offset, read in enumerate(read_ahead(self._read, chunk.photos)):
            photo, number = chunk.photos[offset], chunk.first + offset
            try:
                if isinstance(read, str):
                    raise UserError(read)
                answers = self._answer(read)
            except UserError as error:
                observations.append(Observation.failed(self._vocabulary, " ".join(str(error).split())))
                continue
            pixels = read.pixels
            seen = observe(pixels.shape[0] * pixels.shape[1], answers, self._vocabulary)
            observations.append(seen)
            concepts, dropped = self._best.offer(number, photo.name, seen)
            if concepts:
                write_example(example_file(self._folder, number), pixels, answers, concepts)
            displaced.update(dropped)
        write_chunk(chunk_file(self._folder, chunk.number), observations)
        # A file is deleted only when the chunk of the image that displaced it is written.
        for number in displaced:
            example_file(self._folder, number).unlink(missing_ok=True)
        return [seen.fault for seen in observations if seen.fault]

    def _read(self, photo: Photo) -> _Read | str:
        """An image and its annotations, or the line that says why there is none."""
        try:
            if isinstance(photo.place, Path):
                return _Read(photo, read_image(photo.place), {})
            if isinstance(photo.place, Skipped):
                return str(photo.place)
            sample = self._sources[photo.source].sample(photo.place)
            annotations = {}
            for name, task in self._tasks.items():
                key = task.target or name
                if key in sample.targets and not task.auxiliary:
                    supervision = self._sources[photo.source].supervision[key]
                    annotations[name] = _annotated(supervision, sample.targets[key], task)
            return _Read(photo, sample.image.permute(1, 2, 0).contiguous().numpy(), annotations)
        except UserError as error:
            return str(error)
        except Exception as error:  # broken files reach every corner of a reader: no list of types is complete
            return f"{photo.name}: {' '.join(str(error).split()) or type(error).__name__}"

    @torch.inference_mode()
    def _answer(self, read: _Read) -> dict[str, Answer]:
        """Task → answer of an image.

        Raises:
            UserError: If it is too large for the memory.
        """
        size = read.pixels.shape[0], read.pixels.shape[1]
        answers = {name: Answer(Origin.ANNOTATED, ids) for name, ids in read.annotations.items() if ids is not None}
        missing = [name for name in self._vocabulary.tasks if name not in answers]
        if self._model is not None and missing:
            try:
                predicted = _predict(self._model, self._tasks, missing, read.pixels)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                line = f"{size[1]}×{size[0]} pixels do not fit into the memory of {self._model.device.type}"
                raise UserError(f"{read.photo.name}: {line}; try a smaller image") from None
            answers |= {name: Answer(Origin.PREDICTED, ids) for name, ids in predicted.items()}
        return {
            name: _everywhere(answer, size) if self._vocabulary.is_map(name) else answer
            for name, answer in answers.items()
        }


@dataclass(frozen=True)
class _Read:
    """An image that was read: its pixels (H, W, 3), and task → class ids as of `_annotated`."""

    photo: Photo
    pixels: np.ndarray
    annotations: Mapping[str, np.ndarray | int | None]


def _annotated(supervision: Supervision, target: Tensor, task: Task) -> np.ndarray | int | None:
    """The class ids that an annotation gives.

    Args:
        supervision: How the source supervises the task.
        target: Label ids of the source, int64 (H, W), or one of them.
        task: The task.

    Returns:
        Class ids (H, W) int32, `IGNORE` where the label stands for no class or for several. Of one label for the image,
        its class; or None if it stands for no class or for several: then nothing is annotated.
    """
    ids = single_classes(supervision.sets)[target.numpy()]
    if ids.ndim == 0:
        return None if ids == IGNORE else int(ids)
    return ids


def single_classes(sets: ClassSets) -> np.ndarray:
    """The class that each label stands for, int32 (L + 1,); `IGNORE` if it stands for no class or for several.

    The last entry is for `IGNORE`.
    """
    return np.array([members[0] if len(members) == 1 else IGNORE for members in sets.members] + [IGNORE], np.int32)


def _everywhere(answer: Answer, size: tuple[int, int]) -> Answer:
    """An answer of a task with maps as a map: one label for the image holds at every pixel, as in training."""
    return answer if isinstance(answer.ids, np.ndarray) else replace(answer, ids=np.full(size, answer.ids, np.int32))


def _predict(
    model: Model, tasks: Mapping[str, Task], wanted: Sequence[str], pixels: np.ndarray
) -> dict[str, np.ndarray | int]:
    """The model's answers, those that `upernet predict` gives.

    Args:
        model: The model.
        tasks: Its tasks by name, among them those that the wanted ones need.
        wanted: Names of the tasks to answer.
        pixels: (H, W, 3) uint8 RGB.

    Returns:
        Task → class ids (H, W) int32, or one class id.
    """
    ordered = order_tasks(tasks, wanted)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    answers = Answers(run_network(model.network, image, model.inference, list(ordered), model.device), ordered)
    size = pixels.shape[0], pixels.shape[1]
    found: dict[str, np.ndarray | int] = {n: int(ids[0]) for n, ids in answers.image_ids(wanted).items()}
    maps = {name: np.empty(size, np.int32) for name in answers.maps if name in wanted}
    for band in answers.bands(size, list(maps)):
        for name, ids in band.ids.items():
            maps[name][band.start : band.stop] = ids[0].cpu().numpy()
    return found | maps
