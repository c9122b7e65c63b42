"""The playbooks as they lie there: lint, syntax, what templates render to. No host is needed; a whole site is in ``test_ansible_site.py``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import jinja2
import pytest
import yaml

from appliance.kit.egress import RESOLVER_PORTS
from tests.integration.ansible_run import ANSIBLE, ROOT, environment, tool
from tests.integration.nspawn_root import own_archive

ROLE = ANSIBLE / "roles" / "appliance"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
OPTIONS = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]


def render(template: str, **variables) -> str:
    loader = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    loader.filters["dictsort"] = lambda table: sorted(table.items())
    return loader.from_string((ANSIBLE / "roles" / template).read_text()).render({**DEFAULTS, "ansible_managed": "Ansible", **variables})


def unit_settings(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.slow
def test_ansible_lint_is_clean_offline_with_the_production_profile(tmp_path):
    done = subprocess.run([tool("ansible-lint"), "--offline", "--nocolor"], cwd=ANSIBLE, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Profile 'production' was required, and it passed" in done.stderr


@pytest.mark.parametrize("playbook", ["site.yml", "rollback.yml"])
def test_a_playbook_parses_with_the_example_inventory_and_says_no_warning(tmp_path, playbook):
    command = [tool("ansible-playbook"), "--syntax-check", "-i", "inventory/hosts.example.yml", playbook]
    done = subprocess.run(command, cwd=ANSIBLE, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_only_modules_of_ansible_core_are_used():
    names = set()
    for path in ANSIBLE.rglob("*.yml"):
        names |= set(re.findall(r"^\s*(?:- )?([a-z_]+\.[a-z_]+\.[a-z_0-9]+):", path.read_text(), re.MULTILINE))
    assert names
    assert {name.rpartition(".")[0] for name in names} == {"ansible.builtin"}


def test_every_setting_has_a_default_a_specification_and_a_line_in_the_docs():
    assert DEFAULTS.keys() == OPTIONS.keys()
    docs = (ROOT / "docs" / "ansible.md").read_text()
    assert [name for name in OPTIONS if f"`{name}`" not in docs] == []


def test_the_unit_gives_the_box_its_home_and_nothing_else():
    unit = unit_settings(render("service/templates/appliance.service.j2", firewall_is_on=True))
    for name, value in {
        "User": "appliance",
        "ExecStartPre": "+/usr/bin/python3 -I /opt/appliance/bin/site.pyz settle --site /opt/appliance",
        "ExecStart": "/opt/appliance/current/bin/appliance up --host 127.0.0.1 --port 8080",
        "StateDirectory": "appliance",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "PrivateDevices": "yes",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
        "IPAddressAllow": "127.0.0.1 ::1",
        "SocketBindDeny": "any",
        "MemoryMax": "75%",
        "TasksMax": "512",
        "UMask": "0077",
        "MemoryDenyWriteExecute": "yes",
        "RestrictNamespaces": "user net",  # the parser's own sandbox
        "Restart": "on-failure",
        "Requires": "appliance-firewall.service",
    }.items():
        assert unit[name] == [value], name
    assert unit["SocketBindAllow"] == ["tcp:8080", "tcp:4222"]  # its own, and the event log's, which listens on loopback
    assert "APPLIANCE_ORCHESTRATOR_NATS_PORT=4222" in unit["Environment"]
    assert unit["IPAddressDeny"] == ["any"]
    assert unit["InaccessiblePaths"][1] == "-/run/systemd/resolve -/run/dbus -/run/nscd -/run/avahi-daemon"
    assert unit["SystemCallFilter"] == ["@system-service", "~@privileged", "~io_uring_setup io_uring_enter io_uring_register"]
    assert "ReadWritePaths" not in unit
    assert "PrivateUsers" not in unit  # the smoke test of egress looks at the process as the same user


def test_a_port_below_1024_costs_exactly_one_capability():
    unit = unit_settings(render("service/templates/appliance.service.j2", appliance_listen_port=443))
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == ["CAP_NET_BIND_SERVICE"]


def test_named_networks_are_the_only_ones_that_reach_the_box():
    unit = unit_settings(render("service/templates/appliance.service.j2", appliance_client_networks=["10.0.0.0/24", "fd00::/8"]))
    assert unit["IPAddressAllow"] == ["127.0.0.1 ::1 10.0.0.0/24 fd00::/8"]


def test_an_upstream_is_let_through_by_address_and_port_in_both_fences():
    upstreams = [{"address": "10.0.0.7", "port": 8000}, {"address": "10.0.0.7", "port": 6379}, {"address": "fd00::7", "port": 9000}]
    unit = unit_settings(render("service/templates/appliance.service.j2", appliance_upstreams=upstreams))
    assert unit["IPAddressAllow"] == ["127.0.0.1 ::1 10.0.0.7 fd00::7"]
    assert unit["OOMPolicy"] == ["continue"]  # a local model that is killed does not take the box along
    rules = render("firewall/templates/egress.nft.j2", appliance_upstreams=upstreams)
    accepted = [line.strip() for line in rules.splitlines() if "daddr" in line and "accept" in line]
    assert accepted == ["ip daddr 10.0.0.7 tcp dport 8000 accept", "ip daddr 10.0.0.7 tcp dport 6379 accept", "ip6 daddr fd00::7 tcp dport 9000 accept"]
    assert rules.index("th dport { 53") < rules.index("10.0.0.7")  # a resolver stays out of reach there, too
    assert "daddr 1" not in render("firewall/templates/egress.nft.j2")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_rates_the_exposure_of_the_unit_at_two_or_less(tmp_path):
    path = tmp_path / "appliance.service"
    path.write_text(render("service/templates/appliance.service.j2", firewall_is_on=True))
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "--offline" in done.stderr or "unrecognized" in done.stderr:
        pytest.skip("this systemd-analyze cannot rate a file")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_firewall_lets_the_user_of_the_box_only_answer_and_speak_to_itself():
    text = render("firewall/templates/egress.nft.j2")
    assert chain_of(text, "output") == ["type filter hook output priority filter; policy accept;", 'meta skuid "appliance" goto box']
    # not `skuid != … accept`: a packet of the kernel has no socket, would match neither, and fall through to the drop
    box = chain_of(text, "box")
    resolvers = ", ".join(str(port) for port in sorted(RESOLVER_PORTS))
    assert [line for line in box if not line.startswith("#")] == [
        "ct state established,related accept",
        f"meta l4proto {{ tcp, udp }} th dport {{ {resolvers} }} goto refuse",  # before loopback passes
        'oif "lo" accept',
        "goto refuse",
    ]
    assert chain_of(text, "refuse")[-1] == "counter name refused drop"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None or shutil.which("unshare") is None, reason="needs root, nft and unshare")
def test_the_firewall_counts_who_asks_a_resolver_on_loopback_and_lets_other_ports_pass(tmp_path):
    rules = tmp_path / "egress.nft"
    rules.write_text(render("firewall/templates/egress.nft.j2", appliance_user="root"))
    talk = (
        "import socket\n"
        "def heard(host, port):\n"
        "    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); ear.settimeout(0.2); ear.bind((host, port))\n"
        "    try:\n"
        "        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (host, port)); return bool(ear.recv(1))\n"
        "    except OSError: return False\n"
        "assert heard('127.0.0.1', 8080) and not heard('127.0.0.53', 53) and not heard('127.0.0.1', 5353)"
    )
    steps = f'ip link set lo up && nft -f {rules} && {sys.executable} -c "$TALK" && nft list counter inet appliance refused'
    done = subprocess.run(["unshare", "--net", "sh", "-c", steps], capture_output=True, text=True, env={**os.environ, "TALK": talk})
    assert done.returncode == 0, done.stderr
    assert "packets 2 " in done.stdout


def chain_of(text: str, name: str) -> list[str]:
    """The rules of a chain."""
    found = re.search(rf"^\tchain {name} {{\n(.*?)\n\t}}$", text, re.DOTALL | re.MULTILINE)
    assert found
    return [line.strip() for line in found[1].splitlines()]


@pytest.mark.parametrize("script", ["install_debs.sh", "make_self_extracting.sh"])
def test_a_script_for_a_bare_host_is_plain_shell(script):
    done = subprocess.run(["sh", "-n", str(ANSIBLE / "files" / script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_packages_travel_whole_through_the_self_extracting_script(tmp_path):
    folder = tmp_path / "os"
    folder.mkdir()
    (folder / "index.json").write_text("{}")
    (folder / "a.deb").write_bytes(bytes(range(256)) * 400 + b"\n__PACKAGES__\n")
    install = tmp_path / "install.sh"
    install.write_text(f'sha256sum < "$1/a.deb"; ls "$1" > {tmp_path}/seen\n')
    subprocess.run(["sh", str(ANSIBLE / "files" / "make_self_extracting.sh"), str(folder), str(install), str(tmp_path / "out")], check=True)
    done = subprocess.run(["sh", str(tmp_path / "out")], check=True, capture_output=True)
    plain = subprocess.run(["sha256sum"], stdin=(folder / "a.deb").open("rb"), check=True, capture_output=True)
    assert done.stdout == plain.stdout
    assert (tmp_path / "seen").read_text().split() == ["a.deb", "index.json"]


def test_the_mirror_of_the_bed_is_read_from_both_styles_of_apt_sources(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    assert own_archive(tmp_path, "trixie") is None
    (tmp_path / "sources.list").write_text("# deb file:/no trixie main\ndeb [arch=amd64 signed-by=/k.gpg] file:/one trixie main contrib # why\n")
    assert own_archive(tmp_path, "trixie").address == "file:/one"
    assert own_archive(tmp_path, "trixie").keyring == "/k.gpg"
    (tmp_path / "sources.list").unlink()
    stanzas = "Types: deb\nURIs: file:/off\nSuites: trixie\nComponents: main\nEnabled: no\n\n# note\nTypes: deb deb-src\nURIs: file:/two\n"
    stanzas += "Suites: trixie trixie-updates\nComponents:\n main\n contrib\nSigned-By: /k.gpg\n"
    (tmp_path / "sources.list.d" / "debian.sources").write_text(stanzas)
    assert own_archive(tmp_path, "trixie").address == "file:/two"
    assert own_archive(tmp_path, "bookworm") is None
