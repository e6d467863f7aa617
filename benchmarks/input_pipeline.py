"""Training views per second on one core: this package against the reference's operations.

    python benchmarks/input_pipeline.py [--data cityscapes ade20k] [--images 8] [--rounds 10]

The pipelines of the published recipes: scale, crop with `cat_max_ratio`, flip, photometric distortion, normalisation,
padding. "Reference" is the same steps as its users run them (images by OpenCV, label maps by Pillow, colour in float
arrays, classes counted by sorting). Both see the same made-up images in turns, in the data sets' layouts, and of their
dimensions and sizes of file, and draw from the same ranges: once from files, with decoding, and once from arrays. The
reference does all of it in its workers; this package normalises where the network runs, so that its workers' share is
told too. CPU time of one thread, medians over rounds; CPU time is steadier than wall time where others work on the same
machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from upernet.data import ADE20K, Cityscapes
from upernet.data.config import AugmentConfig, DataConfig, SourceConfig, TargetConfig
from upernet.data.images import Photograph, read_image
from upernet.data.items import Item
from upernet.data.mixture import bind_sources
from upernet.data.sample import Batch, Sample
from upernet.data.source import Source
from upernet.data.transforms import Augment
from upernet.tasks import Semantic

WHOLE, WORKERS, REFERENCE = "this package", "this package, workers' share", "reference"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Recipe:
    source: type[Source]
    split: str
    size: tuple[int, int]
    """Height and width of the made-up images."""
    grain: float
    """Noise on them, for which files are as large as the data set's."""
    image: str
    """Where an image lies, by number."""
    mask: str
    """Where its label map lies."""
    crop: tuple[int, int]
    box: tuple[int, int]
    first: int
    """Value that stands for the first label in a label map."""
    unlabelled: int


RECIPES = {
    "cityscapes": Recipe(
        source=Cityscapes,
        split="train",
        size=(1024, 2048),
        grain=1,
        image="leftImg8bit/train/aachen/{}_leftImg8bit.png",
        mask="gtFine/train/aachen/{}_gtFine_labelTrainIds.png",
        crop=(512, 1024),
        box=(2048, 1024),
        first=0,
        unlabelled=255,
    ),
    "ade20k": Recipe(
        source=ADE20K,
        split="training",
        size=(512, 683),
        grain=4,
        image="images/training/{}.jpg",
        mask="annotations/training/{}.png",
        crop=(512, 512),
        box=(2048, 512),
        first=1,
        unlabelled=0,
    ),
}


def make_up(recipe: Recipe, root: Path, count: int) -> None:
    """Images and label maps of smooth shapes with grain."""
    rng = np.random.default_rng(0)
    height, width = recipe.size
    classes = len(recipe.source(root=".").annotations["mask"].labels)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (height // 64, width // 64, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        grain = rng.normal(0, recipe.grain, (height, width, 1)).astype(np.int16)
        labels = rng.integers(-1, classes, (height // 64 + 1, width // 64 + 1))
        labels[labels > classes // 2] = 0  # one label has half of the image, as roads and walls do
        labels = np.where(labels < 0, recipe.unlabelled, labels + recipe.first)
        labels = labels.repeat(64, 0).repeat(64, 1)[:height, :width].astype(np.uint8)
        image, mask = root / recipe.image.format(number), root / recipe.mask.format(number)
        for path, pixels in ((image, (smooth + grain).clip(0, 255).astype(np.uint8)), (mask, labels)):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


Pipeline = Callable[[Item, tuple[np.ndarray, np.ndarray] | None], object]
"""From an item, or from its image and label map, to a batch of one."""


def ours(recipe: Recipe, source: Source, normalise: bool) -> Pipeline:
    """As the data loader does it; and as the network goes on, to a normalised batch."""
    augment = Augment(
        AugmentConfig(crop=recipe.crop, box=recipe.box, cat_max_ratio=0.75, photometric=True, pad_colour=MEAN)
    )
    labels = list(source.annotations["mask"].labels)
    config = DataConfig(sources={"it": SourceConfig(dataset=source, targets={"semantic": TargetConfig()})})
    bound = bind_sources(config, {"semantic": Semantic(labels=labels)})["it"]
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)

    def run(item: Item, arrays: tuple[np.ndarray, np.ndarray] | None) -> object:
        if arrays is None:
            sample = bound.sample(item, augment)
        else:
            view, maps, padding = augment(Photograph.from_pixels(arrays[0]), {"semantic": torch.from_numpy(arrays[1])})
            sample = Sample(view, maps, "it", item.id, padding)
        batch = Batch.stack([sample])
        return batch.image.sub_(mean).div_(std) if normalise else batch.pixels, batch.targets

    return run


def reference(recipe: Recipe) -> tuple[Pipeline, Callable[[Item], tuple[np.ndarray, np.ndarray]]]:
    """The reference's steps, and how it reads: images as BGR, and labels as uint8 with 255 for unlabelled."""
    rng = np.random.default_rng(0)
    mean, scale = np.float64([[m * 255 for m in MEAN]]), np.float64([[1 / (s * 255) for s in STD]])

    def read(item: Item) -> tuple[np.ndarray, np.ndarray]:
        image = cv2.imdecode(np.frombuffer(item.image.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        labels = np.array(Image.open(item.annotations["mask"])).squeeze().astype(np.uint8)
        if recipe.first:
            labels[labels == recipe.unlabelled] = 255
            labels = labels - recipe.first
            labels[labels == 255 - recipe.first] = 255
        return image, labels

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

    def run(item: Item, arrays: tuple[np.ndarray, np.ndarray] | None) -> object:
        image, labels = read(item) if arrays is None else arrays
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

    return run, read


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", nargs="+", choices=RECIPES, default=list(RECIPES))
    options.add_argument("--images", type=int, default=8, help="made-up images")
    options.add_argument("--rounds", type=int, default=10, help="views of each image")
    args = options.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for name in args.data:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, Path(folder), args.images, args.rounds)


def measure(name: str, folder: Path, images: int, rounds: int) -> None:
    """Print the times of one data set's pipelines, and their ratios."""
    recipe = RECIPES[name]
    make_up(recipe, folder, images)
    source = recipe.source(root=str(folder))
    items = source.items(recipe.split)
    theirs, read = reference(recipe)
    pipelines = {WHOLE: ours(recipe, source, True), WORKERS: ours(recipe, source, False), REFERENCE: theirs}
    arrays = [(read_image(item.image), source.read(item)[1]["mask"]) for item in items]
    decoded = {WHOLE: arrays, WORKERS: arrays, REFERENCE: [read(item) for item in items]}
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 1):
        # A round is every image once: views differ in cost, and a median over rounds is one over like things.
        spent = {(start, kind): 0.0 for start in ("files", "arrays") for kind in pipelines}
        for number, item in enumerate(items):
            for start, kind in spent:
                torch.manual_seed(turn * images + number)  # of this package the same views
                begin = time.thread_time()
                pipelines[kind](item, decoded[kind][number] if start == "arrays" else None)
                spent[start, kind] += time.thread_time() - begin
        for case, value in spent.items():
            times.setdefault(case, []).append(value)
    median = {case: statistics.median(values[1:]) / images for case, values in times.items()}
    size = items[0].image.stat().st_size / 1e6
    print(f"{name}: {images} images of {recipe.size[1]}×{recipe.size[0]}, {size:.2f} MB each")
    for (start, kind), value in median.items():
        ratio = median[start, REFERENCE] / value
        print(f"  from {start}, {kind}: {1e3 * value:.2f} ms, {1 / value:.1f} images/s per core; {ratio:.2f}")


if __name__ == "__main__":
    main()
