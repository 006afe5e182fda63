"""The fake daemon's routes that bring, make and look after names, as the daemon answers them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

OFFERS = [
    {
        "name": "gemma4:e4b",
        "description": "Small, for laptops.",
        "target_bytes": 15_900_000_000,
        "drafter_bytes": 157_000_000,
        "licence": "Apache-2.0",
        "fits": "cpu",
        "needed_bytes": 17_000_000_000,
    },
    {
        "name": "gemma4:31b",
        "description": "Large.",
        "target_bytes": 62_500_000_000,
        "drafter_bytes": 938_000_000,
        "licence": "Apache-2.0",
        "fits": "no",
        "needed_bytes": 64_000_000_000,
    },
]
FOUND = {
    **OFFERS[0],
    "name": "hf.co/google/gemma-4-E4B-it",
    "target_bytes": 0,
    "drafter_bytes": 0,
    "fits": "unknown",
    "installed": False,
}
TARGET = {"digest": "sha256:3f2a9c0d11e2" + "0" * 52, "kind": "target"}
DRAFT = {"digest": "sha256:" + "77" * 32, "kind": "drafter"}


class Refusal(Exception):
    def __init__(self, status: int, code: str, text: str) -> None:
        self.status, self.record = status, {"error": text, "code": code}


def full(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def fetched() -> list[dict]:
    """A pull's records: the target was half here, the drafter is new."""
    target = {"status": "pulling 3f2a9c0d11e2", **TARGET, "total": 27_400_000}
    target["resumed"] = 1_000_000
    drafter = {"status": "pulling 777777777777", **DRAFT, "total": 3_800_000}
    return [
        {"status": "pulling manifest"},
        {**target, "completed": 1_000_000},
        {**target, "completed": 27_400_000},
        {**drafter, "completed": 0},
        {**drafter, "completed": 3_800_000},
        {"status": "verifying sha256 digest"},
        {"status": "writing manifest"},
        {"status": "success"},
    ]


class StoreRoutes:
    """Mixed into the handler; a route named for a method and a path wins over one of the path."""

    def route_api_pull(self, state, body: dict) -> Iterator[dict]:
        name = full(body["model"].partition("@")[0])
        if name not in state.pullable:
            raise Refusal(404, "model_not_found", f"There is no model '{body['model']}' to pull.")
        state.models[name] = state.stored(name)
        if body.get("draft") == "none":
            state.models[name]["drafter"] = None
        return iter(fetched())

    def get_api_pulls(self, state, body: dict) -> dict:
        return {"pulls": list(state.jobs.values())}

    def delete_api_pulls(self, state, body: dict) -> dict:
        if state.jobs.pop(full(body["model"]), None) is None:
            raise Refusal(404, "model_not_found", f"'{body['model']}' is not being pulled.")
        return {}

    def route_api_create(self, state, body: dict) -> Iterator[dict]:
        self._only_local(body, "from_path", "draft_path", "adapter_path")
        if sum(bool(body.get(key)) for key in ("from", "from_path", "files")) != 1:
            raise Refusal(400, "bad_request", "Give 'from' a model, or 'files' uploaded blobs.")
        if state.cannot_read and body.get("from_path"):
            raise Refusal(403, "refused", "The daemon may not read the files of FROM.")
        if body.get("from"):
            self._model(state, body["from"])
        for key in ("files", "draft_files", "adapters"):
            if lost := [d for d in (body.get(key) or {}).values() if d not in state.blobs]:
                raise Refusal(400, "bad_request", f"The blob {lost[0]} is not in the store.")
        name = full(body["model"])
        made = state.stored(name) | {"messages": body.get("messages") or []}
        state.models[name] = made | {"adapter": sorted(body.get("adapters") or ())}
        return iter([{"status": "writing manifest"}, {"status": "success"}])

    def _blob(self, digest: str) -> None:
        """HEAD and POST; what the content is decides."""
        state = self.server.state
        digest = digest.replace("sha256-", "sha256:", 1)
        size = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(size)
        there = digest in state.blobs
        if self.command == "HEAD":
            self._reply(200 if there else 404, {})
        elif f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            self._reply(400, {"error": f"The content is not {digest}.", "code": "bad_request"})
        else:
            assert self.headers["Content-Type"] == "application/octet-stream"
            state.blobs[digest] = content
            self._reply(200 if there else 201, {})

    def post_api_draft(self, state, body: dict) -> Iterator[dict]:
        model = self._model(state, body["model"])
        if body["draft"] == "hf.co/me/other":
            text = "This drafter does not belong to the target: hidden size 256, not 1536."
            raise Refusal(409, "pair_mismatch", text)
        drafter = state.stored(model["name"])["drafter"]
        model["drafter"] = {**drafter, "source": {"source": body["draft"], "revision": "6" * 40}}
        return iter([record for record in fetched() if record.get("kind") != "target"])

    def delete_api_draft(self, state, body: dict) -> dict:
        self._model(state, body["model"])["drafter"] = None
        return {}

    def get_api_available(self, state, body: dict) -> dict:
        text = parse_qs(self.query).get("search", [""])[0].lower()
        found = [o for o in OFFERS if text in f"{o['name']} {o['description']}".lower()]
        return {
            "models": [{**offer, "installed": offer["name"] in state.models} for offer in found]
        }

    def post_api_search(self, state, body: dict) -> dict:
        if state.hub_is_down:
            raise Refusal(502, "pull_failed", "The hub did not answer.")
        return {"models": [FOUND] if body["query"].lower() in FOUND["name"].lower() else []}

    def post_api_gc(self, state, body: dict) -> dict:
        garbage = list(state.garbage)
        if not body["dry_run"]:
            state.garbage.clear()
        freed = sum(blob["size"] for blob in garbage)
        return {"blobs": garbage, "bytes": freed, "dry_run": body["dry_run"]}

    def post_api_verify(self, state, body: dict) -> Iterator[dict]:
        names = [full(body["model"])] if body.get("model") else list(state.models)
        for name in names:
            self._model(state, name)
        return iter(list(self._verdicts(state, names, repair=bool(body.get("repair")))))

    def _verdicts(self, state, names: list[str], *, repair: bool) -> Iterator[dict]:
        bad = [name for name in names if name in state.bad_files]
        yield {"status": "verifying", "completed": 1, "total": 100}
        for name in names:
            damaged = state.bad_files.get(name)
            record = {"status": "verifying", "model": name, "digest": TARGET["digest"]}
            record |= {
                "file": damaged or "model.safetensors",
                "ok": damaged is None,
                "kind": "target",
            }
            yield record | ({"why": "its digest is another"} if damaged else {})
        for name in bad if repair else ():
            yield {"status": "repairing", "model": name}
            if name not in state.pullable:
                yield {"status": "not repaired", "model": name, "why": "Nobody has its files."}
                continue
            yield from fetched()[1:3]
            del state.bad_files[name]
        repaired = sum(name not in state.bad_files for name in bad)
        yield {"status": "success", "bad": len(bad), "repaired": repaired}

    def post_api_partials(self, state, body: dict) -> dict:
        held = sum(partial["completed"] for partial in state.partials)
        return {"partials": list(state.partials), "bytes": held}

    def delete_api_partials(self, state, body: dict) -> dict:
        freed = sum(partial["completed"] for partial in state.partials)
        state.partials.clear()
        return {"bytes": freed}

    def post_api_import(self, state, body: dict) -> Iterator[dict]:
        self._only_local(body, "store")
        if body["source"] != "ollama":
            raise Refusal(400, "bad_request", "'source' is wrong.")
        names = [body["model"]] if body.get("model") else ["gemma4:e2b", "llama3:8b"]
        records: list[dict] = []
        for name in names:
            records.append({"status": "importing", "model": name})
            if name.startswith("llama"):
                why = "The architecture llama cannot run here."
                records.append({"status": "passed over", "model": name, "why": why})
            else:
                records += fetched()[1:-1]
                state.models[name] = state.stored(name)
        return iter([*records, {"status": "success", "imported": 1}])

    def post_api_export(self, state, body: dict) -> Iterator[dict]:
        self._only_local(body, "path")
        self._model(state, body["model"])
        writing = {"status": "writing model.safetensors", "total": 100, "completed": 100}
        path = Path(body["path"])
        made = [path, path.with_name(f"mtp-{path.name}")]
        if body["format"] == "hf":
            made = [path / "target", path / "drafter"]
        return iter([writing, {"status": "success", "files": list(map(str, made))}])

    def _only_local(self, body: dict, *fields: str) -> None:
        if any(body.get(field) for field in fields) and not self.server.local:
            text = "Files of this machine can be named over its Unix socket only."
            raise Refusal(400, "bad_request", text)
