"""A whole site: bare Debian without Python and without a way out → refused bundle → install → nothing to do → upgrade by delta → rollback, all by Ansible."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from tests.integration.ansible_run import ROOT, PlaybookRun, playbook, tool, write_inventory
from tests.integration.nspawn_bed import BareHost, bare_host, unavailable

REASON = unavailable()
pytestmark = [pytest.mark.site, pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON or "available"), pytest.mark.timeout(1800)]
PASSWORD = "of the vault, and long enough"
AS_USER = "cd / && runuser -u appliance -- /opt/appliance/current/bin/appliance"
SIGN_IN = """import sys, json, urllib.request as u, urllib.error as e
body = json.dumps({"username": "admin", "password": sys.argv[1]}).encode()
request = u.Request("http://127.0.0.1:8080/api/auth/login", body, {"content-type": "application/json"})
try: print(u.urlopen(request, timeout=30).status)
except e.HTTPError as answer: print(answer.code)
"""
TRY_OUT = """import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.sendto(b"x", (sys.argv[1], 53))
"""


def appliance(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "appliance.cli.main", *arguments], cwd=ROOT, check=True)


@dataclass(frozen=True)
class Station:
    """What an operator carries to a site."""

    folder: Path
    fingerprint: str
    vault: Path
    vault_key: Path

    def bundle(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def opened(self) -> list[str]:
        return ["-e", f"@{self.vault}", "--vault-password-file", str(self.vault_key)]


@pytest.fixture(scope="module")
def station(tmp_path_factory) -> Station:
    """Two releases, the delta between them, and the administrator's password in a vault."""
    folder = tmp_path_factory.mktemp("station")
    keys = folder / "keys"
    for name, sequence in (("old", 1000), ("new", 2000)):
        appliance(
            "bundle", "build", "bundles/embedded.toml", "-o", str(folder / f"{name}.bundle"), "--station", str(keys), "--sequence", str(sequence)
        )
    appliance("bundle", "delta", "--from", str(folder / "old.bundle"), str(folder / "new.bundle"), "-o", str(folder / "new.delta"))
    first = json.loads((keys / "root-chain.json").read_text())[0]
    secrets, key = folder / "vault.yml", folder / "vault.key"
    secrets.write_text(f'appliance_admin_password: "{PASSWORD}"\n')
    key.write_text("opens the vault\n")
    subprocess.run([tool("ansible-vault"), "encrypt", "--vault-password-file", str(key), str(secrets)], check=True, capture_output=True)
    assert PASSWORD not in secrets.read_text()
    return Station(folder, f"sha256:{sha256(base64.b64decode(first['payload'])).hexdigest()}", secrets, key)


@pytest.fixture(scope="module")
def host() -> Iterator[BareHost]:
    with bare_host() as booted:
        yield booted


@pytest.fixture(scope="module")
def inventory(tmp_path_factory, host, station) -> Path:
    settings = {"appliance_bundle": station.bundle("old.bundle"), "appliance_root_fingerprint": station.fingerprint}
    return write_inventory(tmp_path_factory.mktemp("inventory"), host, settings)


def show(what: str, run: PlaybookRun) -> None:
    phases = "  ".join(f"{role} {seconds:.1f}" for role, seconds in run.seconds.items() if seconds >= 0.5)
    print(f"\n{what}: {run.total_seconds:.1f} s = {phases}", flush=True)


def succeeded(run: PlaybookRun) -> PlaybookRun:
    assert run.status == 0, run.said[-8000:]
    return run


def release(host: BareHost) -> int:
    """Sequence of the release that runs."""
    return int(host.output("readlink /opt/appliance/current").removeprefix("generations/").partition("-")[0])


def sign_in(host: BareHost, password: str) -> int:
    """HTTP status, asked on the host itself."""
    return int(host.run(f"python3 - '{password}'", stdin=SIGN_IN.encode()).stdout)


def refused_packets(host: BareHost) -> int:
    words = host.output("nft list counter inet appliance refused").split()
    return int(words[words.index("packets") + 1])


def test_a_bare_host_has_no_python_and_no_way_out(host):
    assert host.run("command -v python3", check=False).returncode != 0
    assert host.output("ip route show default; ip -6 route show default") == ""


def test_a_changed_bundle_is_refused_on_the_station_and_nothing_reaches_the_host(host, station, inventory, tmp_path):
    bad = tmp_path / "bad.bundle"
    data = bytearray(Path(station.bundle("old.bundle")).read_bytes())
    data[len(data) // 2] ^= 1
    bad.write_bytes(data)
    installer = station.bundle("appliance-install.pyz")
    run = playbook("site.yml", inventory, "-e", f"appliance_bundle={bad}", "-e", f"appliance_installer={installer}")
    assert run.status != 0
    assert "bundle_altered" in run.said
    assert host.output("ls -A /opt /var/cache | grep appliance || true") == ""
    assert host.run("command -v python3", check=False).returncode != 0


def test_one_play_makes_it_a_working_site(host, station, inventory):
    run = succeeded(playbook("site.yml", inventory, *station.opened))
    show("bare host to green smoke tests", run)
    assert PASSWORD not in run.said
    assert release(host) == 1000
    assert host.output("systemctl is-enabled appliance.service appliance-firewall.service").split() == ["enabled", "enabled"]
    assert sign_in(host, PASSWORD) == 200
    assert sign_in(host, "another password") == 401
    assert host.output("stat -c '%U %a' /var/lib/appliance /opt/appliance /var/lib/appliance/admin.password").split("\n") == [
        "appliance 700",
        "root 755",
        "appliance 600",
    ]
    assert host.output("ls /var/cache | grep appliance || true") == ""
    exposure = host.output("systemd-analyze security --no-pager appliance.service | tail -n 1")
    print(exposure)
    assert float(exposure.split(":")[1].split()[0]) <= 2.0, exposure


def test_the_second_play_changes_nothing_and_check_mode_has_nothing_to_say(station, inventory):
    again = succeeded(playbook("site.yml", inventory, *station.opened, "--diff"))
    show("again", again)
    assert again.changed == 0, again.changed_tasks
    check = succeeded(playbook("site.yml", inventory, *station.opened, "--check", "--diff"))
    assert check.changed == 0, check.changed_tasks
    assert "\n+++ after" not in check.said


def test_the_hardened_box_answers_from_documents_with_citations(host):
    host.copy(ROOT / "demo" / "library", "/srv/library")
    host.run(f"chmod -R a+rX /srv/library; {AS_USER} docs add /srv/library/*")
    answer = host.output(f'{AS_USER} chat "How many days of paid annual leave is every employee entitled to?"')
    assert "28" in answer
    assert "[1]" in answer
    worker, box = host.output("for n in services.retrieval.parsing.worker services.allinone; do readlink /proc/$(pgrep -of $n)/ns/net; done").split()
    assert worker != box, "the parser's worker must be able to lock itself into a network namespace of its own"


def test_a_killed_box_comes_back(host):
    before = host.output("systemctl show -P MainPID appliance.service")
    host.run("systemctl kill -s KILL appliance.service")
    host.run(
        "for i in $(seq 300); do [ $(systemctl show -P MainPID appliance.service) -gt 0 ] && python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:8080/readyz\")' 2>/dev/null && exit 0; sleep 0.2; done; exit 1"
    )
    assert host.output("systemctl show -P MainPID appliance.service") != before


def test_a_delta_upgrades_the_site_and_rollback_brings_the_old_release_back_with_the_documents(host, station, inventory):
    upgraded = succeeded(playbook("site.yml", inventory, *station.opened, "-e", f"appliance_bundle={station.bundle('new.delta')}"))
    show("upgrade by delta", upgraded)
    assert release(host) == 2000
    assert "leave_policy.html" in host.output(f"{AS_USER} docs list")

    back = succeeded(playbook("rollback.yml", inventory))
    show("rollback", back)
    assert release(host) == 1000
    assert "leave_policy.html" in host.output(f"{AS_USER} docs list")
    verbs = [json.loads(line)["verb"] for line in host.output("cat /opt/appliance/history.jsonl").splitlines()]
    assert verbs == ["install", "upgrade", "rollback"]


def test_a_release_behind_the_newest_is_refused_by_the_host_before_a_package_is_installed(host, station, inventory):
    succeeded(playbook("site.yml", inventory, *station.opened, "-e", f"appliance_bundle={station.bundle('new.bundle')}"))
    assert release(host) == 2000
    run = playbook("site.yml", inventory, *station.opened)
    assert run.status != 0
    assert "bundle_older" in run.said
    assert "os_packages" not in run.seconds
    assert release(host) == 2000


def test_an_empty_gpu_group_does_nothing_and_a_node_without_driver_is_named(host, station, inventory, tmp_path):
    run = succeeded(playbook("site.yml", inventory, "--tags", "gpu"))
    assert "gpu_checks" not in run.seconds
    nodes = tmp_path / "hosts.yml"
    nodes.write_text(inventory.read_text().replace("gpu:\n      hosts: {}", "gpu:\n      hosts:\n        box1: {}"))
    failed = playbook("site.yml", nodes, "--tags", "gpu")
    assert failed.status != 0
    assert "no NVIDIA driver" in failed.said


def test_the_box_never_tried_to_reach_out_and_its_user_could_not(host):
    assert refused_packets(host) == 0, host.output("nft list table inet appliance")
    tried = host.run(f"runuser -u appliance -- python3 - {host.station}", stdin=TRY_OUT.encode(), check=False)
    assert b"PermissionError" in tried.stderr
    assert refused_packets(host) == 1
    assert f"{host.station} . 17 . 53" in host.output("nft -nn list set inet appliance refused_ip"), "the rule names where it would have gone"
