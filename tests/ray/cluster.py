"""A Ray of this machine with the server on it, as `deploy/ray/serve.yaml` has it, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks.replicas import free_ports
from tests.server.running import KEY, PATIENCE_SECONDS, ROOT, clean_environment

ENVIRONMENT = ROOT / ".cache" / "ray-venv"
"""`make test-ray` makes it."""
CONFIG = ROOT / "deploy" / "ray" / "serve.yaml"
ROWS, QUEUE = 2, 2
START_SECONDS = 3 * PATIENCE_SECONDS


def wait(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition is true, and return what it gave. Ray's processes take seconds to start."""
    deadline = time.monotonic() + START_SECONDS
    while not (outcome := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"never happened: {what}")
        time.sleep(0.2)
    return outcome


def program(name: str) -> str:
    """A program of the environment that has Ray."""
    path = ENVIRONMENT / "bin" / name
    if not path.exists():
        raise RuntimeError(f"{path} is not there; `make test-ray` installs it")
    return str(path)


class RayCluster:
    """A Ray of one machine.

    Args:
        home: a folder of its own.
        cpus: how many cores it shall think that it has.
    """

    def __init__(self, home: Path, cpus: int = 4) -> None:
        self.home = home
        gcs, self._dashboard, self.port, *agents = free_ports(6)
        self.address = f"127.0.0.1:{gcs}"
        self.environment = {
            **clean_environment(),
            "HOME": str(home),
            "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ADDRESS": self.address,
        }
        options = {
            "node-ip-address": "127.0.0.1",
            "port": gcs,
            "dashboard-host": "127.0.0.1",
            "dashboard-port": self._dashboard,
            "dashboard-agent-listen-port": agents[0],
            "dashboard-agent-grpc-port": agents[1],
            "metrics-export-port": agents[2],
            "num-cpus": cpus,
            "object-store-memory": 100_000_000,
            "temp-dir": home / "ray",
        }
        environment = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        self._log = (home / "ray.log").open("w")
        self._process = subprocess.Popen(
            [program("ray"), "start", "--head", "--block", *(f"--{name}={value}" for name, value in options.items())],
            env=environment,
            cwd=ROOT,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def process(self) -> psutil.Process:
        """Above all of Ray's."""
        return psutil.Process(self._process.pid)

    @property
    def url(self) -> str:
        """Of Serve's proxy."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str | None = KEY) -> httpx.Client:
        """A client of the proxy."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_SECONDS, verify=False)

    def deploy(self, replicas: int | None = None, environment: dict[str, str] | None = None, **options: Any) -> None:
        """Give Ray the application of `deploy/ray/serve.yaml`, with changes.

        Args:
            replicas: how many; None scales them.
            environment: settings beside those of the tests.
            options: of the deployment.
        """
        config = yaml.safe_load(CONFIG.read_text("utf-8"))
        config["http_options"] = {"host": "127.0.0.1", "port": self.port}
        ((deployment,),) = (application["deployments"] for application in config["applications"])
        settings = deployment["ray_actor_options"]["runtime_env"]["env_vars"]
        del settings["KW_SECRET_API_KEY_FILE"]
        settings |= {"KW_SECRET_API_KEY": KEY, "KW_MODELS_DIR": str(ROOT / "models"), "KW_THREADS": "1"}
        settings |= {"KW_MAX_ROWS": str(ROWS), "KW_MAX_QUEUE": str(QUEUE), **(environment or {})}
        deployment["ray_actor_options"]["num_cpus"] = 1
        deployment["max_ongoing_requests"] = ROWS + QUEUE
        if replicas is not None:
            del deployment["autoscaling_config"]
            deployment["num_replicas"] = replicas
        deployment |= options
        file = self.home / "serve.yaml"
        file.write_text(yaml.safe_dump(config), "utf-8")
        wait(self._answers, "Ray has started")
        serve = [program("serve"), "deploy", file, "--address", f"http://127.0.0.1:{self._dashboard}"]
        subprocess.run(serve, env=self.environment, check=True, capture_output=True, timeout=START_SECONDS)

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError((self.home / "ray.log").read_text("utf-8", "replace"))
        try:
            return self._ask().status_code == 200
        except httpx.TransportError:
            return False

    def _ask(self) -> httpx.Response:
        token = self.home / ".ray" / "auth_token"
        headers = {"authorization": f"Bearer {token.read_text().strip()}"} if token.exists() else {}
        return httpx.get(f"http://127.0.0.1:{self._dashboard}/api/serve/applications/", headers=headers, timeout=60)

    def application(self) -> dict[str, Any]:
        """What Ray says of the application."""
        found: dict[str, Any] = self._ask().raise_for_status().json()["applications"].get("qwen3-tts", {})
        return found

    def processes(self) -> list[int]:
        """Process ids of the replicas that run."""
        replicas = self.application().get("deployments", {}).get("Speech", {}).get("replicas", [])
        return sorted(replica["pid"] for replica in replicas if replica["state"] == "RUNNING")

    def wait_running(self, replicas: int) -> list[int]:
        """Wait until all is well and so many replicas run; their process ids."""

        def running() -> list[int]:
            application = self.application()
            if application.get("status") == "DEPLOY_FAILED":
                raise RuntimeError(str(application))
            found = self.processes()
            return found if application.get("status") == "RUNNING" and len(found) == replicas else []

        found: list[int] = wait(running, f"{replicas} replicas run")
        return found

    def logged(self, event: str) -> list[tuple[int, str]]:
        """Lines of the servers' logs with this event, with the process id of each."""
        lines = []
        for file in sorted((self.home / "ray" / "session_latest" / "logs").glob("worker-*.err")):
            process = int(file.stem.rpartition("-")[2])
            lines += [
                (process, line) for line in file.read_text("utf-8", "replace").splitlines() if f" {event} " in line
            ]
        return lines

    def close(self) -> None:
        """End all of it."""
        family = self.process.children(recursive=True)
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for process in family:
            if process.is_running():
                process.kill()
        self._log.close()


@contextmanager
def running_ray(cpus: int = 4) -> Iterator[RayCluster]:
    """Run a Ray; whatever happens it is gone afterwards."""
    # The paths of its sockets may have a hundred characters: they do not fit below most folders of tests.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as home:
        cluster = RayCluster(Path(home), cpus)
        try:
            yield cluster
        finally:
            cluster.close()
