"""A Hugging Face hub on this machine: the calls that huggingface_hub makes to create, read and commit to a dataset."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars

TOKEN = "hf_" + "s3cr3t" * 5


@dataclass
class Repo:
    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {".gitattributes": b"*"}})
    commits: list[dict[str, Any]] = field(default_factory=list)  # summary, branch, paths added and deleted

    def sha(self, branch: str) -> str:
        return hashlib.sha1(f"{branch}{len(self.commits)}".encode()).hexdigest()


@dataclass
class Hub:
    """`faults` are statuses to answer with, by a part of the request's path; `asked` are all requests."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)  # large files by their hash
    faults: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    warning: str | None = None  # about the card


@contextmanager
def known_hub(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Hub]:
    """A hub that the library in this process talks to, with a token; `home` is where a login would be."""
    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its protocol is not served here
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        disable_progress_bars()
        yield hub
        huggingface_hub.close_session()


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        body = self._body()
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {self.path}")
        for part, (status, headers) in self.hub.faults.items():
            if part in path:
                return self._say(status, {"error": "a planted fault"}, headers)
        if path.startswith("/lfs/"):  # signed addresses of a store elsewhere: the token must not go there
            assert "Authorization" not in self.headers
            self.hub.stored[path.removeprefix("/lfs/")] = body
            return self._say(200, {})
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            message = {"X-Error-Message": "Invalid credentials in Authorization header"}
            return self._say(401, {"error": "Invalid credentials"}, message)
        for pattern, answer in _ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                return answer(self, body, *found.groups())
        raise AssertionError(f"the hub knows no {self.command} {self.path}")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _say(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        assert wanted["type"] == "dataset"
        self.hub.repos[name] = Repo(private=wanted["visibility"] == "private")
        self._say(200, {"url": f"{self.hub.url}/datasets/{name}"})

    def info(self, body: bytes, name: str, branch: str | None) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        files = repo.branches.get(branch or "main")
        if files is None:
            return self._say(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        card = files.get("README.md", b"").decode()
        front = yaml.safe_load(card.split("---\n")[1]) if card.startswith("---\n") else {}
        self._say(
            200,
            {
                "id": name,
                "private": repo.private,
                "sha": repo.sha(branch or "main"),
                "tags": front.get("tags", []),
                "siblings": [{"rfilename": path} for path in files],
            },
        )

    def branch(self, body: bytes, name: str, branch: str) -> None:
        repo = self.hub.repos[name]
        repo.branches[branch] = dict(repo.branches["main"])
        self._say(200, {})

    def validate(self, body: bytes) -> None:
        warnings = [{"message": self.hub.warning}] if self.hub.warning else []
        self._say(200, {"errors": [], "warnings": warnings})

    def preupload(self, body: bytes, name: str, branch: str) -> None:
        """Which files are large, and what is there now, as git names it."""
        there = self.hub.repos[name].branches[branch]
        files = []
        for one in json.loads(body)["files"]:
            large = one["path"].endswith((".parquet", ".png"))
            now = there.get(one["path"])
            oid = None
            if now is not None:
                oid = (
                    hashlib.sha256(now).hexdigest()
                    if large
                    else hashlib.sha1(b"blob %d\0" % len(now) + now).hexdigest()
                )
            files.append(
                {"path": one["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
            )
        self._say(200, {"files": files})

    def batch(self, body: bytes, name: str) -> None:
        objects = []
        for one in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}
            objects.append(one if one["oid"] in self.hub.stored else one | {"actions": upload})
        self._say(200, {"transfer": "basic", "objects": objects})

    def commit(self, body: bytes, name: str, branch: str) -> None:
        repo = self.hub.repos[name]
        lines = [json.loads(line) for line in body.splitlines()]
        made: dict[str, Any] = {"branch": branch, "added": [], "deleted": [], "request": self.path.partition("?")[2]}
        files = dict(repo.branches[branch])
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    if value["parentCommit"] != repo.sha(branch):
                        return self._say(412, {"error": "A commit has happened since."})
                    made["summary"] = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                    made["added"].append(value["path"])
                case "lfsFile":
                    content = self.hub.stored[value["oid"]]
                    assert hashlib.sha256(content).hexdigest() == value["oid"]
                    files[value["path"]] = content
                    made["added"].append(value["path"])
                case "deletedFile":
                    del files[value["path"]]
                    made["deleted"].append(value["path"])
        repo.commits.append(made)
        if "create_pr" not in made["request"]:
            repo.branches[branch] = files
        url = f"{self.hub.url}/datasets/{name}"
        oid = repo.sha(branch)
        self._say(200, {"commitUrl": f"{url}/commit/{oid}", "commitOid": oid, "pullRequestUrl": f"{url}/discussions/1"})


_NAME, _REF = r"([\w.-]+/[\w.-]+)", r"([\w.-]+)"
_ROUTES: list[tuple[str, Any]] = [
    ("POST /api/repos/create", _Handler.create),
    ("POST /api/validate-yaml", _Handler.validate),
    (f"GET /api/datasets/{_NAME}(?:/revision/{_REF})?", _Handler.info),
    (f"POST /api/datasets/{_NAME}/branch/{_REF}", _Handler.branch),
    (f"POST /api/datasets/{_NAME}/preupload/{_REF}", _Handler.preupload),
    (rf"POST /datasets/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (f"POST /api/datasets/{_NAME}/commit/{_REF}", _Handler.commit),
]
