"""How many processes train together, as torchrun or a job scheduler started them."""

from __future__ import annotations

import os

from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy

from upernet.config import RunConfig


def build_fabric(run: RunConfig) -> Fabric:
    """Fabric for this process, joined to its group if there are others.

    One process per GPU (or, on CPUs, as many as were started), on one machine or several: `torchrun` and `srun` say how
    many in the environment. Gradients are averaged over processes after every backward pass: a step with accumulation
    may use branches in one pass that it does not use in the next, which delayed averaging would leave unequal.
    """
    devices, nodes = _started()
    # A batch without targets for a task leaves its branch without gradients.
    strategy = DDPStrategy(find_unused_parameters=True) if devices * nodes > 1 else "auto"
    fabric = Fabric(
        accelerator=run.device, devices=devices, num_nodes=nodes, strategy=strategy, precision=run.precision
    )
    fabric.launch()
    return fabric


def _started() -> tuple[int, int]:
    """Processes per machine, and machines."""
    env = os.environ
    if "LOCAL_WORLD_SIZE" in env:  # torchrun
        local = int(env["LOCAL_WORLD_SIZE"])
        return local, int(env["WORLD_SIZE"]) // local
    # A shell inside an allocation has these too, but was not started by srun.
    if int(env.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_NUM_TASKS" in env and env.get("SLURM_JOB_NAME") != "bash":
        nodes = int(env["SLURM_NNODES"])
        return int(env["SLURM_NTASKS"]) // nodes, nodes
    return 1, 1
