"""GET /metrics: what was counted and what is in memory now, as Prometheus reads it."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web

from gemmad.residency.seen import ResidencySnapshot
from gemmad.server.counting import Counts, Histogram
from gemmad.server.services import SERVICES

if TYPE_CHECKING:
    from prometheus_client import Metric

Samples = Iterable[tuple[tuple[str, ...], float]]  # label values, value


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics, in Prometheus's text format."""
    services = request.app[SERVICES]
    # 80 ms and 11 MB that a daemon which nobody measures does not need
    library = await asyncio.to_thread(_library)
    found = Exposition(services.counts, services.residency.snapshot(), services.version)
    body: bytes = library.generate_latest(found)
    return web.Response(body=body, headers={"Content-Type": library.CONTENT_TYPE_LATEST})


def _library() -> Any:
    import prometheus_client

    return prometheus_client


class Exposition:
    """One answer to a scrape: a collector, as the library calls it, of numbers counted here."""

    def __init__(self, counts: Counts, seen: ResidencySnapshot, version: str) -> None:
        self._counts = counts
        self._seen = seen
        self._version = version

    def collect(self) -> Iterator["Metric"]:
        """Every metric."""
        yield _gauge("gemma_build", "The daemon's version.", ("version",), [((self._version,), 1)])
        yield from self._of_requests()
        yield from self._of_drafts()
        yield from self._of_residency()
        yield from self._of_memory()

    def _of_requests(self) -> Iterator["Metric"]:
        counts = self._counts
        yield _counter(
            "gemma_requests",
            "Requests by route and status.",
            ("method", "route", "status"),
            [((m, route, str(status)), n) for (m, route, status), n in counts.requests.items()],
        )
        yield _histogram(
            "gemma_wait_seconds",
            "From a request's arrival until its pair was loaded and its turn had come.",
            counts.waits,
        )
        yield _histogram(
            "gemma_first_token_seconds",
            "From a request's arrival to the first piece of its answer.",
            counts.first_token,
        )
        yield _histogram(
            "gemma_inter_token_seconds",
            "Between two pieces of an answer; a piece is the tokens of one round.",
            counts.between,
        )
        yield _counter("gemma_prompt_tokens", "Tokens read.", (), [((), counts.prompt_tokens)])
        yield _counter("gemma_answer_tokens", "Tokens written.", (), [((), counts.answer_tokens)])

    def _of_drafts(self) -> Iterator["Metric"]:
        for name, text, found in (
            ("drafted", "Drafts that were verified, by position.", self._counts.drafted),
            ("accepted", "Drafts that the target accepted, by position.", self._counts.accepted),
        ):
            by_position = [((str(at),), float(count)) for at, count in sorted(found.items())]
            yield _counter(f"gemma_{name}", text, ("position",), by_position)

    def _of_residency(self) -> Iterator["Metric"]:
        counts, seen = self._counts, self._seen
        totals = asdict(seen.totals)
        yield _counter("gemma_loads", "Loads that succeeded.", (), [((), totals["loads"])])
        yield _counter(
            "gemma_load_failures", "Loads that failed.", (), [((), totals["load_failures"])]
        )
        yield _counter("gemma_crashes", "Runners that died.", (), [((), totals["crashes"])])
        yield _counter(
            "gemma_evictions",
            "What had to leave memory for others, and why.",
            ("kind", "reason"),
            [(labels, count) for labels, count in sorted(counts.left.items())],
        )
        yield _counter(
            "gemma_events",
            "Events of residency.",
            ("event",),
            [((kind,), count) for kind, count in sorted(counts.events.items())],
        )
        yield _gauge("gemma_queue_length", "Requests that wait.", (), [((), len(seen.queue))])
        yield _gauge(
            "gemma_active_requests",
            "Requests that are being answered.",
            ("model",),
            [((one.name,), one.users) for one in seen.residents],
        )

    def _of_memory(self) -> Iterator["Metric"]:
        budgets = self._seen.budgets
        yield _gauge(
            "gemma_memory_bytes",
            "Bytes that our pairs take, by device and kind.",
            ("device", "kind"),
            [((b.id, kind), nbytes) for b in budgets for kind, nbytes in asdict(b.ours).items()],
        )
        for name, text in (
            ("total", "Bytes that a device has."),
            ("free", "Bytes that all programs together leave."),
            ("reserve", "Bytes that we leave free."),
        ):
            samples = [((b.id,), getattr(b, name)) for b in budgets]
            yield _gauge(f"gemma_device_{name}_bytes", text, ("device",), samples)


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> "Metric":
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, text, labels=labels)
    return _filled(family, samples)


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> "Metric":
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, text, labels=labels)
    return _filled(family, samples)


def _filled(family: Any, samples: Samples) -> "Metric":
    for labels, value in samples:
        family.add_metric(labels, value)
    filled: Metric = family
    return filled


def _histogram(name: str, text: str, values: Histogram) -> "Metric":
    from prometheus_client.core import HistogramMetricFamily

    return HistogramMetricFamily(name, text, buckets=list(values.cumulative), sum_value=values.sum)
