"""Puts the shipped models, configurations and launch files into share/vifa; all else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup


def shared_files(*folders):
    """Every file of the folders, as setuptools wants them: [(share/vifa/sub/folder, [files])]."""
    files = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                files.setdefault(f"share/vifa/{path.parent.as_posix()}", []).append(path.as_posix())
    return sorted(files.items())


setup(data_files=shared_files("config", "launch", "models"))
