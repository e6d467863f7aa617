"""`upernet predict`: parse photographs and write what was found.

Nothing here names torch's types, even for type checkers only: jsonargparse follows such imports for `--help`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from upernet.errors import UserError
from upernet.screen import print_line, progress


def predict(
    inputs: list[str],
    model: str = "upp-mini",
    out: Path = Path("upernet-out"),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    top: int = 5,
    scores: bool = False,
    trust: list[str] = [],  # noqa: B006 (never changed; the command line shows it)
    mirror: str | None = None,
) -> int:
    """Parse photographs: a label map per task, a picture with legends, and a JSON for each.

    Args:
        inputs: Image files, folders (searched to any depth) and globs such as 'photos/**/*.jpg'.
        model: A name (see upernet models), a model folder, a checkpoint of other software, or an address.
        out: Folder for the results; sub-folders of a given folder are kept.
        device: Where to compute; auto takes a GPU if there is one.
        top: How many image-level classes to list.
        scores: Also write the probabilities of all classes at every pixel, as float16 .npz; these are large.
        trust: Modules of your own from which the model may take its tasks.
        mirror: Download from this address instead of the published host; UPERNET_MIRROR if none.

    Returns:
        Exit status: 0, or 1 if an input could not be parsed (the others are).

    Raises:
        UserError: If the model, the device, `top` or `out` cannot be used.
    """
    from upernet.data.inputs import find_images

    if top < 1:
        raise UserError(f"--top {top} is too small; valid: 1 or more, such as 5")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; valid: a folder, such as upernet-out")
    found, errors = find_images(inputs)
    named = {Path(given) for given in inputs}
    # A folder that holds `out` holds our own pictures too, from the last time.
    images = {p: place for p, place in found.items() if p in named or not (_is_below(p, out) and _is_ours(p))}
    for error in errors:
        print_line(str(error), sys.stderr)
    failed = bool(errors)
    if not images:
        if not errors:
            print_line(f"nothing to do: all images found lie in {out}, the folder for results", sys.stderr)
        return 1

    from upernet.parse.parser import load

    parser = load(model, device, trust, mirror)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}; valid: a folder that can be written") from None
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
    """Where each image's results go below `out`, without suffix; no two the same, on any file system."""
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


def _is_ours(path: Path) -> bool:
    """Whether `Prediction.save` wrote this picture: a sheet, or a label map beside its JSON."""
    stem = path.name.rsplit(".", 2)[0]
    return path.name.endswith(".parsed.jpg") or (path.suffix == ".png" and path.with_name(f"{stem}.json").is_file())


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
