"""A grid of pictures that shows how far a run has come."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from upernet.config import InferenceConfig
from upernet.contract import Task
from upernet.data.mixture import LabelledSource
from upernet.engine.evaluator import source_answers
from upernet.labels import ClassSets
from upernet.model import UPerNet

CELL = 240
"""Width of a picture in the grid, in pixels."""


@torch.inference_mode()
def preview_sheet(
    model: UPerNet, tasks: Mapping[str, Task], sources: Mapping[str, LabelledSource], inference: InferenceConfig
) -> Image.Image | None:
    """One row per source: its first validation image, then truth and prediction for every target it measures."""
    rows = []
    for source in sources.values():
        if source.config.val is None:
            continue
        sample = source.sample(source.items(source.config.val)[0])
        photo = sample.image.permute(1, 2, 0).cpu().numpy()
        pictures = [_caption(photo, source.name)]
        for name, supervision, predicted, truth in source_answers(model, tasks, source, sample, inference):
            if truth.ndim == 3:
                for kind, groups in (("truth", truth), ("predicted", predicted)):
                    colours = _colourise(groups[0].cpu().numpy(), supervision.sets)
                    pictures.append(_caption((0.35 * photo + 0.65 * colours).astype(np.uint8), f"{name}: {kind}"))
            else:
                names = supervision.sets.group_names
                said, true = names[int(predicted)], names[int(truth)] if truth >= 0 else "unlabelled"
                pictures.append(_caption(photo, f"{name}: {said} ({'right' if said == true else true})"))
        rows.append(pictures)
    if not rows:
        return None
    heights = [max(picture.height for picture in row) for row in rows]
    sheet = Image.new("RGB", (max(len(row) for row in rows) * CELL, sum(heights)), "white")
    for row, top in zip(rows, np.cumsum([0, *heights[:-1]]).tolist(), strict=True):
        for x, picture in enumerate(row):
            sheet.paste(picture, (x * CELL, top))
    return sheet


def _colourise(groups: np.ndarray, sets: ClassSets) -> np.ndarray:
    """Groups (H, W) → (H, W, 3); sets of several classes grey, unlabelled black."""
    single = [sets.classes.colours[g[0]] if len(g) == 1 else (150, 150, 150) for g in sets.groups]
    return np.array([*single, (0, 0, 0)], dtype=np.uint8)[groups]


def _caption(array: np.ndarray, text: str) -> Image.Image:
    picture = Image.fromarray(array)
    picture = picture.resize((CELL - 4, max(1, round(picture.height * (CELL - 4) / picture.width))))
    cell = Image.new("RGB", (CELL, picture.height + 22), "white")
    cell.paste(picture, (2, 20))
    ImageDraw.Draw(cell).text((4, 3), text, fill="black", font=ImageFont.load_default(12))
    return cell
