"""The command `predict`. Heavy imports wait until it runs.

No type of torch is named here, not even for type checkers only, because jsonargparse follows such imports for `--help`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from upernet.errors import UserError
from upernet.files import check_folder, make_folder
from upernet.screen import print_line, progress


def predict(
    inputs: list[str],
    model: str = "upp-mini",
    out: Path = Path("upernet-out"),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] = "auto",
    reference: bool = False,
    precision: Literal["float32", "tf32", "bf16", "fp16"] = "float32",
    top: int = 5,
    scores: bool = False,
    trust: list[str] = [],  # noqa: B006 (never changed; the command line shows it)
    mirror: str | None = None,
) -> int:
    """Parse photographs: write label maps for all tasks, a picture with legends and a JSON file for each one.

    Args:
        inputs: Image files, folders (searched to any depth) and globs such as 'photos/**/*.jpg'.
        model: A name (see upernet models), a model folder, a checkpoint of other software, an address, or an .onnx
            of upernet export.
        out: Folder for the results. Sub-folders of an input folder are kept.
        device: Where to compute; auto takes a GPU if there is one.
        engine: Software that runs the network. auto takes OpenVINO on a CPU where it is installed and its graph of the
            model is on disk, or there are enough images to pay for preparing it; otherwise torch.
        reference: Run the plain network in PyTorch, without the exact rewriting that makes it faster.
        precision: Arithmetic of PyTorch: float32, tf32 on a GPU, or bf16 or fp16 mixed with float32. Engines compute in
            float32.
        top: Number of classes to list for the image as a whole.
        scores: Also write the probabilities of all classes at every pixel, as .npz files in float16. They are large.
        trust: Your own modules, from which the model may import its tasks.
        mirror: Address to download from instead of the published host. If not given, the variable UPERNET_MIRROR
            is used, if set.

    Returns:
        Exit status: 0, or 1 if an input could not be parsed; all others are parsed nevertheless.

    Raises:
        UserError: If the model, the device, `top` or `out` cannot be used.
    """
    from upernet.data.inputs import find_images

    if top < 1:
        raise UserError(f"--top {top} is too small; valid: 1 or more, such as 5")
    out = Path(out)
    check_folder("--out", out, "upernet-out")
    places, errors = find_images(inputs)
    named = {Path(word) for word in inputs}
    # A folder that contains `out` also contains the pictures written by an earlier call.
    images = {p: place for p, place in places.items() if p in named or not (_is_below(p, out) and _is_result(p))}
    for error in errors:
        print_line(str(error), sys.stderr)
    failed = bool(errors)
    if not images:
        if not errors:
            print_line(f"{out}: nothing to do, all images found are results of an earlier call", sys.stderr)
        return 1

    from upernet.parse.parser import load

    parser = load(model, device, trust, mirror, engine, reference, images=len(images), precision=precision)
    make_folder(out, "--out")
    with progress("parsing", len(images), shown=len(images) > 1) as advance:
        for path, target in zip(images, _distinct(images.values()), strict=True):
            try:
                prediction = parser(path, scores=scores, top=top)
                prediction.save(out / target.parent, target.name)
            except UserError as error:
                failed = True
                print_line(str(error), sys.stderr)
            except Exception as error:
                failed = True
                print_line(f"{path}: {' '.join(str(error).split()) or type(error).__name__}", sys.stderr)
            else:
                print_line(f"{path}: {prediction.summary()} -> {out / target}.parsed.jpg", sys.stdout)
            advance()
    return int(failed)


def _distinct(places: Iterable[Path]) -> list[Path]:
    """Paths of the images' results below `out`, without suffix. All differ, even if a file system ignores case."""
    taken: set[str] = set()
    targets = []
    for place in places:
        target, number = place.with_suffix(""), 1
        while str(target).casefold() in taken:
            number += 1
            target = place.with_name(f"{place.stem}-{number}")
        taken.add(str(target).casefold())
        targets.append(target)
    return targets


def _is_result(path: Path) -> bool:
    """Whether `Prediction.save` wrote this picture: one with legends, or a label map beside its JSON."""
    stem = path.name.rsplit(".", 2)[0]
    return path.name.endswith(".parsed.jpg") or (path.suffix == ".png" and path.with_name(f"{stem}.json").is_file())


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
