"""Start-up hook of the environment of scripts/environment.py: its Python finds what was built into it.

A .pth file imports this whenever that Python starts, so nothing has to be sourced. It puts the environment
behind what is sourced on AMENT_PREFIX_PATH and CMAKE_PREFIX_PATH. LD_LIBRARY_PATH counts only when a process
starts: where the environment's `lib` is missing there, the process starts itself once more.
"""

import os
import sys


def append(variable: str, folder: str) -> bool:
    """Put the folder last on a path variable; false when it is on it already."""
    folders = [entry for entry in os.environ.get(variable, "").split(os.pathsep) if entry]
    if folder in folders:
        return False
    os.environ[variable] = os.pathsep.join([*folders, folder])
    return True


append("AMENT_PREFIX_PATH", sys.prefix)
append("CMAKE_PREFIX_PATH", sys.prefix)
if append("LD_LIBRARY_PATH", f"{sys.prefix}/lib"):
    os.execv(sys.executable, sys.orig_argv)
