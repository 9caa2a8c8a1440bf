"""The systemd unit: what systemd itself says of it, and what may not be in it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "config" / "systemd"
UNIT, SETTINGS = FOLDER / "vifa.service", FOLDER / "vifa.conf"
NEEDS_SYSTEMD = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")

# What would take devices, shared memory, the network or written code away: see the end of the unit's [Service].
HARMFUL = {
    "DeviceAllow",
    "DevicePolicy",
    "DynamicUser",
    "IPAddressDeny",
    "InaccessiblePaths",
    "MemoryDenyWriteExecute",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateNetwork",
    "PrivateUsers",
    "ProtectClock",
    "RemoveIPC",
    "SystemCallFilter",
}


def directives() -> dict[str, list[str]]:
    """Every directive of the unit with its values."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().replace("\\\n", " ").splitlines():
        if line and line[0] not in "#[":
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


@NEEDS_SYSTEMD
def test_systemd_reads_it_without_a_word() -> None:
    """An unknown directive or value is a warning only, so nothing may be printed."""
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", UNIT], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@NEEDS_SYSTEMD
def test_the_check_is_one(tmp_path: Path) -> None:
    """systemd-analyze speaks of a directive that does not exist."""
    unit = tmp_path / "vifa.service"
    unit.write_text(UNIT.read_text().replace("RestartSec=", "RestartSeconds="))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert "RestartSeconds" in done.stdout + done.stderr


def test_nothing_takes_the_cameras_the_gpu_or_the_shared_memory_away() -> None:
    assert set(directives()) & HARMFUL == set()
    assert "AF_NETLINK" in directives()["RestrictAddressFamilies"][0].split()


def test_it_is_stopped_as_from_a_terminal_and_restarted_after_a_failure() -> None:
    """SIGINT to all of its processes: after one to ros2 launch alone, the node would live on for seconds."""
    unit = directives()
    assert (unit["KillSignal"], unit["KillMode"], unit["Restart"]) == (["SIGINT"], ["control-group"], ["on-failure"])


def test_the_command_gets_its_words_from_the_settings(tmp_path: Path) -> None:
    """The command as systemd runs it, with the settings as systemd reads them; a `ros2` that prints what it is told."""
    settings = dict(line.split("=", 1) for line in SETTINGS.read_text().splitlines() if not line.startswith("#"))
    variables = {name: value.strip('"') for name, value in settings.items()}
    assert f"/etc/vifa/{SETTINGS.name}" in directives()["EnvironmentFile"]
    for path in (f"/opt/ros/{variables['ROS_DISTRO']}/setup.bash", variables["VIFA_SETUP"]):
        (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path[1:]).touch()
    ros2 = tmp_path / "ros2"
    ros2.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    ros2.chmod(0o755)
    shell, script = re.fullmatch(r"(/bin/bash -c) '(.*)'", directives()["ExecStart"][0]).groups()
    script = script.replace("$$", "$").replace("/opt/ros", f"{tmp_path}/opt/ros")
    variables |= {"PATH": f"{tmp_path}:/bin", "VIFA_SETUP": f"{tmp_path}{variables['VIFA_SETUP']}"}
    done = subprocess.run([*shell.split(), script], env=variables, capture_output=True, text=True, check=True)
    launch, package, file, *arguments = done.stdout.split()
    assert (launch, package) == ("launch", "vifa")
    assert (FOLDER.parents[1] / "launch" / file).is_file()
    declared = (FOLDER.parents[1] / "launch" / file).read_text()
    assert arguments
    assert all(f'"{argument.split(":=")[0]}": (' in declared for argument in arguments)
