"""The command `train`. Heavy imports wait until it runs."""

from __future__ import annotations

from pathlib import Path

from upernet.config import InferenceConfig, ModelConfig, OptimConfig, RunConfig
from upernet.contract import Task
from upernet.data.config import DataConfig
from upernet.errors import UserError
from upernet.files import write_whole
from upernet.plain import to_plain
from upernet.yaml_files import write_yaml


def train(
    tasks: dict[str, Task],
    data: DataConfig,
    model: ModelConfig,
    optim: OptimConfig,
    run: RunConfig,
    inference: InferenceConfig,
) -> int:
    """Train a network on one source or a mixture of sources, or continue a run where it stopped.

    Args:
        tasks: The tasks by name, each given by class_path and init_args.
        data: Sources, the meaning of their labels, augmentation and batches.
        model: The network.
        optim: Optimiser, schedule and averaging of the weights.
        run: Length, precision, folder and logs.
        inference: How images are shown to the network, in validation and later in prediction.

    Returns:
        Exit status: 0.

    Raises:
        UserError: If a value is not valid, or a source or the run folder cannot be used.
    """
    import torch

    from upernet.data.mixture import bind_sources
    from upernet.engine.class_weights import weigh_classes, write_frequencies
    from upernet.engine.trainer import Trainer
    from upernet.model.build import build_model
    from upernet.store.loading import load_model
    from upernet.store.pretrained import load_backbone_weights
    from upernet.store.weights import load_weights

    if not tasks:
        raise UserError("tasks: there are none; for example semantic: {class_path: upernet.tasks.Semantic, …}")
    if run.device == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device: cuda, but this machine has no usable GPU; use auto or cpu")
    if run.init is not None:
        start, known, inference = load_model(run.init)
        model, tasks = start.config, known | tasks
    torch.manual_seed(run.seed)
    network = build_model(model, tasks)
    sources = bind_sources(data, tasks)
    if run.init is not None:
        load_weights(network, start.state_dict(), run.init, partial=True)
    elif run.backbone_weights is not None:
        load_backbone_weights(network.backbone, model.backbone, run.backbone_weights)
    folder = Path(run.out)
    counted = weigh_classes(tasks, sources, folder if run.resume else None)
    trainer = Trainer(network, tasks, sources, data=data, optim=optim, run=run, inference=inference)
    resolved = {"tasks": tasks, "data": data, "model": model, "optim": optim, "run": run, "inference": inference}
    text = write_yaml(to_plain(resolved))
    folder.mkdir(parents=True, exist_ok=True)
    trainer.resume()
    if trainer.is_first:
        write_frequencies(folder, counted)
        write_whole(folder / "config.yaml", lambda file: file.write(text.encode()))
    trainer.console.print(f"configuration: {folder / 'config.yaml'}")
    trainer.fit()
    trainer.console.print(f"done: {folder / 'model'}")
    return 0
