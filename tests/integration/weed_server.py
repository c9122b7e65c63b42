"""A real S3 server (seaweedfs from the package index) on free loopback ports, in a folder of its own, with versioning and object lock."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

ACCESS_KEY, SECRET_KEY = "tester", "secret-of-the-tester"
BUCKET = "models"


@dataclass
class WeedServer:
    """One server; ``stop`` kills it for good, ``start`` brings it back on the same ports and data."""

    folder: Path
    binary: str
    ports: list[int]
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def keys_file(self) -> Path:
        return self.folder / "s3.keys"

    def client(self) -> Minio:
        manager = urllib3.PoolManager(timeout=urllib3.Timeout(connect=2, read=10), retries=False)
        return Minio(f"127.0.0.1:{self.ports[0]}", ACCESS_KEY, SECRET_KEY, secure=False, http_client=manager)

    def start(self) -> None:
        s3, master, volume, filer = self.ports[:4]
        command = [
            self.binary, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self.folder / 'data'}",
            f"-master.port={master}", f"-master.port.grpc={self.ports[4]}", f"-volume.port={volume}", f"-volume.port.grpc={self.ports[5]}",
            "-filer", f"-filer.port={filer}", f"-filer.port.grpc={self.ports[6]}",
            "-s3", f"-s3.port={s3}", f"-s3.port.grpc={self.ports[7]}", f"-s3.config={self.folder / 's3.json'}",
            "-volume.max=20", "-master.volumeSizeLimitMB=64",
        ]  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder, start_new_session=True)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(Exception):
                self.client().list_buckets()
                return
            assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "server.log").read_text()[-2000:]
            time.sleep(0.1)  # between looks, not in place of one

    def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def make_bucket(self) -> None:
        client = self.client()
        client.make_bucket(BUCKET, object_lock=True)
        client.set_bucket_versioning(BUCKET, VersioningConfig(ENABLED))


def find_weed() -> str | None:
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@contextlib.contextmanager
def weed_server(folder: Path, binary: str) -> Iterator[WeedServer]:
    (folder / "data").mkdir(parents=True)
    identity = {"name": "tester", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "s3.keys").write_text(f"{ACCESS_KEY}\n{SECRET_KEY}\n")
    server = WeedServer(folder, binary, _free_ports(8))
    try:
        server.start()
        server.make_bucket()
        yield server
    finally:
        server.stop()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
