"""Runs the playbooks of ``ansible/`` against a bare host, as an operator would, and times their phases. Owns the inventory file and reading of the recap."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tests.integration.nspawn_bed import BareHost

ROOT: Final = Path(__file__).resolve().parents[2]
ANSIBLE: Final = ROOT / "ansible"
_RECAP: Final = re.compile(r"^box1\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
_TASK: Final = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?:(\w+) : )?([^\]]*)\]")


@dataclass
class PlaybookRun:
    """What a run said.

    Attributes:
        status: exit status.
        said: stdout and stderr.
        seconds: wall time by role.
    """

    status: int
    said: str
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """Tasks that changed the host."""
        recap = _RECAP.search(self.said)
        assert recap, self.said[-4000:]
        return int(recap[2])

    @property
    def changed_tasks(self) -> list[str]:
        """Names of the tasks that reported a change."""
        found, task = [], ""
        for line in self.said.splitlines():
            task = match[2] if (match := _TASK.match(line)) else task
            if line.startswith("changed: ") and task not in found:
                found.append(task)
        return found

    @property
    def total_seconds(self) -> float:
        """Wall time of all roles."""
        return sum(self.seconds.values())


def tool(name: str) -> str:
    """A program of this environment."""
    return str(Path(sys.executable).parent / name)


def environment(folder: Path) -> dict[str, str]:
    """Nothing of the caller's Ansible: its own config, its own place for temporary files."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    own = {"ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(folder / ".ansible"), "PYTHONUNBUFFERED": "1"}
    own["ANSIBLE_DISPLAY_SKIPPED_HOSTS"] = "1"  # otherwise a task is announced only when it has ended, and its time counts for the one before
    return {**plain, **own, "PATH": f"{Path(sys.executable).parent}:{plain['PATH']}"}


def write_inventory(folder: Path, host: BareHost, variables: dict[str, Any]) -> Path:
    """``hosts.yml`` with the host as the one control node."""
    place = {
        "ansible_host": host.address,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(host.key),
        "ansible_ssh_common_args": " ".join(host.ssh_options),
    }
    groups = {"control": {"hosts": {"box1": place}}, "data": {"hosts": {}}, "gpu": {"hosts": {}}}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": variables, "children": groups}}))
    return path


def playbook(name: str, inventory: Path, *arguments: str) -> PlaybookRun:
    """Run ``ansible/<name>``; phases are timed by the lines as they come."""
    command = [tool("ansible-playbook"), "-i", str(inventory), str(ANSIBLE / name), *arguments]
    process = subprocess.Popen(
        command, cwd=ANSIBLE, env=environment(inventory.parent), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said: list[str] = []
    seconds: dict[str, float] = {}
    role, since = "start", time.perf_counter()
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if match := _TASK.match(line):
            now = time.perf_counter()
            seconds[role] = seconds.get(role, 0.0) + now - since
            role, since = match[1] or match[2], now
    status = process.wait()
    seconds[role] = seconds.get(role, 0.0) + time.perf_counter() - since
    return PlaybookRun(status, "".join(said), seconds)


def fresh_install(host: BareHost, folder: Path, bundle: Path, fingerprint: str, **variables: Any) -> PlaybookRun:
    """``site.yml`` against a host that has nothing: from verified bundle to green smoke tests. The benchmark's row ``install`` is its ``total_seconds``."""
    settings = {"appliance_bundle": str(bundle), "appliance_root_fingerprint": fingerprint, **variables}
    return playbook("site.yml", write_inventory(folder, host, settings))
