"""Alerts and dashboard ask for metrics that exist: those that a worker and a relay really show."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from consumer import Context
from consumer.events import LabResultEvent, ProgramEvent
from consumer.ops.registry import Listed
from consumer.sources.base import Partitioning, PartitionState
from consumer.sources.local import LocalSource
from tests.conformance.rig import Rig, effect, effects_table, eventually, lab_result, program, signed
from tests.relay_rig import relaying, webhook
from tests.servers.processes import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
RUNBOOK = (DEPLOY.parent / "docs" / "runbook.md").read_text()
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
_FROM_SCRAPES = {"namespace", "job", "instance", "le"}
"""Labels that Prometheus adds, and the one of histograms."""
_EQUAL = (promql_parser.MatchOp.Equal, promql_parser.MatchOp.Re)

Samples = dict[str, list[dict[str, str]]]


class Shared(LocalSource):
    """A queue made of partitions, as an event hub is."""

    def partitioning(self) -> Partitioning:
        owned = [PartitionState("0", 3, datetime.now(UTC), 1.5)]
        return Partitioning(2, owned, stalled=0, changes=1, checkpoint_failures=0)


class _Seen:
    """What was scraped once everything has happened that the metrics speak of."""

    def __init__(self, text: str, listed: list[Listed]) -> None:
        self.text = text
        self.listed = listed

    def samples(self) -> Samples:
        found: Samples = defaultdict(list)
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                found[sample.name].append(dict(sample.labels))
        return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> _Seen:
    """A worker that met everything once, and a relay that took one webhook and refused two."""
    return asyncio.run(_scraped(tmp_path_factory.mktemp("metrics")))


async def _scraped(folder: Path) -> _Seen:
    worker, listed = await _worker(folder)
    async with relaying(folder / "relay") as running:
        await running.post(1)
        await running.ask(webhook(2, X_Signature="0" * 64))
        await running.post(3, X_Signature="")
        relay = running.relay.metrics.render().decode()
        listed += running.relay.metrics.listed
    return _Seen(worker + relay, listed)


async def _worker(folder: Path) -> tuple[str, list[Listed]]:
    table = effects_table()

    @table.on(LabResultEvent)
    async def store(event: LabResultEvent, context: Context) -> None:
        await effect(event, context)

    @table.on(ProgramEvent)
    async def follow(event: ProgramEvent, context: Context) -> None:
        if event.event_id == "canary-gone":
            await context.thrive.fetch(event)
        raise ValueError

    source = {"KIND": f"{__name__}:Shared", "PATH": str(folder / "queue"), "OPTIONS__RETENTION": "4d"}
    platform = {
        "THRIVE__BASE_URL": f"http://127.0.0.1:{free_port()}",
        "THRIVE__TENANT_KEY": "a key",
        "THRIVE__HTTP__ATTEMPTS": "1",
    }
    rig = Rig(folder, source, platform)
    events = [lab_result("canary-1", user_id="canary-2"), program("canary-3")]
    await rig.publish([*(signed(event) for event in events), signed(lab_result("canary-4"), secret="another")])
    async with rig.worker(table) as app:
        await eventually(lambda: all(app.metrics.totals()[name] for name in ("handled", "retried", "dead_letters")))
        await app.backlog.look()
        (intake,) = app.worker.intakes
        intake.pauses.halt("")
        held = [line for line in app.metrics.render().decode().splitlines(keepends=True) if '"operator"' in line]
        intake.pauses.go_on()
        await rig.publish([signed(program("canary-gone"))])
        await eventually(lambda: app.metrics.value("source_paused_info", source="labs", reason="unavailable"))
        return app.metrics.render().decode().replace(_PAUSED, f"{held[0]}{_PAUSED}"), app.metrics.listed


_PAUSED = 'health_consumer_source_paused_info{reason="unavailable"'


def _expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def _parsed(expression: str) -> list[Any]:
    """Every part of an expression; Grafana's variables stand for what it would put there."""
    text = expression.replace("$__rate_interval", "5m").replace("$source", ".*").replace("$job", ".*")
    parts: list[Any] = []
    promql_parser.walk(promql_parser.parse(text), parts.append)
    return parts


def test_every_metric_and_label_exists(seen: _Seen) -> None:
    """Names, labels that are matched or grouped by, and the values that matchers ask for."""
    samples = seen.samples()
    for where, expression in _expressions():
        parts = _parsed(expression)
        selectors = [part for part in parts if isinstance(part, promql_parser.VectorSelector)]
        assert selectors, where
        known = set(_FROM_SCRAPES)
        for selector in selectors:
            assert selector.name in samples, f"{where}: no metric {selector.name}"
            known |= {name for labels in samples[selector.name] for name in labels}
            wanted = [one for one in selector.matchers.matchers if one.name not in _FROM_SCRAPES]
            assert all(_fits(one, samples[selector.name]) for one in wanted), f"{where}: {selector.prettify()}"
        grouped = {
            label
            for part in parts
            if isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None
            for label in part.modifier.labels
        }
        assert grouped <= known, f"{where}: {grouped - known}"


def _fits(matcher: Any, samples: list[dict[str, str]]) -> bool:
    """Whether some sample has the label, with a value that is asked for."""
    having = [labels[matcher.name] for labels in samples if matcher.name in labels]
    if matcher.op == promql_parser.MatchOp.Equal:
        return matcher.value in having
    if matcher.op == promql_parser.MatchOp.Re:
        return any(re.fullmatch(matcher.value, value) for value in having)
    return bool(having)


def test_every_metric_that_is_documented_exists(seen: _Seen) -> None:
    """With the labels it is said to have; and nothing of ours is shown that is not listed."""
    samples = seen.samples()
    ours = {name for name in samples if name.startswith("health_consumer_") and not name.endswith("_created")}
    for one in seen.listed:
        names = [f"{one.name}_{part}" for part in ("bucket", "sum", "count")] if one.kind == "histogram" else [one.name]
        for name in names:
            assert samples.get(name), name
            assert {label for labels in samples[name] for label in labels} - {"le"} == set(one.labels), name
        ours -= set(names)
    assert ours == set()


def test_nothing_of_a_message_is_shown(seen: _Seen) -> None:
    """Neither ids nor users: labels are names from the settings and the code, and words of ours."""
    assert "canary" not in seen.text


def test_every_alert_says_what_it_means() -> None:
    """A severity, two texts, and a page: its section of the runbook, which has no others."""
    anchors = {heading.lower() for heading in re.findall(r"^### (HealthConsumer\w+)$", RUNBOOK, re.MULTILINE)}
    assert {rule["alert"].lower() for rule in RULES} == anchors
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, rule["alert"]
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_the_alerts_are_a_prometheus_rule() -> None:
    """Put under `spec`, the file is one, with no field that the operator does not know."""
    from cloudcoil.models.prometheus_operator import v1

    meta = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "consumer"}}
    rule = v1.PrometheusRule.model_validate({**meta, "spec": ALERTS})
    assert rule.model_dump(mode="json", by_alias=True, exclude_unset=True)["spec"] == ALERTS


def test_every_alert_has_tests() -> None:
    """One that fires it, at least, and one that does not."""
    tests = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yaml").read_text())["tests"]
    fired: dict[str, set[bool]] = defaultdict(set)
    for one in tests:
        for asked in one.get("promql_expr_test", []):
            fired[re.findall(r'alertname="(\w+)"', asked["expr"])[0]].add(bool(asked["exp_samples"]))
    assert fired == {rule["alert"]: {True, False} for rule in RULES}


def test_the_dashboard_can_be_imported() -> None:
    """Its data source is a variable, ids are unique, and no panel covers another or leaves the grid."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        assert grid["x"] + grid["w"] <= 24, panel["title"]
        taken |= cells
    for panel in PANELS:
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(one == {"type": "prometheus", "uid": "${datasource}"} for one in sources), panel["title"]
        assert panel["description"], panel["title"]
    assert {one["name"] for one in DASHBOARD["templating"]["list"]} == {"datasource", "source", "job"}
