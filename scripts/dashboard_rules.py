"""Every query of the dashboard as a recording rule, so that promtool can say whether it is PromQL: `dashboard_rules.py > rules.yml`."""

import json
import sys
from pathlib import Path

import yaml

DASHBOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards" / "k2stream.json"


def queries(dashboard: dict) -> list[str]:
    """PromQL of all panels; Grafana's own variable becomes a length that Prometheus knows."""
    return [target["expr"].replace("$__rate_interval", "1m") for panel in dashboard["panels"] for target in panel.get("targets", ())]


if __name__ == "__main__":
    found = queries(json.loads(DASHBOARD.read_text(encoding="utf-8")))
    rules = [{"record": f"dashboard:query_{number}", "expr": query} for number, query in enumerate(found)]
    yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, sys.stdout)
