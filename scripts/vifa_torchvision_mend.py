"""Start-up hook of the environment of scripts/environment.py: torchvision is importable beside a CPU torch.

PyPI has torchvision built for CUDA only. Beside a torch without CUDA its library of operators does not load, which it
would survive, were it not for two of them that it goes on to describe to torch. A .pth file imports this whenever that
Python starts; it waits, without importing anything, for torchvision to come to that point, and declares what is
missing. Where torchvision loads its own library, nothing is done.
"""

import sys

DESCRIBED = ("nms", "qnms")
_libraries = []  # torch forgets a declaration when nobody holds it


class TorchvisionMend:
    """Takes part in imports to see one module come; finds none itself."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "torchvision._meta_registrations":
            declare_missing()
        return None


def declare_missing():
    """Declare the operators, without kernels: torchvision itself refuses to run them, and says why."""
    import torch

    for operator in DESCRIBED:
        if not torch._C._dispatch_has_kernel(f"torchvision::{operator}"):
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _libraries.append(library)


sys.meta_path.insert(0, TorchvisionMend)
