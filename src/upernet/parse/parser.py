"""One photograph in; scene, objects, parts, materials and textures out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from upernet.config import InferenceConfig
from upernet.data.images import read_image, to_rgb
from upernet.device import find_device, is_out_of_memory
from upernet.errors import UserError
from upernet.inference.answers import Answers, order_tasks
from upernet.inference.views import Network, run_network
from upernet.labels import IGNORE, Labels
from upernet.parse.prediction import Prediction, Ranking

if TYPE_CHECKING:
    from upernet.tasks import Task


class Parser:
    """A network with everything around it: any picture in, a `Prediction` at the picture's own size out.

    Example:
        >>> parser = load("upp-mini")
        >>> prediction = parser("street.jpg")
        >>> prediction["scene"], prediction.shares["object"]
    """

    def __init__(self, model: Network, tasks: Mapping[str, Task], inference: InferenceConfig, name: str) -> None:
        """Wrap a network; a module of PyTorch is put into evaluation mode.

        Args:
            model: Gives logits by task, (B, K, h, w) or (B, K), for (B, 3, H, W) float32 RGB in [0, 1].
            tasks: The model's tasks; auxiliary ones are not answered.
            inference: How an image is resized for the network. Logits of an image that is shown whole go straight to
                the image's own size, whatever `resize_twice` says.
            name: Written into every report.

        Raises:
            UserError: If tasks need one another in a circle.
        """
        self.model = model
        self.device = torch.device("cpu")
        if isinstance(model, nn.Module):
            model.eval()
            self.device = next((p.device for p in model.parameters()), self.device)
        self.tasks = {task_name: task for task_name, task in tasks.items() if not task.auxiliary}
        self.inference = inference
        self.name = name
        self.labels = {task_name: task.classes for task_name, task in self.tasks.items()}
        self._ordered = order_tasks(self.tasks)

    def to(self, device: str | torch.device) -> Parser:
        """Move the network.

        Args:
            device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:1`.

        Raises:
            UserError: If there is no such device, or the network is no module of PyTorch and runs elsewhere.
        """
        found = find_device(device)
        if isinstance(self.model, nn.Module):
            self.model.to(found)
        elif found != self.device:
            raise UserError(f"device '{found}': {self.name} cannot be moved; valid: {self.device}")
        self.device = found
        return self

    @overload
    def __call__(
        self, image: str | Path | Image.Image, scores: bool = ..., top: int = ..., batch: int = ...
    ) -> Prediction: ...
    @overload
    def __call__(
        self, image: Sequence[Any], scores: bool = ..., top: int = ..., batch: int = ...
    ) -> list[Prediction]: ...
    @overload
    def __call__(self, image: np.ndarray | Tensor, scores: bool = ..., top: int = ..., batch: int = ...) -> Any: ...

    def __call__(self, image: Any, scores: bool = False, top: int = 5, batch: int = 1) -> Prediction | list[Prediction]:
        """Parse one image or several.

        Args:
            image: A path, a PIL image, an array (H, W, 3) or (H, W), or a tensor (3, H, W) or (1, H, W); arrays and
                tensors hold RGB or grey, as uint8 or as floats in [0, 1]. A list of these, or an array or tensor with
                one more axis in front, is several images, which may differ in size.
            scores: Keep the probabilities of all classes at every pixel: 2·K·H·W bytes per task.
            top: How many image-level classes to list.
            batch: Of several images, how many go through the network at once at most. Only neighbours of equal size
                and type do. The answers are those of each image alone, up to rounding.

        Returns:
            A `Prediction`, or a list of them for several images, in their order.

        Raises:
            UserError: If an image cannot be read, or its shape, type or values are none of the above; if `top` or
                `batch` is below 1; or if the memory does not suffice.
        """
        if top < 1:
            raise UserError(f"top {top} is too small; valid: 1 or more, such as 5")
        if batch < 1:
            raise UserError(f"batch {batch} is too small; valid: 1 or more, such as 8")
        if isinstance(image, (list, tuple)) or (isinstance(image, (np.ndarray, Tensor)) and image.ndim == 4):
            return [one for pictures in _batches(image, batch) for one in self._parse(pictures, scores, top)]
        return self._parse([_Picture.of(image)], scores, top)[0]

    def _parse(self, pictures: Sequence[_Picture], scores: bool, top: int) -> list[Prediction]:
        """Predictions of pictures of equal size and type.

        Raises:
            UserError: If the memory does not suffice.
        """
        try:
            return self._predict(pictures, scores, top)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            name, count = pictures[0].name or "image", len(pictures)
            size = f"{pictures[0].pixels.shape[2]}×{pictures[0].pixels.shape[1]} pixels"
            what, remedy = (
                (f"{size} do", "image") if count == 1 else (f"a batch of {count} images of {size} does", "batch")
            )
            raise UserError(
                f"{name}: {what} not fit into the memory of {self.device.type}; try a smaller {remedy}"
            ) from None

    @torch.inference_mode()
    def _predict(self, pictures: Sequence[_Picture], scores: bool, top: int) -> list[Prediction]:
        pixels = [picture.pixels for picture in pictures]
        images = pixels[0][None] if len(pixels) == 1 else torch.stack(pixels)
        inference = replace(self.inference, resize_twice=False)
        answers = Answers(run_network(self.model, images, inference, list(self._ordered), self.device), self._ordered)
        likeliest = {n: answers.image_probabilities(n) for n in self.tasks}
        maps, kept = self._collect(answers, images, scores)
        return [
            Prediction(
                image=picture.pixels.round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy(),
                maps={n: maps[i][n] for n in self.tasks if n in maps[i]},
                labels=dict(self.labels),
                top={n: _rank(probabilities[i], self.labels[n], top) for n, probabilities in likeliest.items()},
                shares={n: _shares(maps[i][n], self.labels[n]) for n in self.tasks if n in maps[i]},
                scores={n: kept[i][n] for n in self.tasks} if scores else None,
                name=picture.name,
                model=self.name,
            )
            for i, picture in enumerate(pictures)
        ]

    def _collect(
        self, answers: Answers, images: Tensor, scores: bool
    ) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
        """Answers at the images' size (H, W), as arrays.

        Returns:
            For each image task → label map (H, W) int32, and task → probabilities if `scores`, float16 (K, H, W) or
            float32 (K,).
        """
        size = images.shape[-2], images.shape[-1]
        maps = [{n: np.empty(size, np.int32) for n in answers.maps} for _ in images]
        kept: list[dict[str, np.ndarray]] = [{} for _ in images]
        if scores:
            for own in kept:
                own |= {n: np.empty((len(self.labels[n]), *size), np.float16) for n in answers.maps}
            for n in answers.image_level:
                for own, probabilities in zip(kept, answers.probabilities(n).float().cpu().numpy(), strict=True):
                    own[n] = probabilities
        for band in answers.bands(size, self._ordered, probabilities=scores):
            for n, ids in band.ids.items():
                for own, rows in zip(maps, ids.cpu().numpy(), strict=True):
                    own[n][band.start : band.stop] = rows
            for n, tile in band.probabilities.items():
                for own, rows in zip(kept, tile.half().cpu().numpy(), strict=True):
                    own[n][:, band.start : band.stop] = rows
        return maps, kept


class _Picture(NamedTuple):
    """An image as `to_picture` gives it, and the file that it came from, empty if it came from memory."""

    pixels: Tensor
    name: str

    @classmethod
    def of(cls, image: Any) -> _Picture:
        name = str(image) if isinstance(image, (str, Path)) else str(getattr(image, "filename", ""))
        return cls(to_picture(image), name)


def _batches(images: Iterable[Any], most: int) -> Iterator[list[_Picture]]:
    """Pictures in their order, read when they are needed: neighbours of equal size and type together, up to `most`."""
    waiting: list[_Picture] = []
    for image in images:
        picture = _Picture.of(image)
        if waiting and _kind(picture) != _kind(waiting[0]):
            yield waiting
            waiting = []
        waiting.append(picture)
        if len(waiting) == most:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _kind(picture: _Picture) -> tuple[Any, ...]:
    return picture.pixels.shape, picture.pixels.dtype, picture.pixels.device


def load(
    model: str | Path | Sequence[str | Path] = "upp-mini",
    device: str = "auto",
    trust: Sequence[str] = (),
    mirror: str | None = None,
) -> Parser:
    """A parser from any UPerNet: one that ships inside, a model folder, a published one, a file of other software.

    Args:
        model: Such as `upp-mini`, `runs/mine/model`, `upernet_r50_512x512_160k_ade20k` (see `upernet models`),
            `old.pth`, `hf://openmmlab/upernet-convnext-tiny`, or the authors' two files as a list.
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.
        trust: Modules other than `upernet` from which the model may take its tasks; importing a module runs it.
        mirror: Where to download from instead of the address's own host; `UPERNET_MIRROR` if none.

    Raises:
        UserError: If there is no such model or device, or its network is none of ours.
        WorkError: If a file is damaged or hostile, or cannot be downloaded.
    """
    found = find_device(device)
    from upernet.store.loading import load_model

    network, tasks, inference = load_model(model, trust, mirror)
    name = str(model) if isinstance(model, (str, Path)) else " + ".join(str(one) for one in model)
    return Parser(network, tasks, inference, name).to(found)


def to_picture(image: Any) -> Tensor:
    """Any one image as `Parser` takes it, as (3, H, W) RGB in [0, 255]: uint8, or float32 if it came as floats.

    Raises:
        UserError: If the image cannot be read, or its shape, type or values are none that `Parser` takes.
    """
    if isinstance(image, (str, Path)):
        image = read_image(image)
    elif isinstance(image, Image.Image):
        image = np.array(to_rgb(image))
    if isinstance(image, np.ndarray):
        kind, valid, shape = "array", "(H, W, 3), (H, W), or (B, H, W, 3) for several", image.shape
        if image.ndim == 2:
            image = image[..., None]
        if image.ndim == 3:
            image = image.transpose(2, 0, 1)
        floating = np.issubdtype(image.dtype, np.floating)
        if floating or image.dtype == np.uint8:
            # A copy: torch takes neither read-only memory nor negative strides nor foreign byte order.
            image = torch.from_numpy(np.array(image, dtype=np.float32 if floating else np.uint8, order="C"))
    elif isinstance(image, Tensor):
        kind, valid, shape = "tensor", "(3, H, W), (1, H, W), or (B, 3, H, W) for several", tuple(image.shape)
    else:
        raise UserError(
            f"image of type {type(image).__name__}; valid: path, PIL image, (H, W, 3) array, (3, H, W) tensor"
        )
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        raise UserError(f"{kind} of shape {tuple(shape)}; valid: {valid}")
    if not isinstance(image, Tensor) or not (image.dtype == torch.uint8 or image.is_floating_point()):
        raise UserError(f"{kind} of {str(image.dtype).removeprefix('torch.')}; valid: uint8, or float in [0, 1]")
    if image.is_floating_point():
        image = image.detach().float()
        low, high = image.min().item(), image.max().item()
        # Resampling overshoots by a hair; anything more is another range. NaN fails as well.
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise UserError(f"{kind} of floats from {low:g} to {high:g}; valid: [0, 1], or uint8")
        image = image.clamp(0, 1) * 255
    rgb: Tensor = image.expand(3, -1, -1)
    return rgb


def _rank(probabilities: Tensor, labels: Labels, top: int) -> Ranking:
    values, ids = probabilities.float().topk(min(top, len(labels)))
    return [(labels.names[i], p) for i, p in zip(ids.tolist(), values.tolist(), strict=True)]


def _shares(label_map: np.ndarray, labels: Labels) -> Ranking:
    counts = np.bincount(label_map[label_map != IGNORE], minlength=len(labels))
    order = np.argsort(-counts, kind="stable")
    return [(labels.names[i], float(counts[i] / label_map.size)) for i in order if counts[i]]
