"""A bare host: a Debian root booted by systemd-nspawn in a network namespace without a way out, reached over SSH through a veth.

Owns: making, booting and removing the host; what runs on it and what is copied to it. Does not own: the root file system (``nspawn_root``), what is
installed (``ansible/``).
Everything it makes is gone when the ``with`` ends; what a killed run left is swept by the next one (names carry the maker's pid).
"""

from __future__ import annotations

import itertools
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.integration.nspawn_root import bare_root, own_archive

TOOLS: Final = ("debootstrap", "systemd-nspawn", "ssh", "ssh-keygen", "ip", "unshare", "setpriv")
_PREFIX: Final = "bare"
_BOOT_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_NETWORKS: Final = Path("/run/netns")
_CGROUP: Final = Path("/sys/fs/cgroup")
_CGROUP2_MAGIC: Final = 0x63677270
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class BareHost:
    """A booted host.

    Attributes:
        name: of the machine and of its network namespace.
        root: its root file system as this machine sees it.
        address: IPv4 address on the only link it has.
        station: address of this machine on that link.
        key: private SSH key of root.
        known_hosts: holds the host's key, so that strict checking works.
        boot_seconds: from exec to the first answer over SSH.
    """

    name: str
    root: Path
    address: str
    station: str
    key: Path
    known_hosts: Path
    boot_seconds: float

    @property
    def ssh_options(self) -> list[str]:
        """For ssh, scp and Ansible."""
        strict = ["-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
        return ["-F", "none", "-i", str(self.key), "-o", "IdentitiesOnly=yes", *strict]

    def run(
        self, command: str, *, check: bool = True, timeout_seconds: float = 300, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a shell command as root. Raises ``CalledProcessError`` (with its output in the message) unless ``check`` is off."""
        arguments = ["ssh", *self.ssh_options, f"root@{self.address}", command]
        given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        done = subprocess.run(arguments, capture_output=True, timeout=timeout_seconds, **given)
        if check and done.returncode:
            said = (done.stdout[-4000:] + done.stderr[-4000:]).decode(errors="replace")
            raise AssertionError(f"{command!r} ended with {done.returncode} on {self.name}:\n{said}")
        return done

    def output(self, command: str) -> str:
        """Standard output of a command that must succeed."""
        return self.run(command).stdout.decode().strip()

    def copy(self, source: Path, target: str) -> None:
        """Copy a file or a folder to ``target`` on the host."""
        subprocess.run(["scp", "-q", "-r", *self.ssh_options, str(source), f"root@{self.address}:{target}"], check=True, stdin=subprocess.DEVNULL)


def unavailable() -> str:
    """Why no host can be booted here; empty when one can."""
    if os.geteuid() != 0:
        return "a bare host needs root"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"a bare host needs {', '.join(absent)} (scripts/setup_test_tools.sh installs them as root)"
    if not _cgroup2():
        return "a bare host needs a cgroup2 hierarchy"
    if own_archive() is None:
        return "a bare host needs apt sources for this machine's own release"
    return ""


@contextmanager
def bare_host(*, folder: Path | None = None) -> Iterator[BareHost]:
    """Boot a fresh copy of the bare root; power it off and remove every trace at the end.

    Args:
        folder: where the copy lies; a temporary folder on the cache's disk unless given.
    """
    _sweep()
    name = f"{_PREFIX}{os.getpid()}n{next(_numbers)}"
    kept = bare_root()
    with ExitStack() as stack:
        place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder or kept.parent))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        root = place / "root"
        subprocess.run(["cp", "-a", "--reflink=auto", str(kept), str(root)], check=True)
        key = _give_key(place, root)
        station, address = stack.enter_context(_link(name))
        host_key = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
        known_hosts = place / "known_hosts"
        known_hosts.write_text(f"{address} {host_key[0]} {host_key[1]}\n")
        started = time.perf_counter()
        process = stack.enter_context(_boot(name, root, place / "boot.log"))
        host = BareHost(name, root, address, station, key, known_hosts, 0.0)
        _wait(host, process, place / "boot.log")
        yield BareHost(name, root, address, station, key, known_hosts, time.perf_counter() - started)


def _give_key(place: Path, root: Path) -> Path:
    key = place / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bed", "-f", str(key)], check=True)
    authorized = root / "root/.ssh/authorized_keys"
    shutil.copy(place / "key.pub", authorized)
    authorized.chmod(0o600)
    return key


@contextmanager
def _link(name: str) -> Iterator[tuple[str, str]]:
    """A namespace with one veth, a /30, and no route to anywhere else."""
    station, address = _free_addresses()
    outer, inner = f"o{name}"[:15], f"i{name}"[:15]
    try:
        for command in (
            f"netns add {name}",
            f"link add {outer} type veth peer name {inner}",
            f"link set {inner} netns {name}",
            f"addr add {station}/30 dev {outer}",
            f"link set {outer} up",
            f"-n {name} link set lo up",
            f"-n {name} link set {inner} name host0",
            f"-n {name} addr add {address}/30 dev host0",
            f"-n {name} link set host0 up",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        yield station, address
    finally:
        subprocess.run(["ip", "link", "del", outer], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


def _free_addresses() -> tuple[str, str]:
    used = subprocess.run(["ip", "-4", "-o", "addr"], check=True, capture_output=True, text=True).stdout
    for third in range(256):
        base = f"10.99.{(os.getpid() + third) % 256}"
        if f" {base}." not in used:
            return f"{base}.1", f"{base}.2"
    raise RuntimeError("no free 10.99.x.0/30")


def _cgroup2() -> Path | None:
    """Mount point of the unified hierarchy on this machine."""
    for place in (_CGROUP, _CGROUP / "unified"):
        if (place / "cgroup.procs").exists() and (place / "cgroup.controllers").exists():
            return place
    return None


@contextmanager
def _boot(name: str, root: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """nspawn in a cgroup and a mount namespace of its own, where ``/sys/fs/cgroup`` is cgroup2 also on hybrid machines; it dies with this process."""
    hierarchy = _cgroup2()
    assert hierarchy is not None
    group = hierarchy / name
    group.mkdir()
    remount = "" if hierarchy == _CGROUP else f"umount -R -l {_CGROUP}; mount -t cgroup2 cgroup2 {_CGROUP}; "
    nspawn = f"systemd-nspawn -q -D {root} -b --register=no --keep-unit --network-namespace-path={_NETWORKS / name} -M {name} --link-journal=no --capability=CAP_NET_ADMIN --resolv-conf=off"
    script = f"echo $$ > {group}/cgroup.procs; mount --make-rprivate /; {remount}exec {nspawn} --timezone=off --console=pipe"
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "-m", "bash", "-ec", script]
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield process
        finally:
            _stop(process)
    finally:
        _remove_group(group)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM lets the host power off; what does not is killed (its PID namespace dies with nspawn)."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)


def _remove_group(group: Path) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    for folder in [*sorted(group.glob("**/"), reverse=True)]:
        while folder.is_dir():
            try:
                folder.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.02)


def _wait(host: BareHost, process: subprocess.Popen[bytes], log: Path) -> None:
    """Level-triggered: the host is up when a command over SSH says so."""
    deadline = time.monotonic() + _BOOT_SECONDS
    while True:
        with suppress(OSError), socket.create_connection((host.address, 22), timeout=1):
            if host.run("systemctl is-system-running --wait || systemctl --failed", check=False, timeout_seconds=_BOOT_SECONDS).returncode == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the bare host did not boot ({platform.release()}):\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.02)


def _sweep() -> None:
    """Remove namespaces, groups and copies whose maker is no more."""
    left = [*_NETWORKS.glob(f"{_PREFIX}*n*"), *bare_root().parent.glob(f"{_PREFIX}*n*-*")]
    hierarchy = _cgroup2()
    left += hierarchy.glob(f"{_PREFIX}*n*") if hierarchy else []
    for trace in left:
        maker = trace.name.removeprefix(_PREFIX).partition("n")[0]
        if not maker.isdigit() or Path(f"/proc/{maker}").exists():
            continue
        if trace.parent == _NETWORKS:
            subprocess.run(["ip", "link", "del", f"o{trace.name}"[:15]], stderr=subprocess.DEVNULL)
            subprocess.run(["ip", "netns", "del", trace.name], stderr=subprocess.DEVNULL)
        elif trace.parent == hierarchy:
            _remove_group(trace)
        else:
            shutil.rmtree(trace, ignore_errors=True)
