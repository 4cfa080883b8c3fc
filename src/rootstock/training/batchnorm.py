"""Batch normalisation over microbatches: one update of the running statistics a step, whoever computed its parts."""

import torch

from rootstock.distributed import World


class RunningStatistics:
    """Makes a network's BN running statistics a function of the step's microbatches, not of ranks or accumulation.

    In training each BN normalises by its own microbatch. Its running statistics become
    (1 − momentum) · old + momentum · (mean over the step's microbatches).
    """

    def __init__(self, network: torch.nn.Module, world: World):
        """Watch every BN layer of `network` that is in training mode at each step."""
        self._layers = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        self._momenta = [layer.momentum for layer in self._layers]
        self._world = world

    def begin_step(self) -> None:
        """Remember the old statistics and let each forward pass leave its microbatch's own."""
        self._active = [(layer, m) for layer, m in zip(self._layers, self._momenta, strict=True) if layer.training]
        self._buffers = [buffer for layer, _ in self._active for buffer in (layer.running_mean, layer.running_var)]
        self._old = [buffer.clone() for buffer in self._buffers]
        self._sums = [torch.zeros_like(buffer) for buffer in self._buffers]
        for layer, _ in self._active:
            layer.momentum = 1.0

    def end_microbatch(self) -> None:
        """Add what the forward pass left behind."""
        if self._sums:
            torch._foreach_add_(self._sums, self._buffers)

    @torch.no_grad()
    def end_step(self, *, num_microbatches: int) -> None:
        """Update the running statistics from `num_microbatches`, those of all ranks together."""
        if not self._active:
            return
        self._world.sum(self._sums)
        momenta = [momentum for _, momentum in self._active for _ in range(2)]
        for buffer, old, total, momentum in zip(self._buffers, self._old, self._sums, momenta, strict=True):
            buffer.copy_(old).lerp_(total / num_microbatches, momentum)
        for layer, momentum in self._active:
            layer.momentum = momentum
            layer.num_batches_tracked.zero_()  # it would count this rank's microbatches; nothing reads it
