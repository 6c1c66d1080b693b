"""What images, manifests and the files beside them say of this project is so.

`deploy/check.sh` checks their form, against the schemas of those who read them.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import runpy
import socket
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import dashboard, image
from server import __version__, config
from server.http.capacity import Uploads
from server.metrics import EngineEvents, EngineLoad, Metrics
from tests.bundles import TINY_BUNDLE
from tests.sources import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = sorted(ROOT.glob("compose*.yaml"))
TEXTS = [
    path
    for path in [*COMPOSE, ROOT / "Dockerfile", *DEPLOY.rglob("*"), *(ROOT / ".github").rglob("*")]
    if path.suffix in (".yaml", ".yml", ".json", ".conf", ".service", ".py", ".md", ".sh") or path.name == "Dockerfile"
]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SETTINGS = {name for name, _, _ in config.describe()}
DEFAULTS = {name: default for name, default, _ in config.describe()}


def load(*path: str) -> Any:
    return yaml.safe_load((ROOT.joinpath(*path)).read_text("utf-8"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Metrics


@pytest.fixture(scope="module")
def metrics() -> dict[str, set[str]]:
    """The labels of every series that a server has once it has spoken, by the name of the series."""
    counted = Metrics()
    events = EngineEvents(counted, "m")
    for happened in (events.runaway, events.retried, events.cancelled):
        happened()
    events.queued(1)
    events.prefilled(1)
    events.frame_made(1, 1)
    counted.request("m", "mp3", "done", "key1")
    counted.speech("m", audio_seconds=1, ttfa_seconds=1, rtf=1)
    counted.answered(200)
    counted.model_loaded("m", 1)
    counted.model_unloaded("m", "idle")
    counted.watch(lambda: {"m": EngineLoad(1, 1)})
    series: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(counted.text().decode()):
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    return series


GIVEN = {"job", "instance", "namespace", "pod"}
"""Labels that Prometheus gives a series."""


def selectors(query: str) -> list[tuple[str, set[str]]]:
    """The series that a query reads, and the labels that it names there."""
    found = re.findall(r"\b((?:qwen3_tts|process)_\w+)(?:\{([^}]*)\})?", query)
    return [(name, set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\s*\"", inside))) for name, inside in found]


@pytest.mark.parametrize("title, query", [(title, query) for title, query in dashboard.queries()])
def test_the_dashboard_asks_for_metrics_that_there_are(metrics: dict[str, set[str]], title: str, query: str) -> None:
    read = selectors(query)
    assert read
    for name, labels in read:
        assert name in metrics
        assert labels <= metrics[name] | GIVEN
        for grouped in re.findall(r"by \(([^)]*)\)", query):
            assert set(re.findall(r"\w+", grouped)) <= metrics[name] | GIVEN


def test_the_dashboard_chooses_by_metrics_that_there_are(metrics: dict[str, set[str]]) -> None:
    for variable in dashboard.BOARD["templating"]["list"]:
        if variable["type"] == "query":
            name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            assert label in metrics[name] | GIVEN


def test_every_metric_is_on_the_dashboard(metrics: dict[str, set[str]]) -> None:
    shown = {name for _, query in dashboard.queries() for name, _ in selectors(query)}
    for name in metrics:
        if name.startswith("qwen3_tts_") and not name.endswith(("_sum", "_count", "_created")):
            assert name in shown | {"qwen3_tts_frames_total", "qwen3_tts_model_load_seconds_bucket"}


def test_pods_are_scaled_by_a_metric_that_the_adapter_makes(metrics: dict[str, set[str]]) -> None:
    (rule,) = load("deploy", "kubernetes", "prometheus-adapter.yaml")["rules"]["custom"]
    scaler = load("deploy", "kubernetes", "autoscaler.yaml")["spec"]
    (metric,) = scaler["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    read = selectors(rule["seriesQuery"]) + selectors(rule["metricsQuery"])
    assert {name for name, _ in read} == {"qwen3_tts_queue_depth", "qwen3_tts_rows_running"} <= set(metrics)
    rows = environment_of_pods()["KW_MAX_ROWS"]
    assert 0 < int(metric["pods"]["target"]["averageValue"]) < int(rows)


# Ray


def ray_application(config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The only application of a configuration of Ray Serve, and its only deployment."""
    (application,) = config["applications"]
    (deployment,) = application["deployments"]
    return application, deployment


def test_ray_lets_a_replica_have_what_it_takes() -> None:
    application, deployment = ray_application(load("deploy", "ray", "serve.yaml"))
    module, _, name = application["import_path"].partition(":")
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8")
    assert re.search(rf'^{name} = serve\.deployment\(name="{deployment["name"]}"\)', source, re.MULTILINE)
    options = deployment["ray_actor_options"]
    settings = options["runtime_env"]["env_vars"]
    rows, queue = int(settings["KW_MAX_ROWS"]), int(settings["KW_MAX_QUEUE"])
    assert deployment["max_ongoing_requests"] == rows + queue
    assert 0 < deployment["autoscaling_config"]["target_ongoing_requests"] <= rows
    assert int(settings["KW_THREADS"]) == options["num_cpus"]
    assert deployment["graceful_shutdown_timeout_s"] > float(DEFAULTS["KW_DRAIN_SECONDS"])


def test_the_ray_of_kubernetes_has_the_same_application_and_room_for_it() -> None:
    service = load("deploy", "kubernetes", "rayservice.yaml")["spec"]
    config = yaml.safe_load(service["serveConfigV2"])
    served = load("deploy", "ray", "serve.yaml")
    del served["http_options"]
    assert config == served
    _, deployment = ray_application(config)
    cluster = service["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    scaling, pod = deployment["autoscaling_config"], workers["template"]["spec"]
    assert (workers["minReplicas"], workers["maxReplicas"]) == (scaling["min_replicas"], scaling["max_replicas"])
    (worker,) = pod["containers"]
    assert float(worker["resources"]["limits"]["cpu"]) == deployment["ray_actor_options"]["num_cpus"]
    assert pod["terminationGracePeriodSeconds"] > deployment["graceful_shutdown_timeout_s"]
    key = deployment["ray_actor_options"]["runtime_env"]["env_vars"]["KW_SECRET_API_KEY_FILE"]
    assert [mount["mountPath"] for mount in worker["volumeMounts"]] == [str(PurePosixPath(key).parent)]
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert head["image"] == worker["image"]


def test_everybody_means_the_same_ray() -> None:
    (locked,) = re.findall(r"^ray==([\d.]+)", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    image = (DEPLOY / "ray" / "Dockerfile").read_text("utf-8")
    assert f"rayproject/ray:{locked}-py" in image
    assert load("deploy", "kubernetes", "rayservice.yaml")["spec"]["rayClusterConfig"]["rayVersion"] == locked
    (extra,) = PROJECT["project"]["optional-dependencies"]["ray"][-1:]
    assert extra.startswith("ray[data,serve]")


# Settings, ports, times


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_settings_that_are_named_exist(path: Path) -> None:
    assert set(re.findall(r"\bKW_[A-Z_]+[A-Z]\b", path.read_text("utf-8"))) <= SETTINGS


def container() -> dict[str, Any]:
    (only,) = load("deploy", "kubernetes", "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    return only


def environment_of_pods() -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container()["env"]}


def seconds(text: object) -> float:
    return float(re.fullmatch(r"(\d+)s?", str(text))[1])


def test_whoever_stops_the_server_waits_until_it_has_drained() -> None:
    drained = float(DEFAULTS["KW_DRAIN_DELAY_SECONDS"]) + float(DEFAULTS["KW_DRAIN_SECONDS"])
    assert seconds(load("compose.yaml")["services"]["server"]["stop_grace_period"]) > drained
    assert seconds(load("deploy", "home_assistant", "config.yaml")["timeout"]) > drained
    unit = (DEPLOY / "systemd" / "qwen3-tts.service").read_text("utf-8")
    assert seconds(re.search(r"^TimeoutStopSec=(.*)$", unit, re.MULTILINE)[1]) > drained
    pods = environment_of_pods()
    grace = load("deploy", "kubernetes", "deployment.yaml")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > float(pods["KW_DRAIN_DELAY_SECONDS"]) + float(pods["KW_DRAIN_SECONDS"])


def test_nginx_is_more_patient_than_the_server() -> None:
    text = (DEPLOY / "nginx.conf").read_text("utf-8")
    waits = dict(re.findall(r"^\s*(proxy_send_timeout|send_timeout) (\d+)s;", text, re.MULTILINE))
    assert len(waits) == 2
    assert min(map(float, waits.values())) > float(DEFAULTS["KW_REQUEST_TIMEOUT"])


def test_the_pages_tell_nginx_what_its_file_does() -> None:
    """Three lines without which it breaks streams: each page has all of them, with the values of the file."""
    needed = {"proxy_http_version", "proxy_buffering", "proxy_read_timeout"}
    directive = re.compile(r"(proxy_\w+) ([\w.]+);")
    used = dict(directive.findall((DEPLOY / "nginx.conf").read_text("utf-8")))
    for page in (ROOT / "README.md", ROOT / "docs" / "operations.md"):
        told = dict(directive.findall(page.read_text("utf-8")))
        assert told == {name: used[name] for name in needed}, page.name


def test_nginx_takes_the_largest_body_that_the_server_takes() -> None:
    text = (DEPLOY / "nginx.conf").read_text("utf-8")
    (megabytes,) = re.findall(r"^\s*client_max_body_size (\d+)m;", text, re.MULTILINE)
    longest = Uploads(config.Settings().max_reference).longest
    assert int(megabytes) << 20 > longest
    (said,) = re.findall(r"says its limit: (\d+) MB", text)
    assert int(said) * 1_000_000 >= longest > (int(said) - 1) * 1_000_000


def test_voices_survive_a_container() -> None:
    compose = load("compose.yaml")
    server = compose["services"]["server"]
    folder = server["environment"]["KW_VOICES_DIR"]
    assert f"voices:{folder}" in server["volumes"]
    assert "voices" in compose["volumes"]
    made = re.search(r"^RUN install --directory --mode=0775 --owner=10001 (.*)$", DOCKERFILE, re.MULTILINE)[1]
    assert folder in made.split()


def test_nobody_reads_one_replica_s_metrics_through_nginx() -> None:
    text = (DEPLOY / "nginx.conf").read_text("utf-8")
    (hidden,) = re.findall(r"location ~ (\S+) {\s*return 404;", text)
    assert [path for path in ("/metrics", "/metrics/", "/metrics/x", "/v1/metrics") if re.search(hidden, path)] == [
        "/metrics",
        "/metrics/",
    ]


def test_prometheus_sends_the_key_to_no_pod_of_another_namespace() -> None:
    (scraped,) = load("deploy", "kubernetes", "prometheus.yaml")["scrape_configs"]
    (found,) = scraped["kubernetes_sd_configs"]
    assert "authorization" in scraped and found["namespaces"] == {"own_namespace": True}
    labels = load("deploy", "kubernetes", "service.yaml")["spec"]["selector"].items()
    assert found["selectors"] == [{"role": "pod", "label": "=".join(*labels)}]


def test_everybody_means_the_port_that_the_server_listens_on() -> None:
    port = int(DEFAULTS["KW_PORT"])
    assert load("compose.yaml")["services"]["server"]["ports"] == [f"${{KW_PORT:-{port}}}:{port}"]
    assert [each["containerPort"] for each in container()["ports"]] == [port]
    assert re.search(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)[1].split() == [str(port), "10200"]
    (scraped,) = load("deploy", "observability", "prometheus.yaml")["scrape_configs"]
    assert scraped["dns_sd_configs"] == [{"names": ["server"], "type": "A", "port": port}]
    speech = load("compose.open-webui.yaml")["services"]["open-webui"]["environment"]
    assert speech["AUDIO_TTS_OPENAI_API_BASE_URL"] == f"http://server:{port}/v1"


def test_manifests_mean_each_other() -> None:
    deployment, service, disruption, scaler = (
        load("deploy", "kubernetes", f"{name}.yaml") for name in ("deployment", "service", "disruption", "autoscaler")
    )
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert disruption["spec"]["selector"]["matchLabels"] == labels
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (image_name,) = load("deploy", "kubernetes", "kustomization.yaml")["images"]
    assert image_name["name"] == container()["image"]
    mounts = {mount["mountPath"] for mount in container()["volumeMounts"]}
    assert str(PurePosixPath(environment_of_pods()["KW_SECRET_API_KEY_FILE"]).parent) in mounts


@pytest.mark.parametrize("path", COMPOSE, ids=named)
def test_files_that_compose_mounts_are_there(path: Path) -> None:
    for service in load(path.name)["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./deploy"):
                assert (ROOT / source).is_file()


# The image


def stage(name: str) -> str:
    return re.search(rf"^FROM \S+ AS {name}$(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)[1]


def copied(name: str) -> list[str]:
    """What a stage copies from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.*)$", stage(name), re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def is_ignored(path: str) -> bool:
    """Whether .dockerignore leaves a file out: the last line counts that is about it or a folder around it."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").removeprefix("**/")
            around = [path, *map(str, PurePosixPath(path).parents)]
            names = PurePosixPath(path).parts if "**/" in line else around
            if any(fnmatch(name, pattern) for name in names):
                ignored = not line.startswith("!")
    return ignored


def needed_by_the_wheel() -> list[str]:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    files = ["pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]
    files += [PROJECT["tool"]["hatch"]["version"]["path"], *wheel["force-include"]]
    return files + [str(path.relative_to(ROOT)) for name in wheel["packages"] for path in (ROOT / name).rglob("*.py")]


def test_the_image_is_built_of_all_that_the_wheel_needs() -> None:
    sources = [*copied("wheel"), *copied("runtime")]
    for path in [*needed_by_the_wheel(), "constraints.txt", "deploy/healthcheck.py"]:
        assert (ROOT / path).is_file()
        assert any(path == source or path.startswith(f"{source}/") for source in sources), path
        assert not is_ignored(path), path


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".venv/bin/python",
        ".cache/x",
        "tests/sources.py",
        f"models/{TINY_BUNDLE.name}/checkpoint/model.safetensors",
        "models/qwen3_tts_0_6b_customvoice/talker.onnx_data",
        "server/__pycache__/log.cpython-311.pyc",
    ],
)
def test_the_build_gets_nothing_else(path: str) -> None:
    assert is_ignored(path)


def test_the_image_is_tried_on_the_debian_that_it_has() -> None:
    base = re.search(r"^ARG PYTHON_IMAGE=(.*)$", DOCKERFILE, re.MULTILINE)[1]
    assert base.endswith(f"-slim-{image.SUITE}")
    assert f"--base {base}" in (ROOT / ".github/workflows/test.yml").read_text("utf-8")


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers every GET with the server's `status`, and keeps what is posted."""

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.end_headers()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.posted.append((self.path, self.headers["authorization"], body))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(status: int) -> Iterator[http.server.HTTPServer]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
    server.status, server.posted = status, []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("status, code", [(200, 0), (503, 1), (401, 1)])
@pytest.mark.parametrize("host", ["", "0.0.0.0", "127.0.0.1", " [127.0.0.1] "])
def test_the_health_check(monkeypatch: pytest.MonkeyPatch, status: int, code: int, host: str) -> None:
    check = runpy.run_path(str(DEPLOY / "healthcheck.py"))["main"]
    with answering(status) as server:
        monkeypatch.setenv("KW_PORT", str(server.server_port))
        monkeypatch.setenv("KW_HOST", host)
        assert check() == code


def test_the_health_check_of_a_server_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("KW_PORT", str(taken.getsockname()[1]))
    assert runpy.run_path(str(DEPLOY / "healthcheck.py"))["main"]() == 1
    assert "refused" in capsys.readouterr().out


# Home Assistant's add-on


ADDON = load("deploy", "home_assistant", "config.yaml")
START = runpy.run_path(str(DEPLOY / "home_assistant" / "start.py"))


def test_every_option_of_the_addon_is_a_setting() -> None:
    assert {f"KW_{name.upper()}" for name in ADDON["schema"]} <= SETTINGS
    assert set(ADDON["options"]) <= set(ADDON["schema"])
    assert load("deploy", "home_assistant", "translations", "en.yaml")["configuration"].keys() == ADDON["schema"].keys()


def test_options_become_settings() -> None:
    settings = START["settings_of"]({**ADDON["options"], "secret_api_key": "s", "model": "", "threads": 2})
    assert settings == {
        "KW_SECRET_API_KEY": "s",
        "KW_MAX_ROWS": str(ADDON["options"]["max_rows"]),
        "KW_THREADS": "2",
        "KW_WYOMING_URI": "tcp://0.0.0.0:10200",
        "KW_WYOMING_ANNOUNCE": "off",
    }
    assert "10200/tcp" in ADDON["ports"]


def test_the_supervisor_is_told_of_a_server_that_listens() -> None:
    with answering(200) as supervisor, socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        START["announce"](f"http://127.0.0.1:{supervisor.server_port}", "token", port)
        told = {"service": ADDON["discovery"][0], "config": {"uri": f"tcp://{socket.gethostname()}:{port}"}}
        assert supervisor.posted == [("/discovery", "Bearer token", told)]


def test_a_supervisor_that_refuses_and_a_server_that_never_listens_are_errors() -> None:
    with answering(400) as supervisor, socket.create_server(("127.0.0.1", 0)) as listening:
        url, port = f"http://127.0.0.1:{supervisor.server_port}", listening.getsockname()[1]
        with pytest.raises(OSError, match="400"):
            START["announce"](url, "token", port)
        listening.close()
        with pytest.raises(OSError, match="refused"):
            START["announce"](url, "token", port, patience=0)


# Versions


def test_versions_agree() -> None:
    assert ADDON["version"] == __version__
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    (ruff,) = re.findall(r"^ruff==(.*)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    hooks = {hook["repo"].rpartition("/")[2]: hook.get("rev") for hook in load(".pre-commit-config.yaml")["repos"]}
    assert hooks["ruff-pre-commit"] == f"v{ruff}"
    assert f"check-jsonschema=={hooks['check-jsonschema']} " in (DEPLOY / "check.sh").read_text("utf-8")


def requirements() -> list[Requirement]:
    project = PROJECT["project"]
    stated = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    return [Requirement(text) for text in stated]


def locked() -> dict[str, set[str]]:
    """Versions by package; there are several where they differ between Pythons or systems."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if match := re.match(r"([a-z0-9-]+)==([^ ;]+)", line):
            found.setdefault(match[1], set()).add(match[2])
    return found


@pytest.mark.parametrize("name", ["sanic", "av", "onnxruntime", "onnxruntime-gpu", "tokenizers", "wyoming", "ray"])
def test_what_the_server_builds_on_closely_has_an_upper_bound(name: str) -> None:
    found = [requirement for requirement in requirements() if requirement.name == name]
    assert found
    for requirement in found:
        assert any(spec.operator in ("<", "==") for spec in requirement.specifier), requirement


def test_every_requirement_is_locked_to_a_version_that_it_allows() -> None:
    versions = locked()
    for requirement in requirements():
        if requirement.name != PROJECT["project"]["name"]:
            # Where Pythons or extras differ, each line of the lock has a version of its own.
            assert any(
                requirement.specifier.contains(one) for one in versions[requirement.name.lower().replace("_", "-")]
            ), requirement


def installs(target: str, folder: Path, *, driver: bool) -> list[str]:
    """What `make` would have pip install, on a machine with an NVIDIA driver or without."""
    programs = folder / "programs"
    programs.mkdir()
    for name, prints in (("nvidia-smi", ""), ("uname", "echo x86_64")):
        (programs / name).write_text(f"#!/bin/sh\n{prints}\n")
        (programs / name).chmod(0o755)
    command = ["make", "--dry-run", "--no-print-directory", f"VENV={folder / 'venv'}", target]
    if not driver:
        command.append("HAS_CUDA=")
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if " pip " in line and " install " in line]


@pytest.mark.parametrize("driver", [False, True])
@pytest.mark.parametrize("target", ["tools", "python-tools", "test-tools", "export-tools", "serve"])
def test_make_installs_what_is_locked_and_torch_for_the_machine(target: str, driver: bool, tmp_path: Path) -> None:
    lines = installs(target, tmp_path, driver=driver)
    for line in lines:
        alone = "--no-deps" in line or "--upgrade pip" in line or line.endswith("torch==2.13.0")
        assert alone or "--constraint constraints.txt" in line, line
    ours = [line for line in lines if "-e '.[" in line]
    assert ours
    assert all(f"[{'cuda' if driver else 'cpu'}," in line for line in ours)
    torch = [line for line in lines if line.endswith("torch==2.13.0")]
    assert len(torch) == (target in ("tools", "export-tools"))
    assert all(("https://download.pytorch.org/whl/cpu" in line) != driver for line in torch)
    assert lines.index(torch[0]) < lines.index(ours[0]) if torch else True


def test_the_site_is_made_and_checked_by_one_version_of_its_tool() -> None:
    (locked,) = re.findall(r"^mkdocs-material==.+$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert f" {locked} " in (DEPLOY / "check.sh").read_text("utf-8")


def test_the_workflows_test_the_oldest_python_and_the_newest() -> None:
    jobs = load(".github", "workflows", "test.yml")["jobs"]
    versions = {
        name: step["with"]["python-version"]
        for name, job in jobs.items()
        for step in job["steps"]
        if step.get("uses", "").startswith("actions/setup-python")
    }
    assert PROJECT["project"]["requires-python"] == f">={versions['oldest']}"
    assert f"NEWEST:-{versions['newest']}" in (ROOT / ".ci" / "newest-python").read_text("utf-8")


# Workflows


def workflow(name: str) -> dict[str, Any]:
    return load(".github", "workflows", f"{name}.yml")


def test_nothing_is_published_before_the_tag_is_found_to_be_the_version() -> None:
    jobs = workflow("release")["jobs"]
    (check,) = (step["run"] for step in jobs["version"]["steps"] if "run" in step)
    assert "server/__init__.py" in check
    for name, job in jobs.items():
        while name != "version":
            name, job = job["needs"], jobs[job["needs"]]


@pytest.mark.parametrize(
    ("name", "publishing"), [("test", set()), ("release", {"wheel", "image"}), ("pages", {"deploy"})]
)
def test_workflows_may_read_and_only_jobs_that_publish_may_write(name: str, publishing: set[str]) -> None:
    loaded = workflow(name)
    assert loaded["permissions"] == {"contents": "read"}
    writing = {job for job, what in loaded["jobs"].items() if "write" in what.get("permissions", {}).values()}
    assert writing == publishing
    for job, what in loaded["jobs"].items():
        for step in what.get("steps", ()):
            action, _, version = step.get("uses", "").partition("@")
            if action == "actions/checkout":
                assert step["with"]["persist-credentials"] is False  # else every tool of the job can read the token
            if job in writing and action and not action.startswith("actions/"):
                assert re.fullmatch("[0-9a-f]{40}", version), action
