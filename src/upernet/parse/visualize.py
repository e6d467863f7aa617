"""A prediction as one picture to look at: the photograph, a coloured panel for each task with a map, legends, bars.

Panels have a fixed size in pixels whatever the photograph's, so that text and lines keep their proportion to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from upernet.labels import Colour, Labels

STRENGTH = 0.58
"""Opacity of a class colour over the photograph."""
FAINT = 0.30
"""Opacity of a grey class colour: grey stands for "other" and the like, where the photograph says more."""
VEIL = (255, 255, 255), 0.55
"""Colour and opacity over pixels without an answer."""
LEAST_SHARE = 0.005
"""Smallest share of the image with which a class is listed in a legend; smaller ones are only counted."""
MOST_ENTRIES = 14
"""Most lines of a legend."""
TAGS = 8
"""Most names written into a panel."""

_PAPER, _INK, _SOFT, _RULE, _BAR = (255, 255, 255), (32, 36, 44), (112, 118, 128), (228, 231, 236), (52, 110, 196)
_MARGIN, _GAP = 36, 28
_TITLE, _TEXT, _SMALL, _TAG = 24, 18, 15, 16
_LINE = 28
_FONTS = ("NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc", "Arial Unicode.ttf", "DejaVuSans.ttf", "Arial.ttf")


class Answers(Protocol):
    """The fields of a `Prediction` that are drawn; they are documented there."""

    image: np.ndarray
    maps: dict[str, np.ndarray]
    labels: dict[str, Labels]
    top: dict[str, list[tuple[str, float]]]
    shares: dict[str, list[tuple[str, float]]]
    name: str
    model: str


@dataclass(frozen=True)
class _Layout:
    """The arrangement of the panels for a photograph."""

    picture: tuple[int, int]  # width, height of a panel's picture
    block: int  # width of a legend
    legend_right: bool  # legend at the right of the picture rather than below
    columns: int

    @property
    def cell(self) -> int:
        return self.picture[0] + _GAP // 2 + self.block if self.legend_right else max(self.picture[0], self.block)


def overlay(image: np.ndarray, label_map: np.ndarray, labels: Labels) -> Image.Image:
    """Class colours laid over a photograph, with a light line between regions.

    Args:
        image: (H, W, 3) uint8 RGB.
        label_map: (H, W) class ids; `IGNORE` pixels are veiled.
        labels: The classes with their colours. Grey ones are more transparent.

    Returns:
        RGB, W×H.
    """
    strength = np.array([FAINT if _is_grey(colour) else STRENGTH for colour in labels.colours] + [VEIL[1]])
    colours = np.array([*labels.colours, VEIL[0]], np.float32)
    # IGNORE is -1, which is also the place of the last entry: the veil.
    tint = np.round(colours * strength[:, None] * 256).astype(np.uint16)
    rest = np.round(256 - strength * 256).astype(np.uint16)
    mixed = ((image * rest[label_map][..., None] + tint[label_map]) >> 8).astype(np.uint8)
    edges = _edges(label_map, max(1, round(min(label_map.shape) / 480)))
    mixed[edges] = 255 - (255 - mixed[edges]) // 4
    return Image.fromarray(mixed)


def sheet(prediction: Answers) -> Image.Image:
    """The whole prediction on one page.

    The photograph comes first, then one panel for each task with a map: colours over the photograph, names of the large
    regions, and a legend of the classes found with their share of the image. Tasks that answer once per image are
    listed with bars. Wide pictures are stacked; tall ones stand side by side with their legends to the right.
    """
    image = Image.fromarray(prediction.image)
    answers = [task for task in prediction.labels if task not in prediction.maps]
    layout = _layout(image.width / image.height, 1 + len(prediction.maps))
    small = image.resize(layout.picture, Image.Resampling.LANCZOS)

    caption = _column([_bars(task, prediction.top[task], layout.block) for task in answers], _GAP)
    full_rows = (1 + len(prediction.maps)) % layout.columns == 0
    title = _clean(prediction.name.replace("\\", "/").rpartition("/")[2]) or "photo"
    note = f"{image.width} x {image.height}"
    cells = [_cell(layout, title, note, small, caption if full_rows else None)]
    for task, label_map in prediction.maps.items():
        labels = prediction.labels[task]
        shrunk = np.asarray(Image.fromarray(label_map).resize(layout.picture, Image.Resampling.NEAREST))
        panel = overlay(np.asarray(small), shrunk, labels)
        _tag(panel, shrunk, labels)
        cells.append(_cell(layout, task, "", panel, _legend(prediction.shares[task], labels, layout)))
    if caption is not None and not full_rows:
        cells.append(caption)

    rows = [cells[i : i + layout.columns] for i in range(0, len(cells), layout.columns)]
    body = _column([_row(row, layout.cell) for row in rows], _GAP)
    assert body is not None
    page = Image.new("RGB", (body.width + 2 * _MARGIN, body.height + 2 * _MARGIN + _GAP), _PAPER)
    page.paste(body, (_MARGIN, _MARGIN))
    foot = " · ".join(part for part in ("upernet", _clean(prediction.model)) if part)
    room = page.width - 2 * _MARGIN
    _write(ImageDraw.Draw(page), (_MARGIN, page.height - _MARGIN), _fit(foot, _SMALL, room), _SMALL, _SOFT)
    return page


def _layout(aspect: float, panels: int) -> _Layout:
    """Arrangement for a photograph of width / height `aspect`."""
    if aspect > 2.4:
        # Beyond 30:1 a strip would be a line; stretched, its colours can still be seen.
        return _Layout((1200, max(40, round(1200 / aspect))), 1200, legend_right=False, columns=1)
    if aspect < 0.6:
        columns = panels if panels <= 5 else math.ceil(panels / 2)
        return _Layout((max(40, round(760 * aspect)), 760), 250, legend_right=True, columns=columns)
    size = (640, round(640 / aspect)) if aspect > 640 / 600 else (round(600 * aspect), 600)
    columns = {1: 1, 2: 2, 4: 2}.get(panels, 3 if panels <= 9 else 4)
    return _Layout(size, max(size[0], 440), legend_right=False, columns=columns)


def _cell(layout: _Layout, title: str, note: str, picture: Image.Image, block: Image.Image | None) -> Image.Image:
    head = Image.new("RGB", (layout.cell, 38), _PAPER)
    draw = ImageDraw.Draw(head)
    room = layout.cell - (_width(note, _SMALL) + 16 if note else 0)
    _write(draw, (0, 26), _fit(_clean(title), _TITLE, room), _TITLE, _INK)
    _write(draw, (layout.cell, 26), note, _SMALL, _SOFT, "rs")
    if block is None:
        return _stack([head, picture], 0)
    if layout.legend_right:
        body = Image.new("RGB", (layout.cell, max(picture.height, block.height)), _PAPER)
        body.paste(picture, (0, 0))
        body.paste(block, (picture.width + _GAP // 2, 0))
        return _stack([head, body], 0)
    return _stack([_stack([head, picture], 0), block], 16)


def _legend(shares: list[tuple[str, float]], labels: Labels, layout: _Layout) -> Image.Image:
    """Swatch, name and share of the classes found, largest first."""
    shown = [entry for entry in shares if entry[1] >= LEAST_SHARE][:MOST_ENTRIES] or shares[:1]
    rest = shares[len(shown) :]
    columns = max(1, layout.block // 280)
    lines = max(1, math.ceil((len(shown) + bool(rest)) / columns))
    block = Image.new("RGB", (layout.block, lines * _LINE), _PAPER)
    draw = ImageDraw.Draw(block)
    column = (layout.block + _GAP) // columns
    for i, (name, share) in enumerate(shown):
        x, y = i // lines * column, i % lines * _LINE
        colour = labels.colours[labels.index(name)]
        draw.rounded_rectangle((x, y + 4, x + 19, y + 23), 5, colour, outline=_shade(colour))
        percent = _percent(share)
        end = x + column - _GAP
        _write(draw, (end, y + 20), percent, _TEXT, _SOFT, "rs")
        room = end - x - 30 - _width(percent, _TEXT) - 10
        _write(draw, (x + 30, y + 20), _fit(_class_name(name), _TEXT, room), _TEXT, _INK)
    if rest:
        x, y = len(shown) // lines * column, len(shown) % lines * _LINE
        _write(draw, (x + 30, y + 20), f"+ {len(rest)} more", _TEXT, _SOFT)
    if not shown:
        _write(draw, (0, 20), "nothing found here", _TEXT, _SOFT)
    return block


def _bars(title: str, ranking: list[tuple[str, float]], width: int) -> Image.Image:
    """A task's likeliest classes for the whole image, with their probabilities as bars."""
    width = min(width, 640)
    block = Image.new("RGB", (width, 38 + 46 * len(ranking)), _PAPER)
    draw = ImageDraw.Draw(block)
    _write(draw, (0, 26), _fit(_clean(title), _TITLE, width), _TITLE, _INK)
    for i, (name, probability) in enumerate(ranking):
        y = 38 + 46 * i
        percent = _percent(probability)
        _write(draw, (width, y + 20), percent, _TEXT, _SOFT, "rs")
        room = width - _width(percent, _TEXT) - 16
        _write(draw, (0, y + 20), _fit(_class_name(name), _TEXT, room), _TEXT, _INK)
        draw.rounded_rectangle((0, y + 28, width - 1, y + 36), 4, _RULE)
        if probability >= LEAST_SHARE:
            draw.rounded_rectangle((0, y + 28, max(8, round(probability * (width - 1))), y + 36), 4, _BAR)
    return block


def _tag(panel: Image.Image, label_map: np.ndarray, labels: Labels) -> None:
    """Write the names of the largest regions where most of the name's box lies inside the region."""
    step = 4
    grid = label_map[step // 2 :: step, step // 2 :: step]
    counts = np.bincount(grid[grid >= 0], minlength=len(labels))
    free = np.ones(grid.shape, bool)
    draw = ImageDraw.Draw(panel)
    for class_id in np.argsort(-counts, kind="stable")[:TAGS]:
        colour = labels.colours[class_id]
        if counts[class_id] < 0.01 * grid.size or _is_grey(colour):
            continue
        text = _fit(_class_name(labels.names[class_id]), _TAG, 180)
        width, height = _width(text, _TAG) + 18, 26
        box = (math.ceil(height / step) + 2, math.ceil(width / step) + 2)
        if box[0] > grid.shape[0] or box[1] > grid.shape[1]:
            continue
        inside = (grid == class_id) & free
        # The name should lie inside the region and, among such places, well away from its border.
        fill = _box_means(inside, box)
        around = _box_means(np.pad(inside, [(side, side) for side in box]), (3 * box[0], 3 * box[1]))
        around = around[: fill.shape[0], : fill.shape[1]]
        blocked = _box_means(~free, box) > 0
        score = np.where(blocked, -1, fill + 0.5 * around)
        row, column = np.unravel_index(score.argmax(), score.shape)
        if blocked[row, column] or fill[row, column] < 0.7:
            continue
        free[row : row + box[0], column : column + box[1]] = False
        x, y = (int(column) + 1) * step, (int(row) + 1) * step
        draw.rounded_rectangle((x, y, x + width, y + height), height // 2, colour, outline=_PAPER, width=2)
        _write(draw, (x + width / 2, y + height / 2 + 1), text, _TAG, _ink_on(colour), "mm")


def _box_means(mask: np.ndarray, box: tuple[int, int]) -> np.ndarray:
    """Mean of a (h, w) mask over every box of (rows, columns) that fits: (h - rows + 1, w - columns + 1)."""
    rows, columns = box
    total = np.pad(mask.astype(np.int32).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
    return np.asarray(sums / (rows * columns))


def _edges(label_map: np.ndarray, width: int) -> np.ndarray:
    """(H, W) bool: pixels up to `width` before a change of class, rightwards or downwards."""
    edges = np.zeros(label_map.shape, bool)
    for step in range(1, width + 1):
        edges[:, :-step] |= label_map[:, :-step] != label_map[:, step:]
        edges[:-step] |= label_map[:-step] != label_map[step:]
    return edges


def _row(cells: list[Image.Image], width: int) -> Image.Image:
    page = Image.new("RGB", (len(cells) * (width + _GAP) - _GAP, max(cell.height for cell in cells)), _PAPER)
    for i, cell in enumerate(cells):
        page.paste(cell, (i * (width + _GAP), 0))
    return page


def _column(blocks: list[Image.Image], gap: int) -> Image.Image | None:
    return _stack(blocks, gap) if blocks else None


def _stack(blocks: list[Image.Image], gap: int) -> Image.Image:
    height = sum(block.height for block in blocks) + gap * (len(blocks) - 1)
    page = Image.new("RGB", (max(block.width for block in blocks), height), _PAPER)
    y = 0
    for block in blocks:
        page.paste(block, (0, y))
        y += block.height + gap
    return page


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, colour: Colour, anchor: str = "ls"
) -> None:
    draw.text(place, text, colour, _font(size, _is_plain(text)), anchor=anchor)


def _width(text: str, size: int) -> int:
    return math.ceil(_font(size, _is_plain(text)).getlength(text))


def _is_plain(text: str) -> bool:
    return text.replace("…", "").replace("·", "").isascii()


@cache
def _font(size: int, plain: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font; it has hardly more than ASCII, so other text takes the first of `_FONTS` installed."""
    for name in () if plain else _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def _fit(text: str, size: int, room: float) -> str:
    """The text, cut with an ellipsis where it is longer than `room` pixels."""
    if _width(text, size) <= room:
        return text
    while text and _width(text + "…", size) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def _clean(text: str) -> str:
    """One printable line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _class_name(name: str) -> str:
    name = _clean(name.replace("_", " "))
    return f"{name[:-2]}, no part" if name.endswith("/-") else name


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %"


def _is_grey(colour: Colour) -> bool:
    return max(colour) - min(colour) < 20


def _shade(colour: Colour) -> Colour:
    """A darker colour for the rim, so that pale swatches stand out from the page."""
    red, green, blue = (c * 3 // 4 for c in colour)
    return red, green, blue


def _ink_on(colour: Colour) -> Colour:
    """Black or white, whichever contrasts more with a background (WCAG 2 relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)
