"""The hub's routes: what is asked of it by URL, and the answer with the headers of the real one."""

import gzip
import json
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from tests.fakes.hub.bodies import Body
from tests.fakes.hub.faults import Fault
from tests.fakes.hub.listener import Answer, Seen
from tests.fakes.hub.repository import (
    HubFile,
    HubRepository,
    model_info,
    safetensors,
    summary,
    tree,
    tree_entry,
)

_MODEL = re.compile(r"/api/models/([^/]+/[^/]+?)(?:/(revision|tree|paths-info|refs)(?:/(.+))?)?")
_RESOLVE = re.compile(r"/(?:api/resolve-cache/models/)?([^/]+/[^/]+?)/(?:resolve/)?([^/]+)/(.+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Protocol:
    """Answers for the hub and for its CDN; listeners call it from many threads."""

    def __init__(self) -> None:
        self.repositories: dict[str, HubRepository] = {}
        self.moved: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.accepted_tokens: set[str] = {"hf_good"}
        self.page_size = 1000
        self.xet = False  # announce Xet as the real hub does; the client then needs its switch off
        self.resolve_cache = True  # small files by a relative redirect on the same host
        self.signature = 1  # part of every CDN link; raising it makes old links expire
        self.hub_netloc = self.cdn_netloc = ""
        self._lock = threading.Lock()  # faults count: between the threads of connections

    def answer(self, seen: Seen) -> Answer:
        """What the hub or the CDN says, spoilt by the first fault that strikes."""
        name = self._name(seen)
        with self._lock:
            fault = next(
                (f for f in self.faults if f.strikes(seen.where, seen.method, seen.path, name)),
                None,
            )
        if fault and (early := self._instead(seen, fault)):
            return early
        answer = self._cdn(seen, fault) if seen.where == "cdn" else self._hub(seen, fault)
        answer.fault = fault
        return answer

    def _name(self, seen: Seen) -> str:
        """The name of the file asked for, so that faults can say `*.safetensors`."""
        if seen.where == "cdn":
            return parse_qs(seen.query).get("name", [""])[0]
        match = _RESOLVE.fullmatch(seen.path)
        return match[3] if match and not seen.path.startswith("/api/models/") else ""

    def _instead(self, seen: Seen, fault: Fault) -> Answer | None:
        match fault.kind:
            case "refuse":
                return Answer(0, fault=fault)
            case "status" if fault.body is not None:
                return Answer(fault.status, fault.headers, Body.of(fault.body))
            case "status":
                return _json(fault.data or {"error": "asked for"}, fault.status, fault.headers)
            case "redirect":
                return Answer(302, {"Location": fault.location})
            case "redirect-loop":
                query = urlencode({**_first(seen.query), "hop": fault.happened})
                return Answer(302, {"Location": f"{quote(seen.path)}?{query}"})
            case "gzip-bomb":
                body = Body.of(gzip.compress(bytes(fault.size), 1))
                headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
                return Answer(200, headers, body)
            case "endless-json":
                headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}
                return Answer(200, headers, fault=fault)
            case _:
                return None

    # --- hub

    def _hub(self, seen: Seen, fault: Fault | None) -> Answer:
        if seen.path == "/api/models":
            return self._search(seen)
        if seen.path == "/api/whoami-v2":
            known = seen.token in self.accepted_tokens
            return _json({"name": "someone"}) if known else _error(401, "", "Invalid credentials")
        if match := _MODEL.fullmatch(seen.path):
            return self._model(seen, match[1], match[2], match[3])
        if match := _RESOLVE.fullmatch(seen.path):
            return self._resolve(seen, match[1], match[2], match[3], fault)
        return _error(404, "", "Not found")

    def _search(self, seen: Seen) -> Answer:
        query = _first(seen.query)
        words = query.get("search", "").lower().split()
        expand = parse_qs(seen.query).get("expand[]", [])
        found = [
            summary(repository) | (safetensors(repository) if "safetensors" in expand else {})
            for repository in self.repositories.values()
            if all(word in repository.id.lower() for word in words)
            and query.get("author", repository.id.split("/")[0]) == repository.id.split("/")[0]
            and (not repository.private or seen.token in self.accepted_tokens)
        ]
        return self._page(seen, found, int(query.get("limit", self.page_size)))

    def _page(self, seen: Seen, entries: list[Any], size: int) -> Answer:
        query = _first(seen.query)
        start, size = int(query.get("cursor", 0)), min(size, self.page_size)
        following = urlencode({**query, "cursor": start + size})
        link = f'<http://{self.hub_netloc}{quote(seen.path)}?{following}>; rel="next"'
        return _json(
            entries[start : start + size],
            200,
            {"Link": link} if start + size < len(entries) else {},
        )

    def _find(self, seen: Seen, name: str, files: bool) -> HubRepository | Answer:
        if new := self.moved.get(name):
            where = seen.path.replace(name, new) + (f"?{seen.query}" if seen.query else "")
            return Answer(307, {"Location": where})
        repository = self.repositories.get(name)
        known = seen.token in self.accepted_tokens
        if repository is None or (repository.private and not known):
            status = 404 if seen.token and known else 401
            text = "Repository not found" if status == 404 else "Invalid username or password."
            return _error(status, "RepoNotFound", text)
        if files and repository.gated and not known:
            text = f"Access to model {name} is restricted. You must be authenticated to access it."
            return _error(403 if seen.token else 401, "GatedRepo", text)
        return repository

    def _model(self, seen: Seen, name: str, kind: str | None, rest: str | None) -> Answer:
        repository = self._find(seen, name, files=False)
        if isinstance(repository, Answer):
            return repository
        if kind == "refs":
            branches = [
                {"name": b, "ref": f"refs/heads/{b}", "targetCommit": c}
                for b, c in repository.branches.items()
            ]
            return _json({"branches": branches, "tags": [], "converts": []})
        revision, _, folder = (rest or "main").partition("/")
        if kind == "revision":
            revision, folder = rest or "main", ""
        if (commit := repository.find(revision)) is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repository.commits[commit]
        query = _first(seen.query)
        if kind == "tree":
            recursive = query.get("recursive", "").lower() in ("true", "1")
            return self._page(seen, tree(files, folder, recursive), self.page_size)
        if kind == "paths-info":
            wanted = parse_qs(seen.body.decode()).get("paths", [])
            return _json([tree_entry(files[path]) for path in wanted if path in files])
        return _json(
            model_info(repository, commit, query.get("blobs", "").lower() in ("true", "1"))
        )

    def _resolve(
        self, seen: Seen, name: str, revision: str, path: str, fault: Fault | None
    ) -> Answer:
        repository = self._find(seen, name, files=True)
        if isinstance(repository, Answer):
            return repository
        if (commit := repository.find(revision)) is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if (file := repository.commits[commit].get(path)) is None:
            return _error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes", "Vary": "Origin, Accept"}
        if file.lfs:
            return Answer(302, {**headers, **self._linked(file, name, commit)})
        if self.resolve_cache and not seen.path.startswith("/api/"):
            where = (
                f"/api/resolve-cache/models/{name}/{commit}/{quote(path)}?etag={quote(file.etag)}"
            )
            linked = {"X-Linked-Etag": file.etag, "X-Linked-Size": str(file.size)}
            return Answer(307, {**headers, **linked, "Location": where})
        return _content(seen, file, file.etag, headers, fault)

    def _linked(self, file: HubFile, name: str, commit: str) -> dict[str, str]:
        query = {"name": file.name, "Expires": "1775200000", "Signature": f"s{self.signature}"}
        headers = {
            "Location": f"http://{self.cdn_netloc}/repos/{file.sha256[:2]}/{file.sha256}?{urlencode(query)}",
            "X-Linked-Etag": file.etag,
            "X-Linked-Size": str(file.size),
            "ETag": file.etag,
        }
        if self.xet:
            base = f"http://{self.hub_netloc}/api/models/{name}"
            headers["X-Xet-Hash"] = file.sha256
            headers["Link"] = f'<{base}/xet-read-token/{commit}>; rel="xet-auth"'
        return headers

    # --- CDN

    def _cdn(self, seen: Seen, fault: Fault | None) -> Answer:
        query = _first(seen.query)
        if query.get("Signature") != f"s{self.signature}":
            return _error(403, "", "Request has expired")
        file = self._by_hash(seen.path.rsplit("/", 1)[-1])
        if file is None:
            return _error(404, "", "NoSuchKey")
        return _content(seen, file, f'"{file.sha256}"', {"Accept-Ranges": "bytes"}, fault)

    def _by_hash(self, sha256: str) -> HubFile | None:
        for repository in list(self.repositories.values()):
            for files in list(repository.commits.values()):
                for file in files.values():
                    if file.sha256 == sha256:
                        return file
        return None


def _content(
    seen: Seen, file: HubFile, etag: str, headers: Mapping[str, str], fault: Fault | None
) -> Answer:
    """200 or 206 with the bytes; faults of the head are done here, those of the body later."""
    kind = fault.kind if fault else ""
    etag = f'"{"0" * 64}"' if kind == "etag" else etag
    size = file.size + 1 if kind == "size" else file.size
    headers = {**headers, "ETag": etag, "Content-Type": "application/octet-stream"}
    ignored = kind == "ignore-range" or (fault is not None and fault.whole)
    match = None if ignored else _RANGE.fullmatch(seen.range or "")
    if match is None:
        return Answer(200, headers, Body(file.content, 0, file.size))
    start, end = int(match[1]), min(int(match[2] or file.size - 1), file.size - 1)
    if start >= file.size:
        return Answer(416, {**headers, "Content-Range": f"bytes */{size}"})
    if kind == "short-range":
        end = (start + end) // 2
    shown = max(0, start - 1) if kind == "wrong-range" else start
    headers["Content-Range"] = f"bytes {shown}-{end - start + shown}/{size}"
    return Answer(206, headers, Body(file.content, start, end - start + 1))


def _json(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    body = Body.of(json.dumps(data).encode())
    return Answer(
        status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, body
    )


def _error(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> Answer:
    coded = {"X-Error-Code": code} if code else {}
    return _json(
        {"error": message}, status, {**coded, "X-Error-Message": message, **(headers or {})}
    )


def _first(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}
