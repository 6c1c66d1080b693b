"""The dashboard's queries, asked of a real Prometheus: `python -m benchmarks.dashboard`, with Debian's `prometheus`.

A server with the embedded model is scraped with `deploy/observability/prometheus.yaml`, of which only what is scraped
and how often is exchanged. Each query of `deploy/observability/dashboard.json` must have an answer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "observability"
BOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
CHOSEN = {"$__rate_interval": "1m", "$model": ".+", "$job": "qwen3-tts"}
"""What Grafana puts in place of its variables."""
EMPTY = {"qwen3_tts_model_unloads_total"}
"""Series that a healthy server with one model does not have."""
SCRAPES = 4
PATIENCE_SECONDS = 60.0


def queries() -> list[tuple[str, str]]:
    """Return the title of the panel and the query of each curve."""
    return [(panel["title"], target["expr"]) for panel in BOARD["panels"] for target in panel["targets"]]


@contextmanager
def running_prometheus(folder: Path, target: str, key: str) -> Iterator[str]:
    """Run Prometheus on a server; its URL."""
    from benchmarks.replicas import free_ports  # needs what the tests need

    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text("utf-8"))
    (job,) = config["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [target]}]
    job["authorization"]["credentials_file"] = str(folder / "key")
    config["global"]["scrape_interval"] = "1s"
    (folder / "key").write_text(key, "utf-8")
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), "utf-8")
    (port,) = free_ports(1)
    options = {"config.file": folder / "prometheus.yaml", "storage.tsdb.path": folder / "data", "log.level": "warn"}
    options["web.listen-address"] = f"127.0.0.1:{port}"
    process = subprocess.Popen(["prometheus", *(f"--{name}={value}" for name, value in options.items())])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def ask(http: httpx.Client, query: str) -> list[Any]:
    """Ask Prometheus a query; the series of its answer."""
    answer = http.get("/api/v1/query", params={"query": query})
    answer.raise_for_status()
    series: list[Any] = answer.json()["data"]["result"]
    return series


def wait_for_scrapes(http: httpx.Client) -> None:
    """Wait until Prometheus has read the server's metrics some times."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            counted = ask(http, "count_over_time(qwen3_tts_audio_seconds_total[5m])")
        except httpx.TransportError:  # it has not started yet
            counted = []
        if counted and float(counted[0]["value"][1]) >= SCRAPES:
            return
        time.sleep(0.5)
    sys.exit("Prometheus has not read the server's metrics")


def main(arguments: list[str] | None = None) -> None:
    """Speak, scrape, ask."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__.splitlines()[0])
    parser.parse_args(arguments)
    if shutil.which("prometheus") is None:
        parser.error("prometheus is not installed")
    from tests.bundles import TINY_BUNDLE
    from tests.server.running import KEY, REAL, run_server

    settings = {"KW_MODELS_DIR": str(TINY_BUNDLE.parent), "KW_MODEL": TINY_BUNDLE.name}
    silent = []
    with tempfile.TemporaryDirectory() as scratch, run_server(REAL, Path(scratch), **settings) as server:
        server.wait_ready()
        with server.client() as client:
            for _ in range(3):
                client.post("/v1/audio/speech", json={"voice": "alloy", "input": "Hello."}).raise_for_status()
        target = server.url.removeprefix("http://")
        with running_prometheus(Path(scratch), target, KEY) as url, httpx.Client(base_url=url) as http:
            wait_for_scrapes(http)
            print("| panel | query | series |\n|---|---|---|")
            for title, query in queries():
                asked = query
                for variable, value in CHOSEN.items():
                    asked = asked.replace(variable, value)
                series = ask(http, asked)
                print(f"| {title} | `{query}` | {len(series)} |", flush=True)
                if not series and not any(name in query for name in EMPTY):
                    silent.append(query)
    if silent:
        sys.exit("\n".join(["no answer to:", *silent]))


if __name__ == "__main__":
    main()
