"""`scripts/setup.sh`: where something is missing it names the one command that mends it, and fails."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "dirname", "id", "sed", "touch", "rm", "env", "cat")
NO_VENV = f'case "$*" in *ensurepip*) exit 1 ;; esac\nexec "{sys.executable}" "$@"'
TOO_OLD = 'case "$*" in *version_info*) exit 1 ;; esac\nexit 0'


class Machine:
    """A PATH of its own, and a checkout's setup files."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.checkout = folder / "bin", folder / "checkout"
        self.bin.mkdir()
        self.checkout.mkdir()
        shutil.copytree(ROOT / "scripts", self.checkout / "scripts")
        for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.checkout)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)

    def has(self, program: str, script: str = "exit 0") -> None:
        path = self.bin / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def set_up(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "scripts/setup.sh", *arguments], cwd=self.checkout, env={"PATH": str(self.bin)}, capture_output=True, text=True, check=False, timeout=60
        )

    def mended_by(self) -> str:
        """The command that a failed set-up prints; fails if it did not fail plainly."""
        done = self.set_up()
        assert done.returncode == 1, done
        assert "k2stream cannot be set up yet:" in done.stderr
        assert "Traceback" not in done.stderr
        (command,) = [line.strip() for line in done.stderr.splitlines() if line.startswith("    ")]
        return command


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def as_root(command: str) -> str:
    return command if os.geteuid() == 0 else f"sudo {command}"


def test_debian_without_python3_venv_is_told_its_package(machine: Machine) -> None:
    """Debian's python3 comes without ensurepip: `python3 -m venv` would leave a broken folder."""
    machine.has("python3", NO_VENV)
    machine.has("apt-get")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert machine.mended_by() == f"{as_root('apt-get update')} && {as_root(f'apt-get install -y python{version}-venv')}"
    assert not (machine.checkout / ".venv").exists()


def test_debian_with_an_old_python_is_told_a_newer_one_that_it_has(machine: Machine) -> None:
    """Only a version that the machine's own packages offer is named."""
    machine.has("python3", TOO_OLD)
    machine.has("apt-get")
    machine.has("apt-cache", 'case "$2" in python3.12*) exit 0 ;; *) exit 1 ;; esac')
    assert machine.mended_by().endswith("apt-get install -y python3.12 python3.12-venv")


def test_macos_without_python_is_told_homebrew(machine: Machine) -> None:
    """Where brew is, brew brings it."""
    machine.has("brew")
    assert machine.mended_by() == "brew install python@3.13"


def test_a_machine_without_anything_is_told_uv(machine: Machine) -> None:
    """uv brings a Python of its own."""
    assert "uv/install.sh" in machine.mended_by()


def test_a_package_without_a_wheel_and_no_compiler_is_told_the_compiler(machine: Machine) -> None:
    """pip's own words end in `command 'cc' failed`, which says nothing of what to install."""
    machine.has("uv", "exit 1")
    machine.has("apt-get")
    assert machine.mended_by().endswith("apt-get install -y build-essential python3-dev")


def test_with_a_compiler_the_reason_is_another(machine: Machine) -> None:
    """No network, say: no compiler is recommended."""
    machine.has("uv", "echo no route to host >&2; exit 1")
    machine.has("cc")
    done = machine.set_up()
    assert done.returncode == 1
    assert "no route to host" in done.stderr
    assert "compiler" not in done.stderr


def test_uv_installs_by_hash_only(machine: Machine) -> None:
    """With uv as with pip, every package comes by the lock's hashes and the editable install fetches nothing."""
    machine.has("uv", 'echo "$@" >>calls')
    (machine.checkout / ".venv").mkdir()
    (machine.checkout / ".venv" / "bin").mkdir()
    (machine.checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    assert machine.set_up("dev").returncode == 0
    packages, itself = (machine.checkout / "calls").read_text().splitlines()
    assert packages.endswith("--require-hashes --requirement requirements-dev.lock")
    assert itself.endswith("--no-deps --no-build-isolation --editable .")


def test_a_strange_argument_is_refused(machine: Machine) -> None:
    """A typing error is not taken for the default."""
    assert machine.set_up("prod").returncode == 2


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_every_locked_package_has_hashes_and_no_host(name: str) -> None:
    """A package without a hash would make pip refuse all; a host would tie the lock to one network."""
    text = (ROOT / name).read_text()
    packages = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(packages) > 50
    assert [line for line in packages if not line.endswith("\\") or "==" not in line] == []
    assert "://" not in text


def test_the_locks_agree() -> None:
    """What the tests run on is what the product runs on."""
    names = ("requirements.lock", "requirements-dev.lock")
    run, dev = ({line.rstrip(" \\") for line in (ROOT / name).read_text().splitlines() if "==" in line} for name in names)
    assert run - dev == set()
