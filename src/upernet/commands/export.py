"""The command `export`. Heavy imports wait until it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from upernet.errors import UserError, check
from upernet.files import check_writable, write_whole
from upernet.screen import print_line

EXAMPLE = "upernet export upp-mini upp-mini.onnx"


def export(
    inputs: list[str],
    output: Literal["logits", "maps"] = "logits",
    form: Literal["taps", "winograd", "plain"] = "taps",
    tasks: list[str] = [],  # noqa: B006 (never changed; the command line shows it)
    checks: int = 6,
    opset: int = 20,
    int8: Path | None = None,
    trust: list[str] = [],  # noqa: B006
    mirror: str | None = None,
) -> int:
    """Write a model as a file for other programs: an ONNX graph, or a program of torch.export.

    The file takes batches of any size and images of any size from 32 px. It is written only if it gives the model's
    answers at several sizes. Classes, colours, settings and the model card are inside. See docs/export.md.

    Args:
        inputs: The model to read (a name, a folder, a file, the authors' two files or an address), then the .onnx or
            .pt2 file to write.
        output: What the file gives. logits are those of each task at its own resolution, of float32 RGB from 0 to 1;
            upernet runs such a file as any model. maps are the classes of all tasks at every pixel of the input, parts
            gated by objects, of uint8 RGB. Images are not resized inside.
        form: taps is the network rewritten exactly, with about half the multiply-adds; winograd has about a quarter
            of them, for .onnx alone; plain has the network's own layers. See docs/fast-inference.md.
        tasks: Tasks to compute. If not given, all but auxiliary ones.
        checks: Number of sizes at which the file is compared with the network.
        opset: Version of the ONNX operators.
        int8: Also quantise to 8 bits, with the photographs in this folder for calibration. For .onnx with logits only.
        trust: Your own modules, from which the model may import its tasks.
        mirror: Address to download from instead of the published host. If not given, the variable UPERNET_MIRROR
            is used, if set.

    Returns:
        Exit status: 0.

    Raises:
        UserError: If the model cannot be read, or an option is not valid.
        WorkError: If the network cannot be traced, or the file does not give its answers.
    """
    if len(inputs) < 2:
        raise UserError(f"export: {inputs[0]} is not followed by a file to write; for example {EXAMPLE}")
    *sources, target = inputs
    path = Path(target)
    if path.suffix not in (".onnx", ".pt2"):
        raise UserError(f"{target}: the file to write ends with .onnx or .pt2; for example {EXAMPLE}")
    check_writable("export:", path)
    check("--checks", checks, 1, example=6)
    check("--opset", opset, 18, 23, example=20)
    if form == "winograd" and path.suffix == ".pt2":
        raise UserError(f"--form winograd is only for .onnx, and {target} is a .pt2; leave it out, or give --form taps")
    if form == "winograd" and int8 is not None:
        raise UserError(f"--form winograd leaves few convolutions to --int8 {int8}; leave one of the two out")
    if int8 is not None and (path.suffix != ".onnx" or output != "logits"):
        raise UserError(f"--int8 {int8} is only for an .onnx of logits; leave it out, or give {EXAMPLE}")

    from upernet.store.exporting import Export, export_model
    from upernet.store.loading import load_model, model_card

    names = sources[0] if len(sources) == 1 else sources
    network, own, inference = load_model(names, trust, mirror)
    settings = Export(
        output=output,
        form=form,
        tasks=tuple(tasks),
        checks=checks,
        opset=opset,
        pictures=None if int8 is None else _pictures(int8),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    exported = export_model(network, own, inference, path, settings, card=model_card(names, mirror))
    write_whole(path, lambda file: file.write(exported.content))
    size, answers = len(exported.content) / 1e6, ", ".join(exported.tasks)
    print_line(
        f"{target}: {network.config.backbone}, {form} form, {size:.1f} MB, {output} of {answers}; "
        f"the network's answers at {checks} sizes, to {exported.difference:.0e}",
        sys.stdout,
    )
    for task, share in exported.agreement.items():
        print_line(f"int8: {task}: the class of the float model at {share:.2%} of the positions", sys.stdout)
    return 0


def _pictures(folder: Path) -> list[Path]:
    """The photographs in a folder.

    Raises:
        UserError: If there are none.
    """
    from upernet.data.inputs import find_images

    places, errors = find_images([str(folder)])
    if errors or not places:
        raise UserError(str(errors[0]) if errors else f"--int8 {folder}: holds no photographs; valid: a folder of some")
    return list(places)
