"""From a photograph of any size to the network and back to maps of the photograph's size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from upernet.config import InferenceConfig
from upernet.contract import Task
from upernet.errors import UserError
from upernet.resize import resize_image

if TYPE_CHECKING:
    from upernet.model import UPerNet

MIN_SIDE = 32
"""Smallest side, in pixels, that every backbone accepts."""

MAX_ASPECT = 8
"""A picture more elongated than this is enlarged less than `short_side` asks: a 1 px line must not fill the memory."""

TILE = 2**19
"""Values of one row tile, classes × rows × width: 2 MiB of float32, which a processor's cache holds."""

GPU_TILES = 64
"""How many times more a GPU takes at once, for which small tiles would be all waiting."""

PIXELS = {"cuda": 2**21}
"""Pixels of windows that a kind of device takes at once, as many as one whole picture of 2048×1024 has. Others take one
window at a time: a processor gains nothing from more."""

Window = tuple[int, int, int, int]
"""Top, left, bottom and right edge, in pixels of the network's input."""


# --- to the network -------------------------------------------------------------------------------------------------


def network_size(height: int, width: int, config: InferenceConfig, ratio: float = 1.0) -> tuple[int, int]:
    """Size at which an image is shown to the network: aspect kept, halves rounded up, no side under 32 px.

    The image is fitted into the box of `short_side` and `max_side` times `ratio`, whole pixels of it (SPEC C1), or into
    its own size times `ratio` where `scale_of` is `image` (SPEC D2).
    """
    short, long = min(height, width), max(height, width)
    if config.scale_of == "image":
        scale = min(int(long * ratio + 0.5) / long, int(short * ratio + 0.5) / short)
    else:
        scale = int(config.short_side * ratio) / short if config.short_side else ratio
        if config.short_side and scale > 1:
            scale = min(scale, max(long, MAX_ASPECT * max(MIN_SIDE, short * scale)) / long)
        if config.max_side:
            scale = min(scale, int(config.max_side * ratio) / long)
    return max(MIN_SIDE, int(height * scale + 0.5)), max(MIN_SIDE, int(width * scale + 0.5))


def network_input(
    image: Tensor, config: InferenceConfig, ratio: float = 1.0, device: torch.device | None = None
) -> Tensor:
    """What the network is shown.

    Args:
        image: (3, H, W) RGB, uint8, or floating point in [0, 255]. Bytes stay bytes when they are resized without
            `antialias`: published figures were measured so.
        config: Sizes.
        ratio: Of the size, one of `config.scales`.
        device: Where it shall be; where the image is if none.

    Returns:
        (1, 3, h, w) float32 in [0, 1], channels innermost in memory.
    """
    size = network_size(image.shape[-2], image.shape[-1], config, ratio)
    device = device or image.device
    if image.dtype == torch.uint8 and not config.antialias:
        image = resize_image(image.cpu(), size) if size != tuple(image.shape[-2:]) else image
    x = image[None].to(device).float() / 255
    if size != tuple(x.shape[-2:]):
        x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=config.antialias).clamp(0, 1)
    return x.contiguous(memory_format=torch.channels_last)


def window_spans(length: int, window: int, stride: int) -> list[tuple[int, int]]:
    """First pixel and pixel after the last of the windows along one side (SPEC C1).

    The last one is moved back so that it ends with the side; a side shorter than the window is one window.
    """
    count = max(length - window + stride - 1, 0) // stride + 1
    ends = [min(i * stride + window, length) for i in range(count)]
    return [(max(end - window, 0), end) for end in ends]


def windows_of(size: tuple[int, int], config: InferenceConfig) -> list[Window]:
    """The windows of an input of size (h, w), all of one size, row by row; without `window`, the whole input."""
    if config.window is None or config.stride is None:
        return [(0, 0, *size)]
    rows, columns = (window_spans(*side) for side in zip(size, config.window, config.stride, strict=True))
    return [(top, left, bottom, right) for top, bottom in rows for left, right in columns]


# --- order of tasks -------------------------------------------------------------------------------------------------


def order_tasks(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """The same tasks, each after those it needs.

    Raises:
        UserError: If tasks need one another in a circle.
    """
    ordered: dict[str, Task] = {}
    while len(ordered) < len(tasks):
        ready = [
            n for n, t in tasks.items() if n not in ordered and all(m in ordered or m not in tasks for m in t.needs)
        ]
        if not ready:
            raise UserError(f"tasks need one another in a circle: {', '.join(n for n in tasks if n not in ordered)}")
        ordered |= {n: tasks[n] for n in ready}
    return ordered


# --- and back -------------------------------------------------------------------------------------------------------


def resize(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Bilinear (B, K, h, w) → (B, K, H, W)."""
    return F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)


def upsample_rows(logits: Tensor, size: tuple[int, int], start: int, stop: int, align_corners: bool) -> Tensor:
    """Rows `start` to `stop` of `F.interpolate(logits, size, mode="bilinear")`, without the other rows.

    Args:
        logits: (B, K, h, w) float32.
        size: (H, W) of the whole result.
        start: First row.
        stop: Row after the last.
        align_corners: The bilinear convention.

    Returns:
        (B, K, stop - start, W) float32.
    """
    above, below, weight = _row_weights(logits.shape[2], size[0], start, stop, align_corners, logits.device)
    return _interpolate(logits, above, below, weight, size[1], align_corners)


def _row_weights(
    height: int, full: int, start: int, stop: int, align_corners: bool, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Of `height` rows, those on either side of rows `start` to `stop` out of `full`, and the weight of the lower."""
    rows = torch.arange(start, stop, dtype=torch.float32, device=device)
    if align_corners:
        y = rows * ((height - 1) / (full - 1) if full > 1 else 0.0)
    else:
        y = ((rows + 0.5) * (height / full) - 0.5).clamp(min=0)
    above = y.long().clamp(max=height - 1)
    return above, (above + 1).clamp(max=height - 1), (y - above)[:, None]


def _interpolate(
    logits: Tensor, above: Tensor, below: Tensor, weight: Tensor, width: int, align_corners: bool
) -> Tensor:
    narrow = logits[:, :, above] * (1 - weight) + logits[:, :, below] * weight
    # Classes innermost make this, softmax and arg-max two to five times as fast on a CPU.
    narrow = narrow.contiguous(memory_format=torch.channels_last)
    # The height stays, so that only columns are interpolated.
    return F.interpolate(narrow, (len(above), width), mode="bilinear", align_corners=align_corners)


@dataclass(frozen=True)
class View:
    """What the network said about the image at one scale, flipped or not.

    Attributes:
        size: (h, w) of the network's input.
        windows: Where each of the windows lay in it.
        logits: Task → for each window (1, K, h', w') or (1, K) float32, as the network gave them.
        flipped: Whether left and right were exchanged.
        align_corners: The bilinear convention.
    """

    size: tuple[int, int]
    windows: list[Window]
    logits: dict[str, list[Tensor]]
    flipped: bool
    align_corners: bool

    def rows(self, name: str, size: tuple[int, int], start: int, stop: int, straight: bool) -> Tensor:
        """Logits of a task at rows `start` to `stop` of a photograph of size (H, W), the right way round.

        Args:
            name: A task with a map.
            size: (H, W).
            start: First row.
            stop: Row after the last.
            straight: Skip the input's size on the way where one window holds the whole input.

        Returns:
            (1, K, stop - start, W) float32.
        """
        if size == self.size:
            tile = self._stitched(name, start, stop)
        elif straight and len(self.windows) == 1:
            tile = upsample_rows(self.logits[name][0], size, start, stop, self.align_corners)
        else:
            device = self.logits[name][0].device
            above, below, weight = _row_weights(self.size[0], size[0], start, stop, self.align_corners, device)
            first = int(above[0])
            between = self._stitched(name, first, int(below[-1]) + 1)
            tile = _interpolate(between, above - first, below - first, weight, size[1], self.align_corners)
        return tile.flip(-1) if self.flipped else tile

    def _stitched(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of the logits at the input's size: the sum over the windows there, divided by their number."""
        pieces = self.logits[name]
        if len(pieces) == 1:
            return upsample_rows(pieces[0], self.size, start, stop, self.align_corners)
        total = pieces[0].new_zeros(1, pieces[0].shape[1], stop - start, self.size[1])
        total = total.contiguous(memory_format=torch.channels_last)
        count = pieces[0].new_zeros(stop - start, self.size[1])
        for (top, left, bottom, right), piece in zip(self.windows, pieces, strict=True):
            a, b = max(start, top), min(stop, bottom)
            if a >= b:
                continue
            own = upsample_rows(piece, (bottom - top, right - left), a - top, b - top, self.align_corners)
            total[:, :, a - start : b - start, left:right] += own
            count[a - start : b - start, left:right] += 1
        return total / count


class Views:
    """What a network says about one image in all passes of the test-time procedure.

    Only logits at the network's own stride are held; maps at the photograph's size are made a few rows at a time.
    """

    def __init__(
        self,
        model: UPerNet,
        image: Tensor,
        config: InferenceConfig,
        tasks: Mapping[str, Task],
        asked: Iterable[str] | None = None,
        *,
        straight: bool = False,
        device: torch.device | None = None,
    ) -> None:
        """Run the network: for every scale, plain and then flipped, every window.

        Args:
            model: In evaluation mode.
            image: (3, H, W) RGB, uint8, or floating point in [0, 255].
            config: Sizes, windows, scales and flip.
            tasks: Tasks by name, each after those it needs.
            asked: Tasks to compute; those the model answers by itself if none.
            straight: Bring logits of a whole input to the photograph's size in one step, whatever `config` says.
            device: The model's; where the image is if none.
        """
        self.tasks = tasks
        self.size: tuple[int, int] = (image.shape[-2], image.shape[-1])
        self.straight = straight or not config.resize_twice
        words = () if asked is None else (list(asked),)
        self.views = []
        for ratio in config.scales:
            x = network_input(image, config, ratio, device)
            for flipped in (False, True) if config.flip else (False,):
                self.views.append(_view(model, x.flip(-1) if flipped else x, config, words, flipped))
        logits = self.views[0].logits
        self.maps = [name for name in tasks if name in logits and logits[name][0].ndim == 4]
        """Tasks whose answer is a map, in order."""
        self.image_level = [name for name in tasks if name in logits and logits[name][0].ndim == 2]
        """Tasks that answer once per image."""

    def answer(self, name: str) -> Tensor:
        """(1, K) probabilities of a task that answers once per image: the mean over passes and their windows."""
        return self._mean(name, self.tasks[name].probabilities)

    def image_probabilities(self, name: str) -> Tensor:
        """(1, K) probabilities for the image as a whole, of any task."""
        task = self.tasks[name]
        if name in self.image_level:
            return task.image_probabilities(self.answer(name))

        def whole(logits: Tensor) -> Tensor:
            p = task.image_probabilities(task.probabilities(logits))
            return p.mean(dim=(2, 3)) if p.ndim == 4 else p

        return self._mean(name, whole)

    def _mean(self, name: str, probabilities: Callable[[Tensor], Tensor]) -> Tensor:
        views = [torch.stack([probabilities(piece) for piece in v.logits[name]]).mean(0) for v in self.views]
        return torch.stack(views).mean(0)

    def tiles(self, names: Iterable[str] | None = None) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
        """Probabilities at the photograph's size, averaged over all passes, a few rows at a time.

        Args:
            names: Tasks with maps; all of them if none.

        Yields:
            First row, row after the last, and task → (1, K, rows, W) float32, each task after those it needs.
        """
        wanted = self.maps if names is None else [name for name in self.maps if name in set(names)]
        if not wanted:
            return
        height, width = self.size
        # On the way through the input's size a tile has that many rows and columns.
        longer = [v for v in self.views if not (self.straight and len(v.windows) == 1)]
        across = max([width, *(-(-v.size[0] * v.size[1] // height) for v in longer)])
        first = self.views[0].logits
        budget = TILE if first[wanted[0]][0].device.type == "cpu" else TILE * GPU_TILES
        rows = max(1, budget // (across * max(first[name][0].shape[1] for name in wanted)))
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            yield start, stop, {name: self._tile(name, start, stop) for name in wanted}

    def _tile(self, name: str, start: int, stop: int) -> Tensor:
        task = self.tasks[name]
        total: Tensor | None = None
        for view in self.views:
            p = task.probabilities(view.rows(name, self.size, start, stop, self.straight))
            total = p if total is None else total + p
        assert total is not None
        return total if len(self.views) == 1 else total / len(self.views)


def _view(model: UPerNet, x: Tensor, config: InferenceConfig, words: tuple[list[str], ...], flipped: bool) -> View:
    """Run the network over the windows of its input (1, 3, h, w)."""
    size = (x.shape[-2], x.shape[-1])
    windows = windows_of(size, config)
    top, left, bottom, right = windows[0]
    batch = max(1, PIXELS.get(x.device.type, 0) // ((bottom - top) * (right - left)))
    pieces: dict[str, list[Tensor]] = {}
    for i in range(0, len(windows), batch):
        crops = [x[:, :, a:b, c:d] for a, c, b, d in windows[i : i + batch]]
        for name, logits in model(crops[0] if len(crops) == 1 else torch.cat(crops), *words).items():
            pieces.setdefault(name, []).extend(logits.float().split(1))
    return View(size, windows, pieces, flipped, model.upsampling_align_corners)
