"""A hub on the loopback interface that serves what a test puts into it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse


@dataclass
class Repo:
    """One repository: a folder for each commit, a commit for each revision.

    Attributes:
        folders: Commit to folder.
        branches: Revision to commit.
        refuses: HTTP status and error code for every file, or None.
        listed: Bytes of files that are listed and not served, by name.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    refuses: tuple[int, str] | None = None
    listed: dict[str, int] = field(default_factory=dict)


@dataclass
class Hub:
    """The server: what it serves and what it was asked.

    Attributes:
        url: Its address.
        repos: What it serves.
        asked: Method and path of every request so far, in order.
        breaks_after: Break the first long answer off after so many bytes.
        on_request: Told of each request before it is answered; what it raises ends the answer.
    """

    url: str
    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    breaks_after: int | None = None
    on_request: Callable[[str], None] | None = None

    def add(self, repo: str, revision: str, folder: Path) -> str:
        """Serve a folder as a revision; gives its commit."""
        commit = hashlib.sha1(str(folder).encode()).hexdigest()
        self.repos.setdefault(repo, Repo()).folders[commit] = folder
        self.repos[repo].branches[revision] = commit
        return commit

    def gets(self, part: str) -> list[str]:
        """The GET requests whose path has ``part``."""
        return [line for line in self.asked if line.startswith("GET") and part in line]


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub, until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.hub  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined,no-any-return]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlparse(self.path).path)
        if self.hub.on_request is not None:
            self.hub.on_request(f"{self.command} {path}")
        self.hub.asked.append(f"{self.command} {path}")
        path = path.removeprefix("/api").removeprefix("/models").removeprefix("/datasets")
        if path.count("/") < 3:
            self._refuse(404, "EntryNotFound")
            return
        owner, name, what, *rest = path.strip("/").split("/")
        repo = self.hub.repos.get(f"{owner}/{name}")
        if repo is None:
            self._refuse(401, "RepoNotFound")
        elif what == "refs":
            self._json(_refs(repo))
        elif (commit := repo.branches.get(rest[0], rest[0])) not in repo.folders:
            self._refuse(404, "RevisionNotFound")
        elif what == "revision":
            self._json(_info(repo, f"{owner}/{name}", commit))
        elif what == "tree":
            self._json(_tree(repo.folders[commit]))
        else:
            self._file(repo, commit, "/".join(rest[1:]))

    def _file(self, repo: Repo, commit: str, name: str) -> None:
        path = repo.folders[commit] / name
        if repo.refuses is not None:
            self._refuse(*repo.refuses)
        elif not path.is_file():
            self._refuse(404, "EntryNotFound")
        else:
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self._send(content)

    def _json(self, content: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self._send(json.dumps(content).encode())

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self._send(b"")

    def _send(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.hub.breaks_after
        if limit is not None and len(body) > limit:
            self.hub.breaks_after = None
            self.wfile.write(body[:limit])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(body)


def _refs(repo: Repo) -> dict[str, Any]:
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
        for name, commit in repo.branches.items()
    ]
    return {"branches": branches, "tags": [], "converts": []}


def _info(repo: Repo, name: str, commit: str) -> dict[str, Any]:
    files = [
        {"rfilename": path.name, "size": path.stat().st_size, "lfs": _large(path)}
        for path in sorted(repo.folders[commit].iterdir())
    ]
    files += [{"rfilename": name, "size": size} for name, size in repo.listed.items()]
    return {"id": name, "modelId": name, "sha": commit, "siblings": files, "tags": []}


def _large(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}


def _tree(folder: Path) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "path": path.name,
            "size": path.stat().st_size,
            "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.iterdir())
    ]
