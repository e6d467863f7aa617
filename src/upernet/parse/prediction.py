"""A parser's answers about one image: maps, names, shares, and the files that hold them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from upernet.errors import UserError
from upernet.files import file_part, write_whole
from upernet.labels import IGNORE, Labels
from upernet.parse.visualize import sheet

Ranking = list[tuple[str, float]]
"""Class names with a probability or a share in [0, 1], largest first."""


@dataclass
class Prediction:
    """All answers about one image.

    Attributes:
        image: (H, W, 3) uint8 RGB, the photograph at its own size.
        maps: Task → (H, W) int32 class ids; `IGNORE` (-1) where the question does not arise, such as a part outside
            the objects that have parts. Tasks that answer once per image have none.
        labels: Task → names and colours of its classes.
        top: Task → likeliest classes of the whole image, with their probabilities.
        shares: Task with a map → classes found, with the fraction of the image's pixels that each covers.
        scores: Task → float16 (K, H, W) or float32 (K,) probabilities; None unless they were asked for.
        name: The file that the image was read from; empty if it came from memory.
        model: Name of the model.
    """

    image: np.ndarray
    maps: dict[str, np.ndarray]
    labels: dict[str, Labels]
    top: dict[str, Ranking]
    shares: dict[str, Ranking]
    scores: dict[str, np.ndarray] | None = None
    name: str = ""
    model: str = ""

    def __getitem__(self, task: str) -> np.ndarray | str:
        """A task's answer: its label map, or the name of the likeliest class if it answers once per image.

        Raises:
            UserError: If there is no such task.
        """
        if task in self.maps:
            return self.maps[task]
        if task in self.top:
            return self.top[task][0][0]
        raise UserError(f"no task {task!r} in this prediction; valid: {', '.join(self.labels)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"Prediction({self.name or 'image'!r}, {width}×{height}; {self.summary()})"

    def summary(self) -> str:
        """One line, `scene street 81 %; object road 33 %, car 12 %`: image-level answers, then the first map's."""
        rankings = {task: self.top[task][:1] for task in self if task not in self.maps}
        rankings |= {task: self.shares[task][:3] for task in list(self.maps)[:1]}
        return "; ".join(
            f"{task} {', '.join(f'{name} {100 * value:.0f} %' for name, value in ranking) or 'none'}"
            for task, ranking in rankings.items()
        )

    def to_json(self) -> dict[str, Any]:
        """Everything but the pixels, as plain values.

        A task with a map lists the classes found (`id`, `name`, `colour`, `share` of the pixels) and `unanswered`, the
        share without an answer; every task lists `top`, its likeliest classes for the image as a whole.
        """
        height, width = self.image.shape[:2]
        tasks: dict[str, Any] = {}
        for task, labels in self.labels.items():
            entry: dict[str, Any] = {"kind": "dense" if task in self.maps else "image"}
            if task in self.maps:
                found = self.shares[task]
                entry["classes"] = [_describe(labels, name) | {"share": round(share, 6)} for name, share in found]
                entry["unanswered"] = round(float((self.maps[task] == IGNORE).mean()), 6)
            entry["top"] = [_describe(labels, name) | {"probability": round(p, 6)} for name, p in self.top[task]]
            tasks[task] = entry
        return {
            "image": {"file": self.name, "width": width, "height": height},
            "model": self.model,
            "tasks": tasks,
        }

    def save(self, folder: str | Path, stem: str | None = None) -> list[Path]:
        """Write the label maps, the sheet and the JSON; no file is left half written, unless the power fails.

        Args:
            folder: The folder to write to; it is made if missing.
            stem: Start of every file name; None for the name of the image's file without its suffix.

        Returns:
            `<stem>.<task>.png` for each task with a map (palette PNG, `IGNORE` as 255; 16-bit grey, `IGNORE` as 65535,
            if the task has more than 255 classes), `<stem>.<task>.npz` for each task if scores were asked for
            (`probabilities` and class `names`), `<stem>.parsed.jpg`, and last `<stem>.json`.

        Raises:
            UserError: If `stem` is not a plain file name.
            OSError: If a file cannot be written.
        """
        stem = stem if stem is not None else Path(self.name).stem or "image"
        if stem in ("", ".", "..") or Path(stem).name != stem:
            raise UserError(f"stem {stem!r} is no file name; valid: 'photo'")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        report, written = self.to_json(), []

        def write(ending: str, write_to: Callable[[IO[bytes]], Any]) -> str:
            path = folder / f"{stem}.{ending}"
            write_whole(path, write_to, durable=False)
            written.append(path)
            return path.name

        for task, label_map in self.maps.items():
            picture, void = label_image(label_map, self.labels[task])
            entry = report["tasks"][task]
            entry["map"] = write(f"{file_part(task)}.png", partial(picture.save, format="PNG"))
            entry["unanswered_value"] = void
        for task, values in (self.scores or {}).items():
            save = partial(np.savez_compressed, probabilities=values, names=np.array(self.labels[task].names))
            report["tasks"][task]["scores"] = write(f"{file_part(task)}.npz", save)
        page = sheet(self)
        write("parsed.jpg", lambda file: page.save(file, "JPEG", quality=92, subsampling=0))
        # A file name that is no text holds lone surrogates; escaped like this they are valid JSON.
        text = json.dumps(report, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
        write("json", lambda file: file.write(text + b"\n"))
        return written

    def show(self) -> None:
        """Open the sheet in the system's picture viewer. In a notebook, a prediction on a line of its own shows it."""
        sheet(self).show()

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        sheet(self).save(buffer, "PNG")
        return buffer.getvalue()


def label_image(label_map: np.ndarray, labels: Labels) -> tuple[Image.Image, int]:
    """A label map as a picture whose stored numbers are the class ids.

    Args:
        label_map: (H, W) integers, `IGNORE` where there is no answer.
        labels: The classes, whose colours become the palette.

    Returns:
        A palette image, or 16-bit grey if there are more than 255 classes; and the number that stands for `IGNORE`,
        255 or 65535.
    """
    if len(labels) > 255:
        return Image.fromarray(np.where(label_map == IGNORE, 65535, label_map).astype(np.uint16)), 65535
    image = Image.fromarray(np.where(label_map == IGNORE, 255, label_map).astype(np.uint8))
    # All 256 entries, or Pillow would store fewer bits than readers of 8-bit label maps expect.
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(labels)] = labels.colours
    image.putpalette(palette.tobytes())
    return image, 255


def _describe(labels: Labels, name: str) -> dict[str, Any]:
    class_id = labels.index(name)
    return {"id": class_id, "name": name, "colour": f"#{bytes(labels.colours[class_id]).hex()}"}
