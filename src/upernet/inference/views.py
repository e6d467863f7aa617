"""The network run on images, at several scales, mirrored and in windows, and the logits that it gives for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from upernet.config import InferenceConfig
from upernet.inference.sizes import network_size, passes, sliding_windows
from upernet.inference.upsample import source_rows, upsample_rows
from upernet.resize import Size, Window, resize_image

PIXELS = {"cuda": 2**21}
"""Kind of device → most pixels that it takes at once, as many as a picture of 2048×1024 has: of windows, and of their
mirror images. Other devices take one window of each image at a time, since a CPU gains nothing from more.

Windows that overlap share no work: the features of a pixel depend on where its window ends, since there the padding
begins."""


class Network(Protocol):
    """Anything that gives logits for images: a `UPerNet` in evaluation mode, or any object that is called like it."""

    @property
    def upsampling_align_corners(self) -> bool:
        """Bilinear convention with which the logits are resized to the size of the answer."""
        ...

    def __call__(self, image: Tensor, tasks: Sequence[str], /) -> Mapping[str, Tensor]:
        """Logits by task, (B, K, h, w) or (B, K), of (B, 3, H, W) float32 RGB in [0, 1], channels last in memory."""
        ...


def network_input(
    images: Tensor, config: InferenceConfig, ratio: float = 1.0, device: torch.device | None = None
) -> Tensor:
    """Resize images to the network's input.

    Args:
        images: (B, 3, H, W) RGB, uint8, or floating point in [0, 255]. Without `antialias`, uint8 images are resized as
            bytes, as they were when published figures were measured.
        config: The size of the input and the filter.
        ratio: Factor of the size, one of `config.scales`.
        device: Device of the result; None for that of the images.

    Returns:
        (B, 3, h, w) float32 in [0, 1], channels last in memory.
    """
    size = network_size(images.shape[-2], images.shape[-1], config, ratio)
    device = device or images.device
    if images.dtype == torch.uint8 and not config.antialias and size != tuple(images.shape[-2:]):
        images = torch.cat([resize_image(image, size)[None] for image in images.cpu()])
    x = images.to(device).float() / 255
    if size != tuple(x.shape[-2:]):
        x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=config.antialias).clamp(0, 1)
    return x.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class View:
    """The network's logits for a batch of images at one scale, mirrored or not.

    Attributes:
        size: (h, w) of the network's input.
        windows: The windows into which the input was cut, all of one size.
        logits: Task → for each window (B, K, h', w') or (B, K) float32, as the network gave them.
        mirrored: Whether the input was mirrored left to right.
        align_corners: The bilinear convention.
        resize_twice: Whether the logits of one window that holds the whole input are resized to the input's size first
            and then to the answer's. Those of several windows always are, since they are averaged at the input's size.
    """

    size: Size
    windows: list[Window]
    logits: dict[str, list[Tensor]]
    mirrored: bool
    align_corners: bool
    resize_twice: bool
    _kept: dict[str, tuple[int, Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def via_input_size(self) -> bool:
        """Whether logits are resized to the input's size first and then to the answer's."""
        return self.resize_twice or len(self.windows) > 1

    def prunes(self, size: Size) -> bool:
        """Whether the classes at the size of the answer are found faster by `largest_class` than from `rows`.

        That asks for logits that are resized once, from one window. A GPU computes all of them faster than it finds out
        which are needed.
        """
        once = len(self.windows) == 1 and (size == self.size or not self.resize_twice)
        return once and not self.mirrored and next(iter(self.logits.values()))[0].device.type == "cpu"

    def rows(self, name: str, size: Size, start: int, stop: int) -> Tensor:
        """A few rows of a task's logits at the size of the answer, mirrored back if the input was mirrored.

        Args:
            name: A task with a map.
            size: (H, W) of the answer.
            start: First row.
            stop: Row after the last.

        Returns:
            (B, K, stop - start, W) float32.
        """
        if size == self.size:
            rows = self._rows_of_input(name, start, stop)
        elif not self.via_input_size:
            rows = upsample_rows(self.logits[name][0], size, start, stop, self.align_corners)
        else:
            height, device = self.size[0], self.logits[name][0].device
            first, last = source_rows(height, size[0], start, stop, self.align_corners, device)
            source = self._neighbouring_rows(name, first, last)
            rows = upsample_rows(source, size, start, stop, self.align_corners, height=height, first=first)
        return rows.flip(-1) if self.mirrored else rows

    def _neighbouring_rows(self, name: str, start: int, stop: int) -> Tensor:
        """The same as `_rows_of_input`; rows of the last call, which those of the next band share, are not repeated."""
        first, rows = self._kept.get(name, (0, None))
        if rows is None or not first <= start < first + rows.shape[2] <= stop:
            rows = self._rows_of_input(name, start, stop)
        else:
            known = first + rows.shape[2]
            rows = rows[:, :, start - first :]
            if known < stop:
                rows = torch.cat([rows, self._rows_of_input(name, known, stop)], 2)
        self._kept[name] = start, rows
        return rows

    def _rows_of_input(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of the logits at the input's size: the sum over the windows there, divided by their number."""
        pieces = self.logits[name]
        if len(pieces) == 1:
            return upsample_rows(pieces[0], self.size, start, stop, self.align_corners)
        total = pieces[0].new_zeros(*pieces[0].shape[:2], stop - start, self.size[1])
        total = total.contiguous(memory_format=torch.channels_last)
        count = pieces[0].new_zeros(stop - start, self.size[1])
        for window, piece in zip(self.windows, pieces, strict=True):
            first, last = max(start, window.top), min(stop, window.bottom)
            if first >= last:
                continue
            rows = slice(first - start, last - start)
            own = upsample_rows(piece, window.size, first - window.top, last - window.top, self.align_corners)
            total[:, :, rows, window.columns] += own
            count[rows, window.columns] += 1
        return total.div_(count)


def run_network(
    network: Network,
    images: Tensor,
    config: InferenceConfig,
    tasks: Sequence[str],
    device: torch.device | None = None,
) -> list[View]:
    """Run the network on a batch of images: at every scale, as they are and then mirrored, in every window.

    Args:
        network: The network, in evaluation mode.
        images: (B, 3, H, W) RGB, uint8, or floating point in [0, 255].
        config: Sizes, windows, scales, mirror images, and how logits are resized.
        tasks: Names of the tasks to compute.
        device: Device on which the network computes; None for that of the images.

    Returns:
        One view per scale or shorter side, or two with mirror images. They hold logits at the network's own stride
        only; maps at the size of the answer are computed a few rows at a time.
    """
    views = []
    for settings, ratio in passes(config):
        shown = network_input(images, settings, ratio, device)
        size = shown.shape[-2], shown.shape[-1]
        windows = sliding_windows(size, config)
        sides = [shown, shown.flip(-1)] if config.flip else [shown]
        for number, logits in enumerate(_run_windows(network, sides, windows, tasks)):
            corners = network.upsampling_align_corners
            views.append(View(size, windows, logits, number == 1, corners, config.resize_twice))
    return views


def _run_windows(
    network: Network, sides: Sequence[Tensor], windows: Sequence[Window], tasks: Sequence[str]
) -> list[dict[str, list[Tensor]]]:
    """For each side of the network's input (B, 3, h, w), task → logits of each window."""
    count = len(sides[0])
    at_once = max(1, PIXELS.get(sides[0].device.type, 0) // (count * windows[0].height * windows[0].width))
    crops = [(number, window) for number in range(len(sides)) for window in windows]
    pieces: list[dict[str, list[Tensor]]] = [{} for _ in sides]
    for i in range(0, len(crops), at_once):
        some = crops[i : i + at_once]
        shown = [sides[number][:, :, window.rows, window.columns] for number, window in some]
        for name, logits in network(shown[0] if len(shown) == 1 else torch.cat(shown), tasks).items():
            for (number, _), piece in zip(some, logits.float().split(count), strict=True):
                pieces[number].setdefault(name, []).append(piece)
    return pieces
