"""One photograph in; scene, objects, parts, materials and textures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from upernet.config import InferenceConfig
from upernet.data.images import read_image, to_rgb
from upernet.device import find_device, is_out_of_memory
from upernet.errors import UserError
from upernet.inference.views import Views, order_tasks
from upernet.labels import IGNORE, Labels
from upernet.parse.prediction import Prediction, Ranking

if TYPE_CHECKING:
    from upernet.model import UPerNet
    from upernet.tasks import Task


class Parser:
    """A network with everything around it: any picture in, a `Prediction` at the picture's own size out.

    Example:
        >>> parser = load("upp-mini")
        >>> prediction = parser("street.jpg")
        >>> prediction["scene"], prediction.shares["object"]
    """

    def __init__(self, model: UPerNet, tasks: Mapping[str, Task], inference: InferenceConfig, name: str) -> None:
        """Wrap a network, which is put into evaluation mode.

        Args:
            model: Gives logits by task, (1, K, h, w) or (1, K), for (1, 3, H, W) float32 RGB in [0, 1].
            tasks: The model's tasks; auxiliary ones are not answered.
            inference: How an image is resized for the network.
            name: Written into every report.

        Raises:
            UserError: If tasks need one another in a circle.
        """
        self.model = model.eval()
        self.tasks = {task_name: task for task_name, task in tasks.items() if not task.auxiliary}
        self.inference = inference
        self.name = name
        self.labels = {task_name: task.classes for task_name, task in self.tasks.items()}
        self._ordered = order_tasks(self.tasks)
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def to(self, device: str | torch.device) -> Parser:
        """Move the network.

        Args:
            device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:1`.

        Raises:
            UserError: If there is no such device.
        """
        self.device = find_device(device)
        self.model.to(self.device)
        return self

    @overload
    def __call__(self, image: str | Path | Image.Image, scores: bool = ..., top: int = ...) -> Prediction: ...
    @overload
    def __call__(self, image: Sequence[Any], scores: bool = ..., top: int = ...) -> list[Prediction]: ...
    @overload
    def __call__(self, image: np.ndarray | Tensor, scores: bool = ..., top: int = ...) -> Any: ...

    def __call__(self, image: Any, scores: bool = False, top: int = 5) -> Prediction | list[Prediction]:
        """Parse one image or several.

        Args:
            image: A path, a PIL image, an array (H, W, 3) or (H, W), or a tensor (3, H, W) or (1, H, W); arrays and
                tensors hold RGB or grey, as uint8 or as floats in [0, 1]. A list of these, or an array or tensor with
                one more axis in front, is several images, which may differ in size.
            scores: Keep the probabilities of all classes at every pixel: 2·K·H·W bytes per task.
            top: How many image-level classes to list.

        Returns:
            A `Prediction`, or a list of them for several images.

        Raises:
            UserError: If the image cannot be read, or its shape, type or values are none of the above.
        """
        if top < 1:
            raise UserError(f"top {top} is too small; valid: 1 or more, such as 5")
        if isinstance(image, (list, tuple)) or (isinstance(image, (np.ndarray, Tensor)) and image.ndim == 4):
            return [self._parse(one, scores, top) for one in image]
        return self._parse(image, scores, top)

    @torch.inference_mode()
    def _parse(self, image: Any, scores: bool, top: int) -> Prediction:
        picture = to_picture(image)
        name = str(image) if isinstance(image, (str, Path)) else str(getattr(image, "filename", ""))
        try:
            return self._predict(picture, name, scores, top)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            size = f"{picture.shape[2]}×{picture.shape[1]} pixels"
            where = self.device.type
            raise UserError(
                f"{name or 'image'}: {size} do not fit into the memory of {where}; try a smaller image"
            ) from None

    def _predict(self, picture: Tensor, name: str, scores: bool, top: int) -> Prediction:
        views = Views(self.model, picture, self.inference, self._ordered, straight=True, device=self.device)
        likeliest = {n: _rank(views.image_probabilities(n)[0], self.labels[n], top) for n in self._ordered}
        answers: dict[str, Tensor] = {}
        kept: dict[str, np.ndarray] = {}
        for task_name in views.image_level:
            probabilities = views.answer(task_name)
            answers[task_name] = self.tasks[task_name].decode(probabilities, answers)
            if scores:
                kept[task_name] = probabilities[0].float().cpu().numpy()
        maps = self._maps(views, answers, kept if scores else None)

        return Prediction(
            image=picture.round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy(),
            maps={n: maps[n] for n in self.tasks if n in maps},
            labels=dict(self.labels),
            top={n: likeliest[n] for n in self.tasks},
            shares={n: _shares(maps[n], self.labels[n]) for n in self.tasks if n in maps},
            scores={n: kept[n] for n in self.tasks} if scores else None,
            name=name,
            model=self.name,
        )

    def _maps(
        self, views: Views, answers: Mapping[str, Tensor], kept: dict[str, np.ndarray] | None
    ) -> dict[str, np.ndarray]:
        """Label maps at the photograph's size.

        Args:
            views: What the network said.
            answers: Decoded answers of the image-level tasks, (1,) int64.
            kept: Takes the probabilities, if they are wanted.

        Returns:
            Task → (H, W) int32.
        """
        maps = {task_name: np.empty(views.size, np.int32) for task_name in views.maps}
        if kept is not None:
            kept.update({n: np.empty((len(self.labels[n]), *views.size), np.float16) for n in views.maps})
        for start, stop, tile in views.tiles():
            decoded = dict(answers)
            for task_name, probabilities in tile.items():
                decoded[task_name] = self.tasks[task_name].decode(probabilities, decoded)
                maps[task_name][start:stop] = decoded[task_name][0].cpu().numpy()
                if kept is not None:
                    kept[task_name][:, start:stop] = probabilities[0].half().cpu().numpy()
        return maps


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
