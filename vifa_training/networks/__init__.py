"""Fusion networks: one file each, one interface (see `FusionNetwork`), one line in the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vifa_training.networks.base import Backbone, Features, FusionNetwork, Head, LastLayer, Trainable, count_parameters
from vifa_training.networks.deeper import add_task_head, count_layers, deepen
from vifa_training.networks.didfuse import DIDFuse
from vifa_training.networks.nano import Nano
from vifa_training.networks.piafusion import PIAFusion
from vifa_training.networks.swinfusion import SwinFusion
from vifa_training.networks.tardal import TarDAL

NETWORKS: dict[str, Callable[[Sequence[str]], FusionNetwork]] = {
    network.name: network for network in (PIAFusion, TarDAL, DIDFuse, SwinFusion, Nano)
}


def build_network(name: str, tasks: Sequence[str]) -> FusionNetwork:
    """Make a network with fresh weights and one head a task.

    Raises:
        ValueError: no network of that name, no task, or a task named twice.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network is called {name!r}; choose one of {', '.join(sorted(NETWORKS))}")
    if not tasks or len(set(tasks)) != len(tasks):
        raise ValueError(f"expected distinct task names, got {list(tasks)}")
    return NETWORKS[name](tasks)


__all__ = [
    "NETWORKS",
    "Backbone",
    "Features",
    "FusionNetwork",
    "Head",
    "LastLayer",
    "Trainable",
    "add_task_head",
    "build_network",
    "count_layers",
    "count_parameters",
    "deepen",
]
