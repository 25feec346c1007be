"""Metrics in the text format of Prometheus: counts from events, gauges from the board.

The only module that uses `prometheus_client`. The registry is the exporter's own; the library's
global one stays empty.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from meshllm import __version__
from meshllm.observe.board import RadioState, Snapshot, StorageState, judge
from meshllm.observe.counting import samples_of
from meshllm.observe.families import Family, families
from meshllm.store.space import BYTES_PER_MB

MAX_SERIES: Final = 200  #: label values of one metric; only a bug of ours could make more
_STORAGE_STATES: Final = ("ok", "low", "full", "read_only", "failing")
_SCRAPED_COUNTERS: Final = ("meshllm_radio_connects_total", "meshllm_log_lines_lost_total")
Row = tuple[tuple[str, ...], float]


class Exporter:
    """Everything that one process counts. `note` and `committed` are safe from any thread."""

    content_type: Final = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(
        self, role: str, snapshot: Callable[[], Snapshot], lines_lost: Callable[[], int]
    ) -> None:
        """`snapshot` and `lines_lost` are asked at every scrape."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._counted: dict[str, Counter | Histogram] = {}
        self._series: dict[str, set[tuple[str, ...]]] = {}
        for family in families(role):
            if not _is_scraped(family):
                self._counted[family.name] = _counting(family, self._registry)
        self._registry.register(_Scraped(role, snapshot, lines_lost))
        ProcessCollector(registry=self._registry)

    def note(self, event: Mapping[str, object]) -> None:
        """Count one event."""
        for name, labels, amount in samples_of(event):
            self._add(name, labels, amount)

    def committed(self, seconds: float, is_done: bool) -> None:
        """Count one replacing of a file."""
        if is_done:
            self._add("meshllm_commit_seconds", (), seconds)
        else:
            self._add("meshllm_commit_failures_total", (), 1.0)

    def render(self) -> bytes:
        """Return the page that a scraper reads."""
        return generate_latest(_Plain(self._registry))

    def _add(self, name: str, labels: tuple[str, ...], amount: float) -> None:
        metric = self._counted.get(name)
        if metric is None:
            return  # of the other process's events
        known = self._series.setdefault(name, set())
        if labels not in known:
            if len(known) >= MAX_SERIES:
                return
            known.add(labels)
        child = metric.labels(*labels) if labels else metric
        if isinstance(child, Histogram):
            child.observe(amount)
        else:
            child.inc(amount)


def _is_scraped(family: Family) -> bool:
    """Say whether a metric is read from what the process knows, instead of counted by events."""
    return family.kind == "gauge" or family.name in _SCRAPED_COUNTERS


def _counting(family: Family, registry: CollectorRegistry) -> Counter | Histogram:
    if family.kind == "counter":
        return Counter(family.name, family.help, family.labels, registry=registry)
    return Histogram(
        family.name, family.help, family.labels, registry=registry, buckets=family.buckets
    )


class _Plain(Collector):
    """The registry without the time of birth of each series: twice the page, for nobody."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


class _Scraped(Collector):
    """What is read from the board at each scrape."""

    def __init__(
        self, role: str, snapshot: Callable[[], Snapshot], lines_lost: Callable[[], int]
    ) -> None:
        self._role = role
        self._snapshot = snapshot
        self._lines_lost = lines_lost
        self._families = [family for family in families(role) if _is_scraped(family)]

    def collect(self) -> Iterable[Metric]:
        rows = dict(self._rows(self._snapshot()))
        return [_metric(family, rows.get(family.name, [])) for family in self._families]

    def _rows(self, seen: Snapshot) -> Iterator[tuple[str, list[Row]]]:
        verdict = judge(self._role, seen)
        version: Row = ((__version__,), 1.0)
        yield "meshllm_build_info", [version]
        yield "meshllm_live", [((), float(verdict.live))]
        yield "meshllm_ready", [((), float(verdict.ready))]
        yield "meshllm_log_lines_lost_total", [((), float(self._lines_lost()))]
        if seen.storage is not None:
            yield from _storage_rows(seen.storage)
        if seen.agent is not None:
            yield "meshllm_model_ready", [((), float(seen.agent.may_call))]
            yield "meshllm_questions_open", [((), float(seen.agent.questions_open))]
            yield "meshllm_questions_oldest_seconds", [((), seen.agent.oldest_s)]
        yield from _radio_rows(seen.radios)


def _storage_rows(storage: StorageState) -> Iterator[tuple[str, list[Row]]]:
    states: list[Row] = [((s,), float(s == storage.state)) for s in _STORAGE_STATES]
    yield "meshllm_storage_state", states
    if storage.free_mb is not None:
        yield "meshllm_disk_free_bytes", [((), float(storage.free_mb * BYTES_PER_MB))]


def _radio_rows(radios: Mapping[int, RadioState]) -> Iterator[tuple[str, list[Row]]]:
    def each(read: Callable[[RadioState], float | None], *labels: str) -> list[Row]:
        values = [(place, read(radio)) for place, radio in sorted(radios.items())]
        return [((str(n), *labels), float(value)) for n, value in values if value is not None]

    yield "meshllm_radio_up", each(lambda radio: radio.is_up)
    yield "meshllm_radio_connects_total", each(lambda radio: radio.connects)
    yield "meshllm_messages_unwritten", each(lambda radio: radio.unwritten)
    waiting, held = each(lambda radio: radio.waiting, "waiting"), each(lambda r: r.held, "held")
    yield "meshllm_queue_rows", waiting + held
    yield "meshllm_queue_oldest_seconds", each(lambda radio: radio.oldest_s)
    yield "meshllm_airtime_last_hour_seconds", each(lambda radio: radio.own_airtime_s)
    yield "meshllm_channel_use_ratio", each(lambda radio: radio.channel_use)
    yield "meshllm_air_transmit_ratio", each(lambda radio: radio.air_transmit)


def _metric(family: Family, rows: list[Row]) -> Metric:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric: CounterMetricFamily | GaugeMetricFamily = kind(
        family.name, family.help, labels=family.labels
    )
    for labels, value in rows:
        metric.add_metric(labels, value)
    return metric
