"""What a network of K tasks costs: parameters, operations in the paper's units and in ours, memory.

With K tasks there is one backbone and K heads; the paper's Ref is K whole networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from vifa_training.efficiency.counting import Operations, count_operations, peak_bytes
from vifa_training.networks import FusionNetwork, build_network, count_parameters

MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """One network at one image size.

    Attributes:
        params: parameters of backbone and one head.
        head_params: parameters of one head.
        whole: operations of backbone and one head.
        head: operations of one head.
    """

    params: int
    head_params: int
    whole: Operations
    head: Operations

    def params_of(self, tasks: int) -> int:
        """Parameters of one backbone with a head a task."""
        return self.params + (tasks - 1) * self.head_params

    def gmac_paper(self, tasks: int) -> float:
        """Operations as the paper writes them: the whole network over 2^30, each further head over 1e9.

        The counter counts the whole network by all its rules, but the paper's sums show heads by convolutions alone.
        """
        return self.whole.paper / 2**30 + (tasks - 1) * self.head.layers / 1e9

    def gmac(self, tasks: int) -> float:
        """Multiply-accumulates in full (`Operations.products`) of one backbone with a head a task, over 1e9."""
        return (self.whole.products + (tasks - 1) * self.head.products) / 1e9

    def gop_other(self, tasks: int) -> float:
        """All that is no product (`Operations.other`), over 1e9."""
        return (self.whole.other + (tasks - 1) * self.head.other) / 1e9

    def limit(self, tasks: int) -> float:
        """How many times faster than separate networks one backbone can be where time goes as `Operations.layers`."""
        return tasks * self.whole.layers / (self.whole.layers + (tasks - 1) * self.head.layers)


def cost_of(name: str, size: tuple[int, int]) -> Cost:
    """Count a network; takes a second at any size, as nothing is computed.

    Args:
        name: the registry's.
        size: (height, width) of the images, rounded up as the runtime pads them.
    """
    network = _weightless(name, 1)
    images = _images(network, size)
    head = network.heads["task1"]
    with torch.no_grad():
        features = network.backbone(*images)
    of_head = count_operations(head, features)
    return Cost(
        params=count_parameters(network),
        head_params=count_parameters(head),
        whole=count_operations(network.backbone, *images) + of_head,
        head=of_head,
    )


def peak_mib(name: str, tasks: int, size: tuple[int, int]) -> tuple[float, float]:
    """Most memory that weights and results take, in MiB: K separate networks in turn, one backbone with K heads.

    32-bit numbers, eager torch, results of every task kept; see `peak_bytes` for what is not in it.
    """
    single, shared = _weightless(name, 1), _weightless(name, tasks)
    images = _images(single, size)
    separate = peak_bytes(lambda: [single(*images) for _ in range(tasks)])
    together = peak_bytes(lambda: shared(*images))
    return (tasks * _weight_bytes(single) + separate) / MIB, (_weight_bytes(shared) + together) / MIB


def task_names(tasks: int) -> list[str]:
    """Names for K tasks that stand for any."""
    return [f"task{index + 1}" for index in range(tasks)]


def padded(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """(height, width) rounded up to multiples."""
    height, width = (-(-side // multiple) * multiple for side in size)
    return height, width


def _weightless(name: str, tasks: int) -> FusionNetwork:
    with torch.device("meta"):
        return build_network(name, task_names(tasks)).eval()


def _images(network: FusionNetwork, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (1, 1, *padded(size, network.size_multiple))
    return torch.empty(shape, device="meta"), torch.empty(shape, device="meta")


def _weight_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
