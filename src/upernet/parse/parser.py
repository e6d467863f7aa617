"""From a photograph to its scene, objects, parts, materials and textures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from upernet.config import InferenceConfig
from upernet.contract import Task
from upernet.device import find_device, is_out_of_memory
from upernet.errors import UserError
from upernet.inference.answers import Answers, order_tasks
from upernet.inference.views import Network, run_network
from upernet.labels import IGNORE, Labels
from upernet.parse.pictures import Picture, in_batches
from upernet.parse.prediction import Prediction, Ranking

if TYPE_CHECKING:
    from upernet.device import Precision
    from upernet.runtimes.engine import EngineName


class Parser:
    """A network with all that it needs to turn any picture into a `Prediction` at the picture's own size.

    Example:
        >>> parser = load("upp-mini")
        >>> prediction = parser("street.jpg")
        >>> prediction["scene"], prediction.shares["object"]
    """

    def __init__(self, model: Network, tasks: Mapping[str, Task], inference: InferenceConfig, name: str) -> None:
        """Wrap a network; a module of PyTorch is put into evaluation mode.

        Args:
            model: The network. It gives logits by task, (B, K, h, w) or (B, K), for (B, 3, H, W) float32 RGB in [0, 1].
            tasks: The model's tasks; auxiliary ones are not answered.
            inference: How an image is resized for the network. `resize_twice` is ignored: without sliding windows,
                logits are resized directly to the image's own size.
            name: Name of the model, which is written into every report.

        Raises:
            UserError: If tasks need one another in a circle, or an auxiliary task.
        """
        self.model = model
        self.device = torch.device(getattr(model, "device", "cpu"))
        if isinstance(model, nn.Module):
            model.eval()
            self.device = next((p.device for p in model.parameters()), self.device)
        self.tasks = {task_name: task for task_name, task in tasks.items() if not task.auxiliary}
        for task_name, task in self.tasks.items():
            for need in task.needs:
                if need in tasks and need not in self.tasks:
                    raise UserError(f"task {task_name!r} needs the answers of {need!r}; set its auxiliary to false")
        self.inference = inference
        self.name = name
        self.labels = {task_name: task.classes for task_name, task in self.tasks.items()}
        self._ordered = order_tasks(self.tasks)

    def to(self, device: str | torch.device) -> Parser:
        """Move the network.

        Args:
            device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:1`.

        Raises:
            UserError: If there is no such device, or the network is no module of PyTorch and runs on another device.
        """
        if isinstance(self.model, nn.Module):
            self.device = find_device(device)
            self.model.to(self.device)
        elif str(device) != "auto" and find_device(device) != self.device:
            raise UserError(f"device {str(device)!r}: {self.name} cannot be moved; valid: auto, {self.device}")
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
            batch: Most images that go through the network at once. Only neighbours of equal size and type do. The
                answers are those of each image alone, up to rounding.

        Returns:
            A `Prediction`, or a list of them for several images, in their order.

        Raises:
            UserError: If an image cannot be read, or its shape, type or values are none of the above; if `top` or
                `batch` is below 1; or if the memory is too small.
        """
        if top < 1:
            raise UserError(f"top {top} is too small; valid: 1 or more, such as 5")
        if not isinstance(batch, int) or batch < 1:
            raise UserError(f"batch {batch!r} is not a number of images; valid: 1 or more, such as 8")
        if isinstance(image, (list, tuple)) or (isinstance(image, (np.ndarray, Tensor)) and image.ndim == 4):
            batches = in_batches(image, batch)
            return [prediction for pictures in batches for prediction in self._parse(pictures, scores, top)]
        return self._parse([Picture.of(image)], scores, top)[0]

    def _parse(self, pictures: Sequence[Picture], scores: bool, top: int) -> list[Prediction]:
        """Predictions of pictures of equal size and type.

        Raises:
            UserError: If the memory is too small.
        """
        try:
            return self._predict(pictures, scores, top)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            _, height, width = pictures[0].pixels.shape
            name, count, memory = pictures[0].name or "image", len(pictures), f"the memory of {self.device.type}"
            if count == 1:
                problem = f"{width}×{height} pixels do not fit into {memory}; try a smaller image"
            else:
                problem = (
                    f"{count} images of {width}×{height} pixels do not fit into {memory} at once; try a smaller batch"
                )
            raise UserError(f"{name}: {problem}") from None

    @torch.inference_mode()
    def _predict(self, pictures: Sequence[Picture], scores: bool, top: int) -> list[Prediction]:
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
            For each image, task → label map (H, W) int32; and for each image, task → probabilities, float16 (K, H, W)
            or float32 (K,), which is empty without `scores`.
        """
        size = images.shape[-2], images.shape[-1]
        maps = [{n: np.empty(size, np.int32) for n in answers.maps} for _ in images]
        kept: list[dict[str, np.ndarray]] = [{} for _ in images]
        if scores:
            for own in kept:
                own.update({n: np.empty((len(self.labels[n]), *size), np.float16) for n in answers.maps})
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


def load(
    model: str | Path | Sequence[str | Path] = "upp-mini",
    device: str = "auto",
    trust: Sequence[str] = (),
    mirror: str | None = None,
    engine: EngineName = "auto",
    reference: bool = False,
    *,
    images: int = 1,
    precision: Precision = "float32",
) -> Parser:
    """Load any UPerNet as a parser: a shipped or published model, a folder, a file of other software, or an export.

    Args:
        model: For example `upp-mini`, `runs/mine/model`, `upernet_r50_512x512_160k_ade20k` (see `upernet models`),
            `old.pth`, `hf://openmmlab/upernet-convnext-tiny`, or the authors' two files as a list.
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.
        trust: Modules other than `upernet` from which the model may take its tasks; importing a module runs it.
        mirror: Server to download from instead of the address's own host; None for `UPERNET_MIRROR`, if that is set.
        engine: Software that runs the network: `torch`, `openvino` or `onnxruntime`. `auto` takes OpenVINO on a CPU
            where it is installed and its graph of the model is on disk, or `images` is large enough to pay for
            preparing it; otherwise PyTorch.
        reference: Run the plain network in PyTorch, without the exact rewriting that makes it faster.
        images: How many images will be parsed, about.
        precision: Arithmetic of PyTorch: `float32`, `tf32` on a GPU, or `bf16` or `fp16` mixed with float32. Engines
            compute in float32.

    Raises:
        UserError: If there is no such model, device or engine, if they do not compute in the precision, or if the model
            is no UPerNet that can be read.
        WorkError: If a file is damaged or hostile, or cannot be downloaded, or the engine fails on the model.
    """
    target = find_device(device)
    from upernet.runtimes.choice import on_engine
    from upernet.store.loading import open_model

    network, tasks, inference = open_model(model, trust, mirror)
    name = str(model) if isinstance(model, (str, Path)) else " + ".join(str(file) for file in model)
    ready = on_engine(network, engine, target, images=images, reference=reference, precision=precision)
    return Parser(ready, tasks, inference, name)


def _rank(probabilities: Tensor, labels: Labels, top: int) -> Ranking:
    values, ids = probabilities.float().topk(min(top, len(labels)))
    return [(labels.names[i], p) for i, p in zip(ids.tolist(), values.tolist(), strict=True)]


def _shares(label_map: np.ndarray, labels: Labels) -> Ranking:
    counts = np.bincount(label_map[label_map != IGNORE], minlength=len(labels))
    order = np.argsort(-counts, kind="stable")
    return [(labels.names[i], float(counts[i] / label_map.size)) for i in order if counts[i]]
