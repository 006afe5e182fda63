"""What is in memory as records: Ollama's fields of /api/ps with ours beside them, events; pure."""

import math
from collections.abc import Mapping
from dataclasses import asdict

from gemmad.core import Digest, Manifest, digest_hex
from gemmad.dialects.ollama.models import Record, details
from gemmad.dialects.ollama.replies import timestamp
from gemmad.memory.readings import HOST
from gemmad.residency.seen import (
    BudgetSeen,
    CrashSeen,
    DrafterSeen,
    ResidencyEvent,
    ResidencySnapshot,
    ResidentSeen,
)

_FOREVER_S = 292 * 365.25 * 86400  # what Ollama's clients know as "for ever"
_LOG_LINES = 5


def ps(seen: ResidencySnapshot, manifests: Mapping[Digest, Manifest], now_ns: int) -> Record:
    """GET /api/ps: longest remaining lifetime first, as Ollama."""
    lasting = sorted(seen.residents, key=lambda one: one.expires_in_s, reverse=True)
    return {
        "models": [running(one, manifests.get(one.manifest_id), now_ns) for one in lasting],
        "budgets": [_budget(budget) for budget in seen.budgets],
        "queue": [
            {"model": w.name, "priority": w.priority, "waiting_s": round(w.waiting_s, 3)}
            for w in seen.queue
        ],
        "refused": [{"model": one.name, "crashes": _crashes(one.crashes)} for one in seen.refused],
        "totals": asdict(seen.totals),
        "notes": list(seen.notes),
    }


def running(one: ResidentSeen, manifest: Manifest | None, now_ns: int) -> Record:
    """One entry of `models`; `manifest` is what it was loaded from."""
    is_loaded = bool(one.target.device)
    size = one.nbytes if is_loaded or manifest is None else manifest.size
    on_gpu = is_loaded and one.target.device != HOST
    until_ns = now_ns + int(min(one.expires_in_s, _FOREVER_S) * 10**9)
    return {
        "name": one.name,
        "model": one.name,
        "size": size,
        "size_vram": size if on_gpu else 0,
        "digest": digest_hex(one.manifest_id),
        "details": details(manifest) if manifest else {},
        "expires_at": timestamp(until_ns),
        "context_length": one.num_ctx,
        "context_why": one.num_ctx_why,
        "state": one.state,
        "progress": asdict(one.progress) if one.progress else None,
        "device": one.target.device or None,
        "dtype": one.dtype or None,
        "pid": one.pid,
        "slots": one.slots,
        "active": one.users,
        "queued": one.queued,
        "target": {
            "device": one.target.device or None,
            "size": one.target.nbytes,
            "why": one.target.why,
            "layers": [asdict(part) for part in one.target.layers],
        },
        "drafter": _drafter(one.drafter),
        "kv_size": one.kv_bytes,
        "prefix_size": one.prefix_bytes,
        "depth": one.depth,
        "acceptance": list(one.acceptance),
        "tokens_per_second": one.tokens_per_second,
        "crashes": _crashes(one.crashes),
        "notes": list(one.notes),
    }


def _drafter(drafter: DrafterSeen) -> Record:
    return {
        "loaded": drafter.state == "attached",
        "state": drafter.state,
        "device": drafter.device or None,
        "size": drafter.nbytes,
        "note": drafter.why or None,
    }


def _crashes(crashes: CrashSeen | None) -> Record | None:
    if crashes is None:
        return None
    until = crashes.open_until
    return {
        "count": crashes.count,
        "refused_until": None if until is None else timestamp(int(until * 10**9)),
        "reason": crashes.reason,
        "log": list(crashes.log_tail[-_LOG_LINES:]),
    }


def _budget(budget: BudgetSeen) -> Record:
    return {
        "id": budget.id,
        "name": budget.name,
        "total": budget.total,
        "free": budget.free,
        "reserve": budget.reserve,
        "ours": asdict(budget.ours),
        "notes": list(budget.notes),
    }


def event(told: ResidencyEvent) -> Record:
    """One line of /api/events."""
    return {
        "event": told.kind.value,
        "at": timestamp(int(told.at * 10**9)),
        "model": told.model,
        "reason": told.reason,
        "numbers": {name: value for name, value in told.numbers.items() if math.isfinite(value)},
    }


def heartbeat(now_ns: int) -> Record:
    """A line that only says that the stream lives."""
    return {"event": "heartbeat", "at": timestamp(now_ns)}


def state(ps_record: Record, now_ns: int) -> Record:
    """The first line of /api/events: what /api/ps says."""
    return {"event": "state", "at": timestamp(now_ns)} | ps_record
