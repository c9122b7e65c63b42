"""A stand-in for a Hugging Face hub on the loopback: enough of its API for ``snapshot_download``. Notes every file that is asked for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40


class HubServer(ThreadingHTTPServer):
    """Serves the files of one folder as one repository."""

    daemon_threads = True

    def __init__(self, repository: str, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository = repository
        self.folder = folder
        self.asked: list[str] = []
        self.agents: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.agents.append(self.headers.get("User-Agent", ""))
        api, resolve = f"/api/models/{self.server.repository}", f"/{self.server.repository}/resolve/"
        if path.startswith(f"{api}/tree/"):
            files = [file for file in sorted(self.server.folder.rglob("*")) if file.is_file()]
            rows = [
                {
                    "type": "file",
                    "path": file.relative_to(self.server.folder).as_posix(),
                    "size": file.stat().st_size,
                    "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
                }
                for file in files
            ]
            self._send(json.dumps(rows).encode(), {"Content-Type": "application/json"}, body=body)
            return
        if path.startswith(api):
            revision = path.removeprefix(api).removeprefix("/revision/")
            if revision in {"", "main", COMMIT}:
                names = sorted(file.relative_to(self.server.folder).as_posix() for file in self.server.folder.rglob("*") if file.is_file())
                document = {"id": self.server.repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
                self._send(json.dumps(document).encode(), {"Content-Type": "application/json"}, body=body)
                return
            self._send(b'{"error":"Revision Not Found"}', {"X-Error-Code": "RevisionNotFound"}, body=body, status=404)
            return
        name = path.removeprefix(resolve).partition("/")[2] if path.startswith(resolve) else ""
        file = self.server.folder / name
        if not name or not file.is_file():
            self._send(b'{"error":"Repository not found"}', {"X-Error-Code": "RepoNotFound"}, body=body, status=404)
            return
        if body:
            self.server.asked.append(name)
        content = file.read_bytes()
        self._send(content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}, body=body)

    def _send(self, content: bytes, headers: Mapping[str, str], *, body: bool, status: int = 200) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


@contextlib.contextmanager
def hub_server(repository: str, folder: Path) -> Iterator[HubServer]:
    server = HubServer(repository, folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
