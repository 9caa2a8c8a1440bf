"""The environment that image topics need: Fast DDS loses most best-effort images with its own defaults."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROFILE = "fastdds.xml"

# Messages of a megabyte are freed and allocated for every frame; glibc otherwise returns them to the kernel each time.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "67108864",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "67108864",
}


def dds_environment() -> dict[str, str]:
    """Variables for a process that sends or receives images; what the user set already is not touched.

    Raises:
        FileNotFoundError: config/fastdds.xml is not where this package was installed.
    """
    variables = {name: value for name, value in MALLOC.items() if name not in os.environ}
    if "FASTRTPS_DEFAULT_PROFILES_FILE" not in os.environ and "FASTDDS_DEFAULT_PROFILES_FILE" not in os.environ:
        variables["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(find_profile())
    return variables


def find_profile() -> Path:
    """The DDS profile of the source tree, or of the installed package."""
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if p] + [Path(sys.prefix)]
    folders = [Path(__file__).resolve().parent.parent, *(prefix / "share" / "vifa" for prefix in prefixes)]
    for folder in folders:
        if (folder / "config" / PROFILE).is_file():
            return folder / "config" / PROFILE
    raise FileNotFoundError(f"config/{PROFILE} is missing beside this package; install it again")
