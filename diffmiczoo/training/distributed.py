"""Several processes train one model together, started by `accelerate launch` or `torchrun`; one is the plain case."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffmiczoo.training.sampler import Share

if TYPE_CHECKING:
    from accelerate import Accelerator


class Processes:
    """What accelerate knows about the processes of a run.

    Args:
        device: where the model is; with several processes each computes on what accelerate gives it of that kind.

    Attributes:
        share: which process this is, of how many.
        device: what it computes on.
    """

    def __init__(self, device: torch.device) -> None:
        self._accelerator = _accelerator(device)
        self.share = Share(self._accelerator.process_index, self._accelerator.num_processes)
        self.device = self._accelerator.device if self.several else device

    @property
    def several(self) -> bool:
        """Whether there is more than this process."""
        return self.share.processes > 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.share.rank == 0

    def together(self, module: nn.Module) -> nn.Module:
        """Returns a module whose gradients are the mean over all processes."""
        if not self.several:
            return module
        wrapped: nn.Module = self._accelerator.prepare_model(module)
        return wrapped

    def alone(self, module: nn.Module) -> AbstractContextManager[Any]:
        """Returns a context in which gradients of what `together` returned stay in their process."""
        context: AbstractContextManager[Any] = self._accelerator.no_sync(module)
        return context

    def mean(self, values: Tensor) -> Tensor:
        """Returns the mean of a tensor over all processes, the same for each."""
        if not self.several:
            return values
        reduced: Tensor = self._accelerator.reduce(values, "mean")
        return reduced

    def rows(self, count: int) -> range:
        """Returns which of `count` validation images are this process's; shares are in order and do not overlap."""
        rank, processes = self.share.rank, self.share.processes
        return range(count * rank // processes, count * (rank + 1) // processes)

    def gathered(self, rows: Tensor) -> Tensor:
        """Returns the rows of all processes, in order; no row is padded or counted twice."""
        if not self.several:
            return rows
        from accelerate.utils import gather_object

        return torch.cat(gather_object([rows.cpu()]))

    def same_everywhere(self, module: nn.Module) -> None:
        """Gives all processes the buffers of the first: statistics of BatchNorm differ, gradients do not."""
        if not self.several:
            return
        from accelerate.utils import broadcast

        for buffer in module.buffers():
            buffer.copy_(broadcast(buffer))

    def wait(self) -> None:
        """Waits until all processes are here."""
        self._accelerator.wait_for_everyone()


def _accelerator(device: torch.device) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    on_cpu = device.type == "cpu"
    try:
        return Accelerator(cpu=on_cpu, mixed_precision="no", device_placement=False)
    except ValueError:
        # Its state is global, and what an earlier run of this process, or its caller, chose does not go with this one.
        AcceleratorState._reset_state(reset_partial_state=True)
        return Accelerator(cpu=on_cpu, mixed_precision="no", device_placement=False)
