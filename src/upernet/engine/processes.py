"""The processes that torchrun or a job scheduler started together, and how they join and part."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from upernet.config import RunConfig
from upernet.device import find_device
from upernet.errors import UserError, WorkError

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment


def build_fabric(run: RunConfig, *, uneven: bool = False) -> Fabric:
    """Fabric for this process of a training, joined to the others if there are any.

    One process per GPU (or, on CPUs, as many as were started), on one machine or several: `torchrun` and `srun` say how
    many in the environment. Gradients are averaged over processes after every backward pass: a step with accumulation
    may use branches in one pass that it does not use in the next, which delayed averaging would leave unequal.

    Args:
        run: Device and precision.
        uneven: Whether steps may leave branches of the network out.

    Raises:
        UserError: If srun was not told how many processes belong on a machine, or a process sees too few GPUs.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # its notes would interrupt the lines of the run
    environment, machines = _environment(), 1
    if environment is None:
        fabric = Fabric(accelerator=run.device, devices=1, precision=run.precision)
    else:
        if isinstance(environment, SLURMEnvironment):
            machines = int(os.environ["SLURM_NNODES"])
        else:
            machines = environment.world_size() // int(os.environ["LOCAL_WORLD_SIZE"])
        processes, seen = environment.world_size() // machines, torch.cuda.device_count()
        if run.device != "cpu" and 0 < seen < processes:
            raise UserError(
                f"{processes} processes on a machine, of which each sees {seen} of its GPUs; start one for each GPU "
                f"and show it all of them, with srun by --gpus-per-node {processes} in the place of --gpus-per-task"
            )
        fabric = Fabric(
            accelerator=run.device,
            devices=processes,
            num_nodes=machines,
            strategy=DDPStrategy(find_unused_parameters=uneven),
            precision=run.precision,
            plugins=environment,
        )
        atexit.register(_leave)
    fabric.launch()
    return fabric


@contextmanager
def join(device: str) -> Iterator[tuple[int, int, torch.device]]:
    """Join the other processes of a measurement, if there are any, while the block runs.

    Args:
        device: `auto`, `cpu` or `cuda`.

    Yields:
        Rank of this process, their number, and this one's device: with GPUs, each its own.

    Raises:
        UserError: If there is no such device, or srun was not told how many processes belong on a machine.
    """
    environment, found = _environment(), find_device(device)
    if environment is None:
        yield 0, 1, found
        return
    os.environ |= {"MASTER_ADDR": environment.main_address, "MASTER_PORT": str(environment.main_port)}
    rank, world = environment.global_rank(), environment.world_size()
    # Ranks meet only at a source's end, however far one is behind; there a lost connection tells that one has died.
    dist.init_process_group("gloo", rank=rank, world_size=world, timeout=timedelta(days=7))
    if found.type == "cuda":
        found = torch.device("cuda", environment.local_rank() % torch.cuda.device_count())
        torch.cuda.set_device(found)  # "cuda" without a number now means this one
    try:
        yield rank, world, found
    finally:
        dist.destroy_process_group()


def wait_for_others() -> None:
    """Wait until all processes that have joined are here.

    Raises:
        WorkError: If one of them has stopped.
    """
    try:
        dist.barrier()
    except RuntimeError as error:
        raise WorkError("another process of this command has stopped; its own line says why") from error


def _leave() -> None:
    """Leave the process group, which Fabric keeps open with gloo.

    A thread of gloo that still holds a tensor when Python ends would abort this process after its work is done. The
    network's own reference to the group is dropped first (a traceback may hold another), so that destroying the group
    waits for its threads and for what they exchange with the others. Ctrl-C ends the process meanwhile.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def _environment() -> ClusterEnvironment | None:
    """Find what started several processes and which of them this is; none for a process on its own.

    Lightning, which not everyone has installed, is imported for several processes only.

    Raises:
        UserError: If srun was not told how many processes belong on a machine.
    """
    env = os.environ
    if "LOCAL_WORLD_SIZE" in env:  # torchrun
        if int(env["WORLD_SIZE"]) == 1:
            return None
        from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

        return TorchElasticEnvironment()
    # A shell inside an allocation has these too, but was not started by srun.
    if int(env.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_NUM_TASKS" in env and env.get("SLURM_JOB_NAME") != "bash":
        if "SLURM_NTASKS_PER_NODE" not in env:
            raise UserError(
                f"srun: {env['SLURM_NTASKS']} processes, but not how many on each machine; "
                "give --ntasks-per-node, for example --ntasks-per-node 4"
            )
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

        return SLURMEnvironment(auto_requeue=False)
    return None
