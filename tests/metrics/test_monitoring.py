"""Names in rules, dashboard and manual are metrics that exist; Prometheus' own tool finds nothing wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

from s3fsx.gateway.meter import FAMILIES
from s3fsx.metrics.catalogue import METRICS
from tests.metrics.promtool import run

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "contrib/monitoring"
MANUAL = ROOT / "docs/MONITORING.md"
DRILL = {
    "s3fsx_drill_success",
    "s3fsx_drill_done",
    "s3fsx_drill_last_run_timestamp_seconds",
    "s3fsx_drill_duration_seconds",
}
SUFFIXES = ("_bucket", "_sum", "_count")


def unknown(text: str) -> set[str]:
    known = {metric.name for metric in METRICS} | DRILL
    known |= {m.name + suffix for m in METRICS if m.kind == "histogram" for suffix in SUFFIXES}
    return set(re.findall(r"\bs3fsx_[a-z0-9_]+", text)) - known


def test_rules_are_right_and_fire_when_they_must() -> None:
    assert "SUCCESS" in run("check", "rules", str(MONITORING / "s3fsx.rules.yml"))
    assert "SUCCESS" in run("test", "rules", str(MONITORING / "s3fsx.rules.test.yml"))


def test_rules_and_dashboard_name_metrics_that_exist() -> None:
    dashboard = json.loads((MONITORING / "s3fsx.dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 10
    assert unknown(" ".join(expressions)) == set()
    assert unknown((MONITORING / "s3fsx.rules.yml").read_text()) == set()
    assert unknown("s3fsx_no_such_thing") == {"s3fsx_no_such_thing"}


def test_the_manual_lists_every_metric_and_alert() -> None:
    manual = MANUAL.read_text()
    for metric in METRICS:
        labels = f" ({', '.join(metric.labels)})" if metric.labels else ""
        assert f"| `{metric.name}`{labels} | {metric.kind} | {metric.help} |" in manual
    for name, kind, help, names in FAMILIES:
        labels = f" ({', '.join(names)})" if names else ""
        assert f"| `{name}`{labels} | {kind} | {help} |" in manual
    alerts = re.findall(r"alert: (\w+)", (MONITORING / "s3fsx.rules.yml").read_text())
    assert [alert for alert in alerts if f"| `{alert}` |" not in manual] == []
    assert re.findall(r"^\| `(S3fsx\w+)` \|", manual, re.MULTILINE) == alerts
