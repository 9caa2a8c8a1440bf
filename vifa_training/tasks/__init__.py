"""Task networks: one file each, one interface (see `TaskNetwork`), one line in the registry."""

from __future__ import annotations

from vifa_training.tasks.base import TaskNetwork, TaskNetworkError
from vifa_training.tasks.deeplabv3plus import DeepLabV3PlusMobileNetV2, DeepLabV3PlusResNet18
from vifa_training.tasks.graph import task_graph
from vifa_training.tasks.yolov5 import YOLOv5n, YOLOv5s

TASK_NETWORKS: dict[str, type[TaskNetwork]] = {
    network.name: network for network in (YOLOv5n, YOLOv5s, DeepLabV3PlusMobileNetV2, DeepLabV3PlusResNet18)
}


def build_task_network(name: str, classes: int) -> TaskNetwork:
    """Make a task network with fresh weights.

    Raises:
        TaskNetworkError: no network of that name, no class, or the library that it comes from is not installed.
    """
    if name not in TASK_NETWORKS:
        raise TaskNetworkError(f"no task network is called {name!r}; choose one of {', '.join(sorted(TASK_NETWORKS))}")
    return TASK_NETWORKS[name](classes)


__all__ = ["TASK_NETWORKS", "TaskNetwork", "TaskNetworkError", "build_task_network", "task_graph"]
