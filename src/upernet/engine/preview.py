"""A grid of pictures that shows the progress of a run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from upernet.config import InferenceConfig
from upernet.contract import Task
from upernet.data.mixture import LabelledSource
from upernet.data.sample import Sample
from upernet.engine.evaluator import measured_targets, predict_groups, true_groups
from upernet.inference.views import Network
from upernet.labels import ClassSets

CELL = 240
"""Width of a picture in the grid, in pixels."""


@torch.inference_mode()
def preview_sheet(
    network: Network,
    tasks: Mapping[str, Task],
    sources: Mapping[str, LabelledSource],
    inference: InferenceConfig,
    device: torch.device,
) -> Image.Image | None:
    """One row per source: its first validation image, then truth and prediction for every target it measures.

    Args:
        network: The network, in evaluation mode.
        tasks: Its tasks by name.
        sources: The data by name; sources without a validation split are left out.
        inference: How images are resized for the network.
        device: The device on which the network computes.

    Returns:
        The grid; None if no source has a validation split with an image that can be read.
    """
    rows = []
    for source in sources.values():
        if source.config.val is None:
            continue
        samples = map(source.read, source.items(source.config.val))
        sample = next((one for one in samples if isinstance(one, Sample)), None)
        if sample is None:
            continue  # every image has a fault
        photo = sample.image.permute(1, 2, 0).cpu().numpy()
        pictures = [_caption(photo, source.name)]
        measured = measured_targets(tasks, source)
        truth = true_groups(tasks, measured, sample, device)
        wanted = {name: measured[name] for name in truth}
        for name, predicted in predict_groups(network, tasks, wanted, sample.image, inference, device).items():
            sets, true = wanted[name].sets, truth[name]
            if true.ndim == 3:
                for kind, groups in (("truth", true), ("predicted", predicted)):
                    colours = _colourise(groups[0].cpu().numpy(), sets)
                    pictures.append(_caption((0.35 * photo + 0.65 * colours).astype(np.uint8), f"{name}: {kind}"))
            else:
                answer = sets.group_names[int(predicted)]
                label = sets.group_names[int(true)] if true >= 0 else "unlabelled"
                pictures.append(_caption(photo, f"{name}: {answer} ({'right' if answer == label else label})"))
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
    """Colours (H, W, 3) uint8 of groups (H, W): grey for groups of several classes, black where unlabelled."""
    single = [sets.classes.colours[g[0]] if len(g) == 1 else (150, 150, 150) for g in sets.groups]
    return np.array([*single, (0, 0, 0)], dtype=np.uint8)[groups]


def _caption(array: np.ndarray, text: str) -> Image.Image:
    picture = Image.fromarray(array)
    picture = picture.resize((CELL - 4, max(1, round(picture.height * (CELL - 4) / picture.width))))
    cell = Image.new("RGB", (CELL, picture.height + 22), "white")
    cell.paste(picture, (2, 20))
    ImageDraw.Draw(cell).text((4, 3), text, fill="black", font=ImageFont.load_default(12))
    return cell
