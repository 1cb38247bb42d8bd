"""A Hub on loopback, of the few calls that an upload makes; it has what it was sent, as the real one."""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Hub(BaseHTTPRequestHandler):
    """Repositories, commits and large files.

    Attributes:
        repositories: `datasets/owner/name` → path → bytes.
        objects: SHA-256 → bytes of the large files, committed or not.
        sent: SHA-256 of every large file that was sent, as often as it was.
        stall: a commit to a repository whose name ends so is never answered, until `go_on`.
    """

    repositories: dict[str, dict[str, Any]]
    objects: dict[str, bytes]
    sent: list[str]
    private: list[bool]
    stall: str
    stalled: threading.Event
    go_on: threading.Event

    def do_GET(self) -> None:
        """What a repository is; one whose name ends in "public" was there before, and is public."""
        name = self.path.removeprefix("/api/").split("?")[0].split("/revision/")[0]
        told = {"id": name.split("/", 1)[1], "private": not name.endswith("public")}
        self._reply({**told, "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        path, body = self.path.split("?")[0], self._body()
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._reply({"warnings": [], "errors": []})
        elif "/preupload/" in path:
            self._preupload(_repository(path, "/preupload/"), json.loads(body)["files"])
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif "/commit/" in path:
            self._commit(_repository(path, "/commit/"), map(json.loads, body.splitlines()))
        else:
            self.send_error(404)

    def do_PUT(self) -> None:
        data, name = self._body(), self.path.rsplit("/", 1)[1]
        assert hashlib.sha256(data).hexdigest() == name
        self.sent.append(name)
        self.objects[name] = data
        self._reply({})

    def _create(self, asked: dict[str, Any]) -> None:
        kind, name = asked.get("type", "model"), f"{asked['organization']}/{asked['name']}"
        prefix = "datasets/" if kind == "dataset" else ""
        told = {"url": f"http://{self.headers['Host']}/{prefix}{name}"}
        if f"{kind}s/{name}" in self.repositories:
            self._reply({**told, "error": "You already created this repo"}, 409)
            return
        self.private.append(asked["visibility"] == "private")
        self.repositories[f"{kind}s/{name}"] = {}
        self._reply(told)

    def _preupload(self, repository: str, files: list[dict[str, Any]]) -> None:
        there = self.repositories[repository]
        told = []
        for file in files:
            path = file["path"]
            mode = "lfs" if path.endswith((".safetensors", ".parquet")) else "regular"
            oid = {"oid": _oid(there[path], mode)} if path in there else {}
            told.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **oid})
        self._reply({"files": told})

    def _batch(self, asked: dict[str, Any]) -> None:
        """Where to send what is not here yet; for what is here there is nothing to do."""
        address = f"http://{self.headers['Host']}/objects"
        objects = [
            wanted
            if wanted["oid"] in self.objects
            else {**wanted, "actions": {"upload": {"href": f"{address}/{wanted['oid']}"}}}
            for wanted in asked["objects"]
        ]
        self._reply({"transfer": "basic", "objects": objects})

    def _commit(self, repository: str, lines: Iterator[dict[str, Any]]) -> None:
        if self.stall and repository.endswith(self.stall):
            self.stalled.set()
            self.go_on.wait(60)
            self.close_connection = True
            return
        files = self.repositories[repository]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            else:
                files[line["key"]] = value["summary"]
        address = f"http://{self.headers['Host']}/{repository.removeprefix('models/')}"
        self._reply({"commitUrl": f"{address}/commit/{'1' * 40}", "commitOid": "1" * 40})

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _reply(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Nothing: a test's output is for failures."""


def _repository(path: str, call: str) -> str:
    return path.removeprefix("/api/").split(call)[0]


def _oid(data: bytes, mode: str) -> str:
    """What the Hub calls a file: its SHA-256 where it is large, else git's name for it."""
    if mode == "lfs":
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


@contextmanager
def hub() -> Iterator[tuple[str, type[Hub]]]:
    """A Hub on loopback: its address, and what it has received."""
    fresh = {"repositories": {}, "objects": {}, "sent": [], "private": [], "stall": ""}
    events = {"stalled": threading.Event(), "go_on": threading.Event()}
    handler = type("FreshHub", (Hub,), {**fresh, **events})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", handler
        finally:
            handler.go_on.set()
            server.shutdown()
            thread.join()


def environment(address: str, home: Path) -> dict[str, str]:
    """Of a process that takes the address for the Hub; huggingface_hub reads it when it is imported."""
    settings = {
        "HF_ENDPOINT": address,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(home),
        "HF_TOKEN": "hf_test",
        "NO_PROXY": "127.0.0.1",
    }
    return {**os.environ, **settings}
