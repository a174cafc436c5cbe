"""The files that run k2stream elsewhere name settings, commands and metrics that exist, and give nobody a password."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from prometheus_client.parser import text_string_to_metric_families

from k2stream import metrics
from k2stream.cli import app
from k2stream.settings import Settings
from k2stream.topics.files import declared_topics

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
KUBERNETES = ROOT / "deploy" / "kubernetes"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "k2stream.json"
DEFAULTS = {f"K2_{name.upper()}": field.default for name, field in Settings.model_fields.items()}
ONCE = {"bucket-init", "topics-init", "feed"}
"""Services that end."""

Json = dict[str, Any]


def manifests() -> list[Json]:
    return [part for path in sorted(KUBERNETES.rglob("*.yaml")) for part in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def manifest(kind: str) -> Json:
    return next(m for m in manifests() if m.get("kind") == kind)


def services() -> dict[str, Json]:
    found: dict[str, Json] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def commands_of(value: object) -> Iterator[list[str]]:
    """Every list of words that begins with k2, wherever it stands."""
    if isinstance(value, list) and value and value[0] == "k2":
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from commands_of(inner)


def milliseconds(seconds: str) -> int:
    return 1000 * int(seconds.removesuffix("s"))


@pytest.mark.parametrize("path", [COMPOSE, ROOT / "Dockerfile", *sorted(KUBERNETES.rglob("*.yaml"))], ids=lambda p: p.name)
def test_every_setting_named_exists(path: Path) -> None:
    """A variable that k2stream does not know is ignored, and what it was to say goes unsaid."""
    assert set(re.findall(r"\bK2_[A-Z0-9_]+", path.read_text(encoding="utf-8"))) - DEFAULTS.keys() == set()


def test_every_command_exists() -> None:
    """Of compose, of Kubernetes and of the image."""
    image = re.findall(r"^CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    found = [*commands_of(services()), *commands_of(manifests()), *commands_of([json.loads(c) for c in image])]
    assert len(found) >= 5
    for _, *words in found:
        command: Any = typer.main.get_group(app)
        for word in takewhile(lambda word: not word.startswith("-"), words):
            assert word in getattr(command, "commands", {}), f"k2 {' '.join(words)}"
            command = command.commands[word]
        assert not getattr(command, "commands", None), f"k2 {' '.join(words)} is a group"


def test_nobody_gets_a_password() -> None:
    """Each secret must be given, with a sentence that says how; .env.example names exactly those, and gives none."""
    text = COMPOSE.read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{([A-Z0-9_]+):\?run `make env` first\}", text))
    assert set(re.findall(r"(?<!\$)\$\{?([A-Z0-9_]+)", text)) == asked
    example = [line for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert {line.removesuffix("=") for line in example} == asked
    for name, service in services().items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"(PASSWORD|SECRET|_KEY|TOKEN|AUTH)$", variable):
                assert ":?" in value, f"{name}: {variable}"


def test_env_is_random_private_and_written_once(tmp_path: Path) -> None:
    """Two passwords that are equal, a file that others read, or one that is overwritten would each cost somebody a service."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/env.sh", ".env.example"):
        shutil.copy(ROOT / name, tmp_path / name)
    for _ in range(2):
        subprocess.run(["sh", str(tmp_path / "scripts" / "env.sh")], check=True, capture_output=True)
        written = (tmp_path / ".env").read_text()
        values = re.findall(r"^[A-Z0-9_]+=(.*)$", written, re.MULTILINE)
        assert len(set(values)) == len(values) == 6
        assert {len(value) for value in values} == {40}, "MinIO takes up to 40"
    assert (tmp_path / ".env").read_text() == written
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", services())
def test_a_service_is_pinned_bounded_and_watched(name: str) -> None:
    """An image that changes by itself, a service that takes the machine, or one that others wait for in vain."""
    service = services()[name]
    assert re.search(r":[\w.-]*\d[\w.-]*$|^k2stream:local$", service["image"])
    assert {"mem_limit", "cpus"} <= service.keys()
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    if name not in ONCE and "build" not in service:  # ours has the image's own
        assert service["healthcheck"]["test"]
        assert service["restart"] == "unless-stopped"


def test_workers_can_be_many() -> None:
    """A port of the host, a name or a volume that they share would make the second one fail."""
    worker = services()["worker"]
    assert {"ports", "container_name", "network_mode"} & worker.keys() == set()
    assert worker["volumes"] == ["/var/lib/k2stream"]
    assert milliseconds(worker["stop_grace_period"]) > DEFAULTS["K2_REVOKE_TIMEOUT_MS"]


def test_who_is_waited_for_has_a_health_check_or_ends() -> None:
    """`condition: service_healthy` without a check waits for ever."""
    everyone = services()
    for name, service in everyone.items():
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in ONCE else "service_healthy"
            assert how["condition"] == expected, f"{name} waits for {other}"


def test_the_image_holds_what_it_runs_and_no_tools() -> None:
    """Agents and tables are not in the wheel; a compiler in the last stage is for whoever breaks in."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    last = text[text.rindex("\nFROM ") :]
    assert {"agents", "tables"} <= set(re.findall(r"^COPY (\w+) ", last, re.MULTILINE))
    assert "apt-get" not in last
    assert re.search(r"^USER 10001$", last, re.MULTILINE)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    copied = {source for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for source in line.split()}
    assert copied <= kept
    assert len(set(re.findall(r"^FROM (\S+)", text, re.MULTILINE))) == 1, "one base, or a wheel is built for another"


def test_kubernetes_lists_its_files() -> None:
    """A manifest that the kustomization forgets is applied by nobody; the example of a secret must not be."""
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(manifest("Kustomization")["resources"]) == files - {"secret.example.yaml"}


def test_a_pod_has_time_to_hand_over_and_no_rights() -> None:
    """Killed before its window is committed, its successor reads the window again."""
    settings = manifest("ConfigMap")["data"]
    spec = manifest("StatefulSet")["spec"]["template"]["spec"]
    assert 1000 * spec["terminationGracePeriodSeconds"] > int(settings["K2_REVOKE_TIMEOUT_MS"]) + int(settings["K2_SESSION_TIMEOUT_MS"])
    for pod in (spec, manifest("Job")["spec"]["template"]["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["limits"].keys() == {"cpu", "memory"}


def test_kubernetes_does_not_restart_a_worker_for_a_service_that_is_gone() -> None:
    """/healthz is red while Kafka is away: as a liveness probe it would turn an outage into a storm of rebalances."""
    (worker,) = manifest("StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert worker["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert worker["readinessProbe"]["httpGet"]["path"] == "/healthz"


def test_scaling_ends_where_partitions_do() -> None:
    """A worker more than partitions reads nothing; the metric it scales by is one that the adapter serves and a worker shows."""
    scaler = manifest("HorizontalPodAutoscaler")["spec"]
    topics = declared_topics(Settings(topics_file=str(ROOT / "config" / "topics.yaml")))
    assert scaler["maxReplicas"] <= max(topic.partitions for topic in topics if ".trades." in topic.name)
    metric = scaler["metrics"][0]["pods"]["metric"]["name"]
    adapter = yaml.safe_load((KUBERNETES / "monitoring" / "adapter-values.yaml").read_text(encoding="utf-8"))
    assert [rule["name"]["matches"] for rule in adapter["rules"]["custom"]] == [f"^{metric}$"]
    assert metric in shown()


def shown() -> set[str]:
    """Names of all series that a worker may show."""
    names = set()
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


def asked(query: str) -> set[str]:
    """Names of series that a query reads: words of ours and of the client's that no other syntax has."""
    return set(re.findall(r"\b(?:k2|process)_\w+", query))


def queries() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").partition("## What to ask")[2].partition("\n## ")[0]
    return [
        *(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())),
        *(rule["expr"] for rule in rules),
        *re.findall(r"\| `(.+)` \|$", page, re.MULTILINE),
    ]


def test_what_is_watched_is_measured() -> None:
    """A panel or an alert over a metric that nobody shows is always quiet."""
    assert len(queries()) > 40
    assert {query: asked(query) - shown() for query in queries() if asked(query) - shown()} == {}


def test_what_is_measured_is_watched() -> None:
    """Every metric of our own stands in the dashboard, an alert or the page's questions, or nobody ever looks."""
    families = {family.name for family in text_string_to_metric_families(metrics.exposition().decode()) if family.name.startswith("k2_")}
    everywhere = " ".join(queries())
    assert {name for name in families if name not in everywhere} == set()


def test_every_alert_is_made_to_fire() -> None:
    """promtool runs these cases in `make check-deploy`; an alert without one may never have fired anywhere."""
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    cases = yaml.safe_load((ALERTS.parent / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    tried = [(case["alertname"], bool(case["exp_alerts"])) for test in cases for case in test["alert_rule_test"]]
    assert {(rule["alert"], fires) for rule in rules for fires in (True, False)} == set(tried)


def test_every_alert_says_what_to_do() -> None:
    """Somebody is woken by its name, and looks for it on the page of metrics."""
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(K2\w+)` \|", page, re.MULTILINE) == [rule["alert"] for rule in rules]


def test_panels_lie_side_by_side() -> None:
    """Two panels with one number or on one place show one of them."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    squares = [(x, y) for p in panels for g in [p["gridPos"]] for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])]
    assert len(set(squares)) == len(squares)
    assert all(panel["type"] == "row" or panel["description"] for panel in panels)


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_a_checker_that_is_missing_is_named_and_on_ci_a_failure(tmp_path: Path, ci: str, code: int) -> None:
    """A check that is left out in silence holds nothing; the rest of them still run."""
    for tool in ("sh", "dirname", "mktemp", "rm", "find"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    environment = {"PATH": str(tmp_path), "CI": ci}
    done = subprocess.run(["sh", str(ROOT / "scripts" / "check_deploy.sh")], env=environment, capture_output=True, text=True, check=False)
    assert "lacks docker-compose promtool: make services S=deploy" in done.stderr
    assert done.returncode == code, done.stderr


def test_the_dashboards_queries_can_be_had_as_rules() -> None:
    """What `make check-deploy` gives to promtool."""
    done = subprocess.run([sys.executable, "scripts/dashboard_rules.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    rules = yaml.safe_load(done.stdout)["groups"][0]["rules"]
    assert len(rules) > 30
    assert all("$" not in rule["expr"] for rule in rules)
