"""From start to ready: models that load, are missing, damaged or chosen."""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest

from server import __version__
from tests.server.answers import GOOD, check_error
from tests.server.fakes import manifest_of, write_bundle
from tests.server.running import FAKE, RunningServer, fetch, run_server, wait_until


def ask(server: RunningServer, **fields: object) -> httpx.Response:
    with server.client() as client:
        return client.post("/v1/audio/speech", json={**GOOD, **fields})


def get(server: RunningServer, path: str) -> httpx.Response:
    with server.client() as client:
        return client.get(path)


def damage(bundle: Path) -> None:
    weights = bytearray((bundle / "talker.onnx").read_bytes())
    weights[500] ^= 1
    (bundle / "talker.onnx").write_bytes(weights)


def test_while_the_default_model_loads(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "a")
    gate = tmp_path / "gate"
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "FAKE_GATE": str(gate), "KW_LOAD_WAIT_SECONDS": "0"}
    with run_server(FAKE, tmp_path, **settings) as server:
        assert get(server, "/livez").status_code == 200
        for response in (get(server, "/readyz"), ask(server)):
            check_error(response, 503, "model_loading", "model")
            assert int(response.headers["retry-after"]) > 0
        assert get(server, "/v1/models").json()["data"][0]["loaded"] is False
        check_error(ask(server, seed="x"), 400, "invalid_value", "seed")
        gate.touch()
        server.wait_ready()
        assert ask(server).status_code == 200
        assert get(server, "/v1/models").json()["data"][0]["loaded"] is True


def test_a_request_waits_for_the_default_model(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "a")
    gate = tmp_path / "gate"
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "FAKE_GATE": str(gate), "KW_LOAD_WAIT_SECONDS": "600"}
    with run_server(FAKE, tmp_path, **settings, KW_MAX_ROWS="1", KW_MAX_QUEUE="0") as server:
        check_error(get(server, "/readyz"), 503, "model_loading", "model")
        with ThreadPoolExecutor() as threads:
            asking = [threads.submit(ask, server) for _ in range(2)]
            done, _ = wait(asking, return_when=FIRST_COMPLETED)
            check_error(done.pop().result(), 429, "queue_full")  # one row, no queue: only one may wait
            gate.touch()
        assert sorted(answer.result().status_code for answer in asking) == [200, 429]


def test_sigterm_while_loading(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "a")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "FAKE_GATE": str(tmp_path / "never")}
    with run_server(FAKE, tmp_path, **settings) as server:
        check_error(get(server, "/readyz"), 503, "model_loading", "model")
        assert server.stop() == 0


def test_another_model_loads_when_it_is_asked_for(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_bundle(tmp_path / "models", name)
    gate = tmp_path / "gate"
    gate.touch()
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), FAKE_GATE=str(gate)) as server:
        server.wait_ready()
        assert [model["loaded"] for model in get(server, "/v1/models").json()["data"]] == [True, False]
        gate.unlink()
        answers: list[httpx.Response] = []
        asking = [threading.Thread(target=lambda: answers.append(ask(server, model="b"))) for _ in range(3)]
        for thread in asking:
            thread.start()
        wait_until(lambda: [line for line in server.log if "model_loading model=b" in line], "b begins to load")
        assert get(server, "/livez").status_code == 200
        assert ask(server, model="a").status_code == 200
        gate.touch()
        for thread in asking:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert sum("model_loading model=b" in line for line in server.log) == 1


def test_an_empty_models_folder_is_answered_503_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "models" / "not a bundle").mkdir(parents=True)
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_MODEL="later") as server:
        assert get(server, "/livez").status_code == 200
        for response in (get(server, "/readyz"), ask(server), get(server, "/v1/models/tts-1")):
            assert "put a bundle into the models folder" in check_error(response, 503, "model_unavailable")
        assert get(server, "/v1/models").json() == {"object": "list", "data": []}
        assert get(server, "/v1/audio/models").json() == {"models": []}
        assert get(server, "/v1/audio/voices").json() == {"voices": [], "uploaded_voices": [], "keeps_voices": False}
        (line,) = [line for line in server.log if "WARNING" in line]
        assert "model_unavailable" in line and "put a bundle into the models folder" in line


def test_a_damaged_default_model_stays_the_default_and_is_answered_503(tmp_path: Path) -> None:
    damage(write_bundle(tmp_path / "models", "a"))
    write_bundle(tmp_path / "models", "b")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models")) as server:
        wait_until(lambda: get(server, "/readyz").json()["error"]["code"] != "model_loading", "loading ends")
        for response in (get(server, "/readyz"), ask(server), ask(server, model="a")):
            message = check_error(response, 503, "model_unavailable", "model")
            assert "a: talker.onnx is damaged" in message
            assert "copy the bundle again" in message
            assert response.headers["x-should-retry"] == "false"
        assert ask(server, model="b").status_code == 200


def test_a_damaged_model_is_answered_503_while_the_default_one_serves(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "a")
    damage(write_bundle(tmp_path / "models", "b"))
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models")) as server:
        server.wait_ready()
        message = check_error(ask(server, model="b"), 503, "model_unavailable", "model")
        assert "talker.onnx is damaged" in message
        ready = get(server, "/readyz")
        assert ready.status_code == 200
        assert "talker.onnx" in ready.json()["problems"][0]
        assert "talker.onnx" in get(server, "/v1/models/b").json()["problem"]
        assert ask(server, model="a").status_code == 200


@pytest.mark.parametrize(("text", "says"), [("", "does not fit"), ('{"format": 1, "new": 1}', "has format 1")])
def test_a_model_with_an_unreadable_manifest_is_answered_with_the_reason(tmp_path: Path, text: str, says: str) -> None:
    write_bundle(tmp_path / "models", "b")
    (write_bundle(tmp_path / "models", "a") / "manifest.json").write_text(text)
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models")) as server:
        server.wait_ready()
        for response in (ask(server, model="a"), get(server, "/v1/models/a"), get(server, "/v1/audio/voices?model=a")):
            message = check_error(response, 503, "model_unavailable", "model")
            assert "a: manifest.json" in message
            assert says in message
        assert [model["id"] for model in get(server, "/v1/models").json()["data"]] == ["b"]
        ready = get(server, "/readyz").json()
        assert ready["model"] == "b", "the first that can be read"
        assert says in ready["problems"][0]
        assert ask(server, model="tts-1").status_code == ask(server, model="b").status_code == 200
        assert get(server, "/v1/audio/voices").status_code == 200
        (line,) = [line for line in server.log if " model_unavailable " in line]
        assert " WARNING " in line
        assert says in line


def test_an_unreadable_model_that_was_chosen(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "b")
    (write_bundle(tmp_path / "models", "a") / "manifest.json").write_text("{}")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_MODEL="a") as server:
        for response in (get(server, "/readyz"), ask(server)):
            assert "a: manifest.json" in check_error(response, 503, "model_unavailable", "model")
        assert ask(server, model="b").status_code == 200


def test_the_reason_is_told_where_no_model_can_be_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (write_bundle(tmp_path / "models", name) / "manifest.json").write_text("{}")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models")) as server:
        assert "a: manifest.json" in check_error(get(server, "/readyz"), 503, "model_unavailable", "model")


def test_a_bundle_without_a_graph_is_broken_and_said_once(tmp_path: Path) -> None:
    graphs = manifest_of("b")["graphs"]
    del graphs["talker"]
    write_bundle(tmp_path / "models", "a")
    write_bundle(tmp_path / "models", "b", graphs=graphs)
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models")) as server:
        server.wait_ready()
        for _ in range(2):
            message = check_error(ask(server, model="b"), 503, "model_unavailable", "model")
            assert "b: manifest.json has no graph talker" in message
        assert sum("no graph talker" in line and "model_unavailable" in line for line in server.log) == 1
        assert not any("model_retry" in line for line in server.log)


def test_the_default_model_can_be_chosen(tmp_path: Path) -> None:
    for name in ("a", "b", ".unfinished"):
        write_bundle(tmp_path / "models", name)
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_MODEL="b") as server:
        server.wait_ready()
        ready = get(server, "/readyz").json()
        assert ready == {"status": "ready", "version": __version__, "model": "b", "problems": []}
        assert [model["id"] for model in get(server, "/v1/models").json()["data"]] == ["b", "a"]


def test_without_a_key_the_log_says_loopback_only(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "a")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_SECRET_API_KEY": "", "KW_HOST": "", "KW_PROT": "1"}
    with run_server(FAKE, tmp_path, **settings) as server:
        server.wait_ready()
        assert server.url.startswith("http://127.0.0.1:")
        assert fetch("POST", f"{server.url}/v1/audio/speech", json=GOOD).status_code == 200
        assert any("loopback only" in line and "KW_SECRET_API_KEY" in line for line in server.log)
        assert any("unknown_setting variable=KW_PROT" in line for line in server.log)


def test_a_port_that_is_taken_ends_the_start_with_a_clear_error(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "a")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models")) as server:
        port = str(server.port)
        with (
            run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_PORT=port) as second,
            pytest.raises(RuntimeError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"),
        ):
            second.wait_ready()


def test_a_model_in_several_precisions(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_bundle(models, "a", precision="int8")
    write_bundle(models, "a_int4", precision="int4")
    write_bundle(models, "b", precision="int8")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(models), KW_PRECISION="int4") as server:
        server.wait_ready()
        listed = get(server, "/v1/models").json()["data"]
        assert [(model["id"], model["precision"], model["loaded"]) for model in listed] == [
            ("a_int4", "int4", True),
            ("a", "int8", False),
            ("b", "int8", False),
        ]
        for name, meant in (("a", "a_int4"), ("tts-1", "a_int4"), ("a_int4", "a_int4"), ("b", "b")):
            assert get(server, f"/v1/models/{name}").json()["id"] == meant


def test_a_wanted_precision_that_cannot_be_read_is_no_default(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_bundle(models, "a", precision="int8")
    (write_bundle(models, "a_int4", precision="int4") / "manifest.json").write_text("{}")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(models), KW_PRECISION="int4") as server:
        server.wait_ready()
        assert get(server, "/readyz").json()["model"] == "a"
        assert "a_int4: manifest.json" in check_error(ask(server, model="a"), 503, "model_unavailable", "model")


def test_models_take_turns_where_memory_is_for_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_bundle(tmp_path / "models", name)
    with run_server(
        FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_MODEL_MEMORY="600KB", KW_MAX_ROWS="1"
    ) as server:
        server.wait_ready()
        for name in ("b", "a", "b"):
            assert ask(server, model=name).status_code == 200
            loaded = {model["id"]: model["loaded"] for model in get(server, "/v1/models").json()["data"]}
            assert loaded == {"a": name == "a", "b": name == "b"}
            assert get(server, "/readyz").status_code == 200
        assert sum("model_unloaded" in line and "reason=memory" in line for line in server.log) == 3


def test_a_model_that_memory_is_too_small_for(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "a")
    with run_server(
        FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_MODEL_MEMORY="300KB", KW_MAX_ROWS="1"
    ) as server:
        for response in (get(server, "/readyz"), ask(server)):
            message = check_error(response, 503, "model_unavailable", "model")
            assert "KW_MODEL_MEMORY allows 300.0KB" in message
            assert response.headers["x-should-retry"] == "false"
