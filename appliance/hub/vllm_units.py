"""A vLLM profile as a systemd unit, as a compose file, as JSON. Pure; hardened as our own unit is (``ansible/roles/service/templates``)."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, Final

from appliance.hub.vllm_profile import VllmProfile

_MOST_KEY: Final = "VLLM_API_KEY=$$(head -n 1 {path}) exec {command}"
_CLOSED: Final = ("/boot", "/media", "/mnt", "/srv")
_UNIT: Final = """\
# Written by `appliance models serve {alias} --print systemd`; write it again after a change of models.toml.
[Unit]
Description=vLLM: {alias}
After=network.target
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=simple
User={user}
Group={user}
{environment}
ExecStart={command}
Restart=on-failure
RestartSec=5
TimeoutStartSec=1800
TimeoutStopSec=60
KillMode=mixed
LimitNOFILE=65536
LimitCORE=0
{pins}
# Files: the weights to read, a cache of its own to write, nothing else
StateDirectory=appliance-vllm
CacheDirectory=appliance-vllm
StateDirectoryMode=0700
BindReadOnlyPaths={snapshot}
WorkingDirectory=/var/lib/appliance-vllm
UMask=0077
ProtectSystem=strict
ProtectHome=tmpfs
PrivateTmp=yes
ProtectProc=invisible
InaccessiblePaths={closed}
InaccessiblePaths=-/run/systemd/resolve -/run/dbus -/run/nscd -/run/avahi-daemon

# Devices: {devices_why}
DevicePolicy=closed
{devices}
# Network: {network_why}
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
{network}
# Kernel
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
RestrictNamespaces=yes
SystemCallFilter=@system-service
SystemCallFilter=~io_uring_setup io_uring_enter io_uring_register
SystemCallErrorNumber=EPERM
SystemCallArchitectures=native
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
KeyringMode=private
# No MemoryDenyWriteExecute: kernels are compiled at run time.

[Install]
WantedBy=multi-user.target
"""


def systemd_unit(profile: VllmProfile, *, python: str, user: str) -> str:
    """A unit for ``/etc/systemd/system/appliance-vllm-ALIAS.service``.

    Args:
        profile: what is served.
        python: interpreter with vLLM in it; absolute.
        user: account that it runs as; must be able to read the snapshot.
    """
    variables = {**profile.environment, "HOME": "/var/lib/appliance-vllm", "VLLM_CACHE_ROOT": "/var/cache/appliance-vllm"}
    plain = VllmProfile(**{**_fields(profile), "numa_node": None})
    words = " ".join(_systemd_word(word) for word in plain.argv(python))
    pins = [] if profile.numa_node is None else ["NUMAPolicy=bind", f"NUMAMask={profile.numa_node}", "CPUAffinity=numa"]
    if profile.api_key_file is not None:
        pins.append(f"LoadCredential=key:{profile.api_key_file}")
        shell = _MOST_KEY.format(path="$$CREDENTIALS_DIRECTORY/key", command=shlex.join(plain.argv(python)).replace("%", "%%").replace("$", "$$"))
        words = f"/bin/sh -c {_systemd_quoted(shell)}"
    local = profile.host == "localhost" or profile.host.startswith("127.") or profile.host == "::1"
    return _UNIT.format(
        alias=profile.alias, user=user, command=words, snapshot=_systemd_word(str(profile.snapshot)),
        environment="\n".join(f"Environment={_systemd_assignment(name, value)}" for name, value in sorted(variables.items())),
        closed=" ".join(f"-{path}" for path in _CLOSED if not any(Path(path) in needed.parents for needed in (profile.snapshot, Path(python)))),
        pins="\n".join(["", "# Where it runs, and its key", *pins, ""]) if pins else "",
        devices_why="the GPUs" if profile.gpus else "none of the GPUs is named in models.toml: those of NVIDIA, if there are any",
        devices="DeviceAllow=char-nvidia rw\nDeviceAllow=char-nvidia-uvm rw\nDeviceAllow=char-nvidia-frontend rw\nDeviceAllow=char-nvidia-caps rw\n",
        network_why="this machine only" if local else "it listens for the box on another machine; allow that one by IPAddressAllow in a drop-in",
        network="IPAddressDeny=any\nIPAddressAllow=127.0.0.1 ::1\n",
    )  # fmt: skip


def compose_file(profile: VllmProfile, *, image: str) -> str:
    """A compose file; the image is never pulled. JSON is YAML, so that nothing needs to be quoted twice."""
    service: dict[str, Any] = {
        "image": image,
        "pull_policy": "never",
        "restart": "on-failure",
        "entrypoint": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
        "command": [word.replace("$", "$$") for word in profile.arguments],
        "environment": {**profile.environment, "HOME": "/tmp", "VLLM_CACHE_ROOT": "/tmp/vllm"},  # noqa: S108 - inside the container, a tmpfs
        "network_mode": "host",
        "volumes": [{"type": "bind", "source": str(profile.snapshot), "target": str(profile.snapshot), "read_only": True}],
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108 - inside the container
        "shm_size": "8gb",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }
    document: dict[str, Any] = {"services": {_service_name(profile.alias): service}}
    if profile.gpus:
        # inside, the devices that were handed over are numbered from 0
        service["environment"] = {**service["environment"], "CUDA_VISIBLE_DEVICES": ",".join(str(number) for number in range(len(profile.gpus)))}
        wanted = {"driver": "nvidia", "device_ids": [str(number) for number in profile.gpus], "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [wanted]}}}
    if profile.numa_node is not None:
        service["entrypoint"] = ["numactl", f"--cpunodebind={profile.numa_node}", f"--membind={profile.numa_node}", *service["entrypoint"]]
        service["cap_add"] = ["SYS_NICE"]
    if profile.api_key_file is not None:
        document["secrets"] = {"vllm_key": {"file": str(profile.api_key_file)}}
        service["secrets"] = ["vllm_key"]
        shell = _MOST_KEY.format(path="/run/secrets/vllm_key", command='"$$@"')
        service["entrypoint"] = ["/bin/sh", "-c", shell, "vllm", *service["entrypoint"]]
    return json.dumps(document, indent=2) + "\n"


def profile_document(profile: VllmProfile, *, python: str) -> dict[str, Any]:
    """The profile for programs."""
    return {
        "schema_version": 1,
        "alias": profile.alias,
        "argv": list(profile.argv(python)),
        "environment": dict(profile.environment),
        "host": profile.host,
        "port": profile.port,
        "snapshot": str(profile.snapshot),
        "gpus": list(profile.gpus),
        "numa_node": profile.numa_node,
        "api_key_file": str(profile.api_key_file) if profile.api_key_file is not None else None,
    }


def _fields(profile: VllmProfile) -> dict[str, Any]:
    return {name: getattr(profile, name) for name in VllmProfile.__dataclass_fields__}


def _service_name(alias: str) -> str:
    return "vllm-" + re.sub(r"[^a-z0-9_-]", "-", alias.lower())


def _systemd_word(word: str) -> str:
    """One word of a unit's command line or assignment; ``%`` and ``$`` mean themselves."""
    escaped = word.replace("%", "%%").replace("$", "$$")
    return escaped if re.fullmatch(r"[A-Za-z0-9_@%+=:,./$-]+", escaped) else _systemd_quoted(escaped)


def _systemd_assignment(name: str, value: str) -> str:
    return _systemd_quoted(f"{name}={value}".replace("%", "%%"))


def _systemd_quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
