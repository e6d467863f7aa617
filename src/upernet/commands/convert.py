"""The command `convert`. Heavy imports wait until it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from upernet.errors import UserError
from upernet.screen import print_line


def convert(
    inputs: list[str],
    to: Literal["native", "mmseg", "huggingface", "smp"] = "native",
    drop: list[str] = [],  # noqa: B006 (never changed; the command line shows it)
    half: bool = False,
    trust: list[str] = [],  # noqa: B006
    mirror: str | None = None,
) -> int:
    """Turn a checkpoint of other software into a model folder, or a model into theirs.

    Args:
        inputs: What to read (a file, a folder, the authors' two files, a name or an address), then where to write.
        to: What to write: a model folder of ours, or the layout of MMSegmentation (one .pth), of Hugging Face or of
            segmentation_models_pytorch (a folder each).
        drop: Tasks to leave out, such as auxiliary.
        half: Store float16 in a model folder of ours.
        trust: Modules of your own from which the model may take its tasks.
        mirror: Download from this address instead of the published host; UPERNET_MIRROR if none.

    Raises:
        UserError: If the network does not exist in the software to write for.
    """
    if len(inputs) < 2:
        raise UserError(f"convert: {inputs} names no place to write to; for example upernet convert old.pth new-folder")
    if half and to != "native":
        raise UserError(f"--half stores a model folder of ours; --to {to} writes float32")
    *sources, target = inputs
    place = Path(target)
    if to == "mmseg" and place.suffix != ".pth":
        raise UserError(f"{target}: {to} is one file; give it a name like model.pth")
    if place.is_file() or (place.is_dir() and (to == "mmseg" or any(place.iterdir()))):
        raise UserError(f"{target}: is there already, and the last one is where to write; give a new name")

    from upernet.model.build import build_model
    from upernet.store.loading import load_model
    from upernet.store.native import save_model
    from upernet.store.weights import load_weights

    model, tasks, inference = load_model(sources[0] if len(sources) == 1 else sources, trust, mirror)
    unknown = [name for name in drop if name not in tasks]
    if unknown:
        raise UserError(f"--drop {unknown[0]}: no task; tasks: {', '.join(tasks)}")
    if drop:
        kept = {name: task for name, task in tasks.items() if name not in drop}
        if not kept:
            raise UserError(f"--drop {' '.join(drop)} leaves no task")
        state = {k: v for k, v in model.state_dict().items() if not any(k.startswith(f"heads.{n}.") for n in drop)}
        model, tasks = build_model(model.config, kept), kept
        load_weights(model, state, sources[0])
    if to == "native":
        save_model(place, model, tasks, inference, info={"converted_from": [Path(s).name for s in sources]}, half=half)
    else:
        from upernet.store.foreign import write_foreign

        write_foreign(place, to, model, tasks, inference)
    parameters = sum(p.numel() for p in model.parameters())
    what = ", ".join(f"{name} ({len(task.classes)} classes)" for name, task in tasks.items())
    print_line(f"{target}: {model.config.backbone}, {parameters / 1e6:.1f} million parameters, {what}", sys.stdout)
    return 0
