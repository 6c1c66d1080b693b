"""Keys, and the lists of models and voices, over real HTTP."""

from __future__ import annotations

import httpx
import pytest

from tests.server.answers import GOOD, PREFIXES, check_error


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic b3RoZXI6", "Bearer"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/audio/speech"), ("GET", "/models")])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_keys_are_required(
    visitor: httpx.Client, prefix: str, method: str, path: str, authorization: str | None
) -> None:
    headers = {"authorization": authorization} if authorization else {}
    response = visitor.request(method, prefix + path, headers=headers, json=GOOD)
    check_error(response, 401, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path",
    ["/livez", "/readyz", "/v1/audio/voices", "/api/v1/audio/models", "/v1/audio/models", "/v1/models/custom"],
)
def test_public_routes_need_no_key(visitor: httpx.Client, path: str) -> None:
    assert visitor.get(path).status_code == 200


@pytest.mark.parametrize("prefix", PREFIXES)
def test_models_lists_what_each_model_can_do(client: httpx.Client, prefix: str) -> None:
    listing = client.get(f"{prefix}/models").json()
    assert listing["object"] == "list"
    custom, design = listing["data"]
    assert isinstance(custom.pop("created"), int)
    assert custom == {
        "id": "custom",
        "object": "model",
        "owned_by": "qwen3-tts-edge",
        "description": "custom, for tests: a tone instead of speech",
        "languages": ["auto", "chinese", "english", "german"],
        "instructions": False,
        "cloning": False,
        "precision": "fp32",
        "parity": {},
        "provider": "cpu",
        "loaded": True,
        "problem": None,
    }
    assert (design["id"], design["instructions"]) == ("design", True)
    alone = client.get(f"{prefix}/models/design").json()
    assert alone.pop("voices") == [{"name": "design", "language": None, "gender": None}]
    assert alone == design
    assert client.get(f"{prefix}/models/tts-1").json()["id"] == "custom"


def test_voices_lists_what_is_known_of_each_voice(client: httpx.Client) -> None:
    voices = client.get("/v1/audio/voices").json()["voices"]
    (ryan,) = [voice for voice in voices if voice["id"] == "ryan"]
    assert {name: ryan[name] for name in ("name", "speaker", "gender", "language", "alias_of", "instruction_used")} == {
        "name": "Ryan",
        "speaker": "ryan",
        "gender": "male",
        "language": "english",
        "alias_of": None,
        "instruction_used": False,
    }
    assert "english" in ryan["languages"]
    assert {"serena_meditation", "ryan_clear"} <= {voice["id"] for voice in voices if voice["description"]}
    assert {"alloy", "af_heart"} <= {voice["id"] for voice in voices}
    design = client.get("/api/v1/audio/voices", params={"model": "design"}).json()["voices"]
    assert design[0]["id"] == "design"
    check_error(client.get("/v1/audio/voices", params={"model": "x"}), 404, "model_not_found", "model")


def test_audio_models_lists_ids_and_names(client: httpx.Client) -> None:
    models = client.get("/v1/audio/models").json()
    assert models == {"models": [{"id": "custom", "name": "custom"}, {"id": "design", "name": "design"}]}
