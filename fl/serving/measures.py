"""What /metrics tells."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fl.serving.gateway import Gateway


@dataclass(frozen=True)
class Measures:
    """What /metrics tells."""

    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram
    rows: Counter
    waiting: Gauge
    release: Gauge
    log: Gauge
    _known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = field(default_factory=dict)
    _known_rows: dict[tuple[str, str], Counter] = field(default_factory=dict)

    def count(self, model: str, version: str, status: int, seconds: float) -> None:
        """A request that was answered. Figures are looked up by their labels once, which takes longer than to add."""
        known = self._known.get((model, version, status))
        if known is None:
            known = self.requests.labels(model, version, str(status)), self.seconds.labels(model)
            self._known[model, version, status] = known
        known[0].inc()
        known[1].observe(seconds)

    def answered(self, model: str, version: str, *, rows: int) -> None:
        """Examples that were answered."""
        known = self._known_rows.get((model, version))
        if known is None:
            known = self._known_rows[model, version] = self.rows.labels(model, version)
        known.inc(rows)

    @classmethod
    def new(cls) -> Measures:
        """A set of its own, so that several applications of one process do not add up."""
        registry = CollectorRegistry()
        return cls(
            registry,
            Counter(
                "meadow_requests",
                "Requests by model, version and status",
                ["model", "version", "status"],
                registry=registry,
            ),
            Histogram("meadow_request_seconds", "Seconds from a request to its answer", ["model"], registry=registry),
            Counter("meadow_rows", "Examples answered", ["model", "version"], registry=registry),
            Gauge("meadow_waiting_rows", "Examples in the queue", registry=registry),
            Gauge(
                "meadow_release",
                "Of the open release, by model, arm and figure",
                ["model", "arm", "figure"],
                registry=registry,
            ),
            Gauge("meadow_log_records", "Of the inference log, by what became of them", ["figure"], registry=registry),
        )

    def look(self, gateway: Gateway) -> None:
        """Set what is not counted as it happens."""
        waiting = gateway.batcher.waiting
        self.release.clear()
        for name, slot in gateway.slots.by_name.items():
            if slot.router is not None:
                for arm, figure, value in slot.router.gauges():
                    self.release.labels(name, arm, figure).set(value)
                waiting += slot.router.waiting
        self.waiting.set(waiting)
        if gateway.log is not None:
            self.log.labels("taken").set(gateway.log.taken)
            self.log.labels("refused").set(gateway.log.refused)
            self.log.labels("lost_before").set(gateway.log.lost_before)
