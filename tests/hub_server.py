"""A Hugging Face Hub on this machine: the paths that clients of any version ask, over folders. Written apart from refgen.

`Hub({"gpt2": {"main": folder}})` serves the files of `folder` as the repository `gpt2`. It counts what it was asked, can
break off answers half-way, and wants a token for names that begin with `private/`.
"""

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

RESOLVE = re.compile(r"/(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
API = re.compile(r"/api/models/(?P<repo>.+?)(?:/(?:revision|tree)/(?P<revision>[^/]+)(?P<under>/.+)?)?/?")
TOKEN = "hf_secret"


def commit_of(folder: Path) -> str:
    """A name for what is in the folder now, as long as git's."""
    digest = hashlib.sha1()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


class Hub:
    """The server; a context that runs it. `asked` has a line for each request: "HEAD gpt2 config.json"."""

    def __init__(self, repositories: dict[str, dict[str, Path]]) -> None:
        self.repositories = repositories
        self.asked: list[str] = []
        self.ranges: list[str] = []
        self.push_after: tuple[str, str, Path] | None = None  # (repository, revision, folder), once a file was fetched
        self.break_off: list[int] = []  # after so many bytes, of the next GETs of weights
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Nothing."""

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        """One request."""
        path = unquote(urlsplit(request.path).path)
        resolve, api = RESOLVE.fullmatch(path), API.fullmatch(path)
        found = resolve or api
        repo = found["repo"] if found else ""
        self.asked.append(f"{request.command} {repo} {resolve['file'] if resolve else 'api'}")
        revisions = self.repositories.get(repo)
        allowed = not repo.startswith("private/") or request.headers.get("Authorization") == f"Bearer {TOKEN}"
        if revisions is None or not allowed:
            self.refuse(request, 401 if not allowed else 404, "RepoNotFound")
            return
        commits = {commit_of(folder): folder for folder in revisions.values()}
        revision = (found["revision"] if found else None) or "main"
        folder = revisions.get(revision) or commits.get(revision)
        if folder is None:
            self.refuse(request, 404, "RevisionNotFound")
            return
        if api and api["under"]:
            self.refuse(request, 404, "EntryNotFound")
            return
        if api:
            files = [
                {
                    "rfilename": each.name,
                    "path": each.name,
                    "type": "file",
                    "size": each.stat().st_size,
                    "oid": "0" * 40,
                }
                for each in sorted(folder.iterdir())
            ]
            about = files if "/tree/" in path else {"id": repo, "sha": commit_of(folder), "siblings": files}
            self.send(request, 200, json.dumps(about).encode(), {"Content-Type": "application/json"}, body=body)
            return
        headers = {"X-Repo-Commit": commit_of(folder)}
        file = folder / resolve["file"]
        if not file.is_file():
            self.refuse(request, 404, "EntryNotFound", headers)
            return
        self.send_file(request, file, headers, body=body)
        if body and self.push_after is not None:
            (pushed, moved, new), self.push_after = self.push_after, None
            self.repositories[pushed][moved] = new

    def refuse(self, request, status: int, code: str, headers: Mapping[str, str] = {}) -> None:
        """An error, as the Hub writes it."""
        self.send(request, status, code.encode(), {"X-Error-Code": code, "X-Error-Message": code, **headers}, body=True)

    def send_file(self, request, file: Path, headers: dict[str, str], *, body: bool) -> None:
        """A file or the part of it that was asked for, maybe broken off."""
        data = file.read_bytes()
        size = len(data)
        headers |= {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "Accept-Ranges": "bytes",
            "X-Linked-Size": str(size),
        }
        status, asked = 200, request.headers.get("Range")
        if asked:
            self.ranges.append(f"{file.name} {asked}")
            start, _, end = asked.removeprefix("bytes=").partition("-")
            data = data[int(start) : int(end) + 1 if end else None]
            status, headers["Content-Range"] = 206, f"bytes {start}-{int(start) + len(data) - 1}/{size}"
        keep = self.break_off.pop(0) if body and self.break_off and file.suffix in (".safetensors", ".bin") else None
        self.send(request, status, data, headers, body=body, keep=keep)

    @staticmethod
    def send(
        request, status: int, data: bytes, headers: Mapping[str, str], *, body: bool, keep: int | None = None
    ) -> None:
        """The answer itself."""
        body = body and request.command != "HEAD"
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            request.send_header(name, value)
        request.end_headers()
        if body:
            request.wfile.write(data if keep is None else data[:keep])
        if keep is not None:
            request.close_connection = True


def write_cache(cache: Path, repo: str, revisions: Mapping[str, Path], links: bool = True) -> Path:
    """The folders as huggingface_hub keeps them: blobs, snapshots of links to them, refs; without links, as on Windows."""
    home = cache / f"models--{repo.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "blobs").mkdir()
    for revision, folder in revisions.items():
        snapshot = home / "snapshots" / commit_of(folder)
        snapshot.mkdir(parents=True, exist_ok=True)
        (home / "refs" / revision).write_text(commit_of(folder))
        for file in folder.iterdir():
            blob = home / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            target = blob if links else snapshot / file.name
            target.write_bytes(file.read_bytes())
            if links and not (snapshot / file.name).exists():
                (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return home
