"""Training views per second on one core: this package against the reference's operations.

    python benchmarks/input_pipeline.py [--data cityscapes ade20k] [--images 8] [--rounds 10]

The pipelines of the published recipes: scale, crop with `cat_max_ratio`, flip, photometric distortion, normalisation,
padding. "Reference" is the same steps as its users run them (colour in float arrays, classes counted by sorting). Both
see the same made-up images of the data sets' sizes, in turns, and draw from the same ranges. Decoding is timed apart:
this package decodes with Pillow, the reference with OpenCV, to the same bytes. The reference does all of it in its
workers; this package normalises where the network runs, so that its workers' share is told too. CPU time of one thread,
medians over rounds; CPU time is steadier than wall time where others work on the same machine.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image

from upernet.data.config import AugmentConfig
from upernet.data.labels import IGNORE
from upernet.data.sample import Batch, Sample
from upernet.data.transforms import Augment

WHOLE, WORKERS, REFERENCE, DECODING = "this package", "this package, workers' share", "reference", "decoding"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Recipe:
    size: tuple[int, int]
    """Height and width of the made-up images."""
    classes: int
    kind: str
    """File type."""
    crop: tuple[int, int]
    box: tuple[int, int]


RECIPES = {
    "cityscapes": Recipe((1024, 2048), 19, "PNG", (512, 1024), (2048, 1024)),
    "ade20k": Recipe((512, 683), 150, "JPEG", (512, 512), (2048, 512)),
}


def scenery(recipe: Recipe, count: int) -> tuple[list[bytes], list[np.ndarray], list[np.ndarray]]:
    """Encoded images, the same decoded (H, W, 3) uint8, and label maps (H, W) int32: smooth shapes with grain."""
    rng = np.random.default_rng(0)
    height, width = recipe.size
    files, images, maps = [], [], []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (height // 64, width // 64, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        grain = rng.normal(0, 4, (height, width, 1)).astype(np.int16)
        file = io.BytesIO()
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(file, recipe.kind)
        files.append(file.getvalue())
        images.append(decode(files[-1]))
        labels = rng.integers(IGNORE, recipe.classes, (height // 64 + 1, width // 64 + 1))
        labels[labels > recipe.classes // 2] = 0  # one label has half of the image, as roads and walls do
        maps.append(labels.repeat(64, 0).repeat(64, 1)[:height, :width].astype(np.int32))
    return files, images, maps


def decode(file: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(file)).convert("RGB"))


def ours(recipe: Recipe, normalise: bool) -> Callable[[np.ndarray, np.ndarray], object]:
    """As the data loader does it: from arrays to a batch of one; and as the network goes on, to a normalised one."""
    augment = Augment(
        AugmentConfig(crop=recipe.crop, box=recipe.box, cat_max_ratio=0.75, photometric=True, pad_colour=MEAN)
    )
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)

    def run(image: np.ndarray, labels: np.ndarray) -> object:
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        view, maps, padding = augment(pixels, {"labels": torch.from_numpy(labels)})
        batch = Batch.of([Sample(view, maps, "source", "image", padding)])
        return batch.image.sub_(mean).div_(std) if normalise else batch.pixels, batch.targets

    return run


def reference_decode(file: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)


def reference(recipe: Recipe) -> Callable[[np.ndarray, np.ndarray], object]:
    """The reference's steps; images are taken as BGR, and labels as uint8 with 255 for unlabelled."""
    rng = np.random.default_rng(0)
    mean, scale = np.float64([[m * 255 for m in MEAN]]), np.float64([[1 / (s * 255) for s in STD]])

    def linear(values: np.ndarray, factor: float = 1, offset: float = 0) -> np.ndarray:
        return np.clip(values.astype(np.float32) * factor + offset, 0, 255).astype(np.uint8)

    def distort(image: np.ndarray) -> np.ndarray:
        if rng.integers(2):
            image = linear(image, offset=rng.uniform(-32, 32))
        early = rng.integers(2)
        if early and rng.integers(2):
            image = linear(image, rng.uniform(0.5, 1.5))
        if rng.integers(2):
            hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
            hsv[..., 1] = linear(hsv[..., 1], rng.uniform(0.5, 1.5))
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        if rng.integers(2):
            hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
            hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(-18, 18)) % 180
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        if not early and rng.integers(2):
            image = linear(image, rng.uniform(0.5, 1.5))
        return image

    def run(image: np.ndarray, labels: np.ndarray) -> object:
        ratio = rng.uniform(0.5, 2.0)
        long, short = int(recipe.box[0] * ratio), int(recipe.box[1] * ratio)
        factor = min(long / max(labels.shape), short / min(labels.shape))
        size = int(labels.shape[1] * factor + 0.5), int(labels.shape[0] * factor + 0.5)
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        for _ in range(11):
            top = rng.integers(max(size[1] - recipe.crop[0], 0) + 1)
            left = rng.integers(max(size[0] - recipe.crop[1], 0) + 1)
            window = slice(top, top + recipe.crop[0]), slice(left, left + recipe.crop[1])
            found, counts = np.unique(labels[window], return_counts=True)
            counts = counts[found != 255]
            if len(counts) > 1 and counts.max() / counts.sum() < 0.75:
                break
        image, labels = image[window], labels[window]
        if rng.integers(2):
            image, labels = cv2.flip(image, 1), cv2.flip(labels, 1)
        image = distort(image).astype(np.float32)
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
        cv2.subtract(image, mean, image)
        cv2.multiply(image, scale, image)
        below, beside = recipe.crop[0] - image.shape[0], recipe.crop[1] - image.shape[1]
        image = cv2.copyMakeBorder(image, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=0)
        labels = cv2.copyMakeBorder(labels, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=255)
        batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        return batch, torch.from_numpy(labels.astype(np.int64))[None]

    return run


def seconds(run: Callable[[], object]) -> float:
    begin = time.thread_time()
    run()
    return time.thread_time() - begin


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", nargs="+", choices=RECIPES, default=list(RECIPES))
    options.add_argument("--images", type=int, default=8, help="made-up images")
    options.add_argument("--rounds", type=int, default=10, help="views of each image")
    args = options.parse_args()
    torch.set_num_threads(1)
    for name in args.data:
        recipe = RECIPES[name]
        files, images, maps = scenery(recipe, args.images)
        pipelines = {kind: ours(recipe, kind == WHOLE) for kind in (WHOLE, WORKERS)}
        signed = dict.fromkeys(pipelines, maps)
        decoders = {DECODING: decode, f"reference, {DECODING}": reference_decode}
        pipelines[REFERENCE] = reference(recipe)
        signed[REFERENCE] = [np.where(m == IGNORE, 255, m).astype(np.uint8) for m in maps]
        # A round is every image once: views differ in cost, and a median over rounds is one over like things.
        times: dict[str, list[float]] = {kind: [] for kind in (*decoders, *pipelines)}
        for turn in range(args.rounds + 1):
            for kind, read in decoders.items():
                times[kind].append(sum(seconds(lambda r=read, f=f: r(f)) for f in files))
            spent = dict.fromkeys(pipelines, 0.0)
            for number, image in enumerate(images):
                for kind, run in pipelines.items():
                    torch.manual_seed(turn * args.images + number)  # the workers' share is that of the same views
                    spent[kind] += seconds(lambda r=run, i=image, m=signed[kind][number]: r(i, m))
            for kind, value in spent.items():
                times[kind].append(value)
        median = {kind: statistics.median(values[1:]) / args.images for kind, values in times.items()}
        size = f"{recipe.size[1]}×{recipe.size[0]} {recipe.kind}"
        for kind, value in median.items():
            print(f"{name} ({size}), {kind}: {1e3 * value:.2f} ms, {1 / value:.1f} images/s per core")
        for kind in (WHOLE, WORKERS):
            ratio = median[REFERENCE] / median[kind]
            decoded = (median[REFERENCE] + median[f"reference, {DECODING}"]) / (median[kind] + median[DECODING])
            print(f"{name}: reference / {kind} = {ratio:.2f}, with decoding {decoded:.2f}")


if __name__ == "__main__":
    main()
