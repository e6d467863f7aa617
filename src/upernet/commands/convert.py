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
    """Convert a checkpoint of other software to a model folder, or a model to a checkpoint of other software.

    Args:
        inputs: The model to read (a file, a folder, the authors' two files, a name or an address), then the path to
            write.
        to: Format to write. native is a model folder of upernet, mmseg a .pth file of MMSegmentation, huggingface and
            smp a folder of Hugging Face or of segmentation_models_pytorch.
        drop: Tasks to leave out, such as auxiliary.
        half: Store the weights in float16. For native only.
        trust: Your own modules, from which the model may import its tasks.
        mirror: Address to download from instead of the published host. If not given, the variable UPERNET_MIRROR
            is used, if set.

    Returns:
        Exit status: 0.

    Raises:
        UserError: If the model cannot be read, or the other software has no such network.
    """
    if len(inputs) < 2:
        raise UserError(
            f"convert: {inputs[0]} is not followed by a path to write; for example upernet convert old.pth new-folder"
        )
    if half and to != "native":
        raise UserError(f"--half is only for --to native; --to {to} writes float32")
    *sources, target = inputs
    path = Path(target)
    if to == "mmseg" and path.suffix != ".pth":
        raise UserError(f"{target}: --to {to} writes a .pth file; for example model.pth")
    if path.is_file() or (path.is_dir() and (to == "mmseg" or any(path.iterdir()))):
        raise UserError(f"{target}: exists already, and the last path is the one to write; give a new one")

    from upernet.model.build import build_model
    from upernet.store.loading import load_model
    from upernet.store.native import save_model
    from upernet.store.weights import load_weights

    model, tasks, inference = load_model(sources[0] if len(sources) == 1 else sources, trust, mirror)
    unknown = [name for name in drop if name not in tasks]
    if unknown:
        raise UserError(f"--drop {unknown[0]}: no such task; tasks: {', '.join(tasks)}")
    if drop:
        kept = {name: task for name, task in tasks.items() if name not in drop}
        if not kept:
            raise UserError(f"--drop {' '.join(drop)} leaves no task; drop fewer of {', '.join(tasks)}")
        state = {k: v for k, v in model.state_dict().items() if not any(k.startswith(f"heads.{n}.") for n in drop)}
        model, tasks = build_model(model.config, kept), kept
        load_weights(model, state, sources[0])
    if to == "native":
        save_model(path, model, tasks, inference, info={"converted_from": [Path(s).name for s in sources]}, half=half)
    else:
        from upernet.store.foreign import write_foreign

        write_foreign(path, to, model, tasks, inference)
    parameters = sum(p.numel() for p in model.parameters())
    answers = ", ".join(f"{name} ({len(task.classes)} classes)" for name, task in tasks.items())
    print_line(f"{target}: {model.config.backbone}, {parameters / 1e6:.1f} million parameters, {answers}", sys.stdout)
    return 0
