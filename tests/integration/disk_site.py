"""Small disks of a test's own, where this process may mount them."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest


def may_mount() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("mount") is not None


class Disk:
    """A small tmpfs."""

    def __init__(self, folder: Path, options: str) -> None:
        self.folder, self._options = folder, options

    def __enter__(self) -> "Disk":
        self.folder.mkdir(mode=0o700)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{self._options}", "k2test", str(self.folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"may not mount a tmpfs: {done.stderr.strip()}")
        return self

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes what is left of a disk, to the last page."""
    hog = disk / "hog"
    with hog.open("wb", buffering=0) as stream, suppress(OSError):
        while stream.write(b"x" * 4096):
            pass
    return hog
