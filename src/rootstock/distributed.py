"""Ranks and devices: one process or many, the same function computed."""

import os
import sys
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed


@dataclass(frozen=True)
class World:
    """This process's place among those that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """The one rank that writes files and logs."""
        return self.rank == 0

    def tell(self, value: object) -> Any:
        """Return the first rank's value on every rank; what the others pass is not looked at."""
        if self.size == 1:
            return value
        told = [value]
        torch.distributed.broadcast_object_list(told, src=0)
        return told[0]

    def sum(self, tensors: list[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the ranks (through one flat buffer a dtype)."""
        if self.size == 1:
            return
        for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
            group = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            torch.distributed.all_reduce(flat)
            for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def meet(self) -> None:
        """Wait until every rank is here."""
        arrived = torch.zeros(1, device=self.device)
        self.sum([arrived])
        arrived.item()  # a GPU's sum is under way until its value is asked for


def join() -> World:
    """Join the process group that `torchrun` describes in the environment; alone without one.

    The device is `$ROOTSTOCK_DEVICE` (cpu or cuda), else a GPU where there is one. CPU arithmetic uses
    `$ROOTSTOCK_THREADS` threads (2 unless set: weights differ to the bit between thread counts).
    """
    device_type = os.environ.get("ROOTSTOCK_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if device_type not in ("cpu", "cuda"):
        raise ValueError(f"ROOTSTOCK_DEVICE: found {device_type!r}, wanted cpu or cuda")
    torch.set_num_threads(num_threads())
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if device_type == "cuda" else torch.device("cpu")
    if device_type == "cuda":
        torch.cuda.set_device(device)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return World(rank=0, size=1, device=device)
    torch.distributed.init_process_group("nccl" if device_type == "cuda" else "gloo")
    return World(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)


def leave() -> None:
    """Leave the process group, if one was joined."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def num_threads() -> int:
    """Return the threads of CPU arithmetic, `$ROOTSTOCK_THREADS`."""
    return _count("ROOTSTOCK_THREADS", 2)


def launch_processes() -> None:
    """Restart this stage under `torchrun` when `$ROOTSTOCK_PROCESSES` asks for more than one process.

    Returns in the one process, or in each of the launched ones; replaces the process otherwise.
    """
    processes = _count("ROOTSTOCK_PROCESSES", 1)
    if processes == 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        return
    module = sys.modules["__main__"].__spec__.name
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    os.execv(sys.executable, [*launcher, "--module", module, *sys.argv[1:]])


def _count(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ValueError(f"{name}: found {text!r}, wanted a whole number of at least 1")
    return int(text)
