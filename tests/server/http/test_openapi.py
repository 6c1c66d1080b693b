"""The OpenAPI document: that it is one, says everything, and is true (schemathesis, with all its checks but one)."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from jsonschema_rs import Draft202012Validator, meta
from sanic import Sanic
from schemathesis.specs.openapi.checks import ignored_auth

from server import errors
from server.audio.encoders import make_encoder
from server.audio.formats import FORMATS
from server.cli.startup import open_pool
from server.config import Settings
from server.http import openapi, openapi_schemas
from server.http.app import API_PREFIXES, QUIET_PATHS, create_app
from server.metrics import Metrics
from server.models.catalogue import Bundles
from server.speech.fields import MAX_EMBEDDING, NOT_BLANK
from server.speech.foreign_fields import ALIASES, CLONING
from server.speech.request import SpeechRequest
from server.voices.catalogue import Voice
from tests.server.answers import PREFIXES
from tests.server.fakes import FakeEngine, write_bundle
from tests.server.running import FAKE, KEY, PATIENCE_SECONDS, ROOT, RunningServer, fetch, run_server

MAX_INPUT_CHARS = 1000
DOCUMENT = openapi.document(max_input_chars=MAX_INPUT_CHARS, needs_key=True)
OPERATIONS = {
    (path, method): operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method != "servers"
}
NOT_DESCRIBED = {"/index.html", "/swagger/<name:str>", "/audio/speech/stream"}
"""What is not for programs, and the WebSocket, for which OpenAPI has no words."""


def schema_of(model: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{model}", "components": DOCUMENT["components"]}


def test_it_follows_the_request_model() -> None:
    described = DOCUMENT["components"]["schemas"]["SpeechRequest"]
    assert set(described["properties"]) == {*SpeechRequest.model_fields, *ALIASES}
    assert [each["required"] for each in described["anyOf"]] == [["input"], ["text"]]
    for name, field in described["properties"].items():
        assert field["description"], name
    answer = OPERATIONS["/audio/speech", "post"]["responses"]["200"]["content"]
    assert {make_encoder(name, 24_000).content_type for name in FORMATS} == set(answer) - {"text/event-stream"}


def test_a_voice_is_described() -> None:
    described = DOCUMENT["components"]["schemas"]["Voice"]["properties"]
    assert set(described) == set(Voice.model_fields)
    assert all(field["description"] for field in described.values())


def test_blank_is_what_the_server_takes_for_blank() -> None:
    pattern = re.compile(NOT_BLANK)
    assert all(bool(pattern.search(letter)) == bool(letter.strip()) for letter in map(chr, range(sys.maxunicode + 1)))


def test_every_example_fits_its_schema() -> None:
    meta.validate(DOCUMENT["components"]["schemas"]["SpeechRequest"])
    validate = Draft202012Validator(schema_of("SpeechRequest"))
    body = OPERATIONS["/audio/speech", "post"]["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        validate.validate(example["value"])
        SpeechRequest.model_validate(example["value"])
    for name, field in DOCUMENT["components"]["schemas"]["SpeechRequest"]["properties"].items():
        for value in field.get("examples", ()):
            validate.validate({"model": "tts-1", "input": "a", "voice": "alloy", name: value})
    validate = Draft202012Validator(schema_of("ErrorAnswer"))
    for operation in OPERATIONS.values():
        for response in operation["responses"].values():
            for example in response["content"].get("application/json", {}).get("examples", {}).values():
                validate.validate(example["value"])
                assert example["summary"] and example["description"], example


def choices(schema: dict[str, Any]) -> Iterator[Any]:
    """Yield the values that a schema lists."""
    yield from schema.get("enum", ())
    if "const" in schema:
        yield schema["const"]
    for each in schema.get("anyOf", ()):
        yield from choices(each)


def kinds(error: type[errors.ApiError]) -> Iterator[type[errors.ApiError]]:
    yield error
    for kind in error.__subclasses__():
        yield from kinds(kind)


def test_speech_names_every_error_that_there_is() -> None:
    documented = OPERATIONS["/audio/speech", "post"]["responses"]
    assert set(documented) == {"200", "400", "401", "403", "404", "413", "429", "500", "503", "504", "default"}
    made = OPERATIONS["/audio/voices", "post"]["responses"]
    assert set(made) == {*documented, "409"}
    for kind in kinds(errors.ApiError):
        if kind.code and kind is not errors.UpgradeRequiredError:  # the WebSocket's
            response = made[str(kind.status)]
            example = response["content"]["application/json"]["examples"][kind.code]["value"]
            assert example["message"]
            assert set(kind.headers) <= set(response["headers"])


def test_every_route_is_there(tmp_path: Path) -> None:
    settings = Settings(models_dir=tmp_path)
    metrics = Metrics()
    app = create_app(settings, open_pool(settings, Bundles([], None), FakeEngine.load, metrics), {}, metrics)
    Sanic.unregister_app(app)
    served = {(route.uri, method.lower()) for route in app.router.routes for method in route.methods - {"HEAD"}}
    for path, method in OPERATIONS:
        prefixes = ("",) if "servers" in DOCUMENT["paths"][path] else API_PREFIXES
        for prefix in prefixes:
            served.remove((prefix + path.replace("{id}", "<name:str>"), method))
    rest = {path for path, _ in served if path.startswith(API_PREFIXES)}
    assert rest == {prefix + path for prefix in API_PREFIXES for path in NOT_DESCRIBED}
    assert not {f"/{path}" for path in QUIET_PATHS} & {path for path, _ in served}


def test_the_page_of_the_api_has_every_route_and_field() -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    fields = DOCUMENT["components"]["schemas"]["SpeechRequest"]["properties"]
    assert [name for name in [*DOCUMENT["paths"], *fields] if f"{name}`" not in page] == []


def test_it_is_valid_openapi() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()


def test_every_tag_is_described_and_used() -> None:
    used = {tag for operation in OPERATIONS.values() for tag in operation["tags"]}
    assert {tag["name"] for tag in DOCUMENT["tags"]} == used


def test_all_errors_are_those_that_it_describes_from_the_start() -> None:
    """It is made of the errors that there are: one of a module that is loaded later would change it."""
    names = {kind.__name__ for kind in openapi._kinds(errors.ApiError)}
    elsewhere = [
        f"{path.name}: {node.name}"
        for path in (ROOT / "server").rglob("*.py")
        if path.name != "errors.py"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef) and names & {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    ]
    assert elsewhere == []


@pytest.mark.parametrize("prefix", PREFIXES)
def test_it_is_served_to_everyone(fake_server: RunningServer, prefix: str) -> None:
    response = fetch("GET", f"{fake_server.url}{prefix}/openapi.json")
    assert response.headers["content-type"] == "application/json"
    voices = fetch("GET", f"{fake_server.url}{prefix}/audio/voices?format=names").json()["voices"]
    assert "ryan" in voices
    document = openapi.document(max_input_chars=100_000, needs_key=True)
    assert response.json() == openapi_schemas.with_names(document, ["custom", "design"], voices)


def test_the_ids_that_there_are_are_listed_beside_every_other_spelling() -> None:
    document = openapi_schemas.with_names(DOCUMENT, ["custom"], ["ryan", "anna"])
    schemathesis.openapi.from_dict(document).validate()
    schemas = document["components"]["schemas"]
    assert (schemas["ModelId"]["enum"], schemas["VoiceId"]["enum"]) == (["custom"], ["ryan", "anna"])
    request = schemas["SpeechRequest"]["properties"]
    for field, name in {"model": "ModelId", "voice": "VoiceId"}.items():
        assert request[field]["anyOf"][0] == {"$ref": f"#/components/schemas/{name}"}
        assert request[field]["description"] == PROPERTIES[field]["description"]
    validate = Draft202012Validator(
        {"$ref": "#/components/schemas/SpeechRequest", "components": document["components"]}
    )
    for voice in ("ryan", "af_heart*0.4+am_adam*0.6", {"id": "anna"}, None):
        validate.validate({"input": "a", "voice": voice})
    assert openapi_schemas.with_names(DOCUMENT, [], []) == DOCUMENT
    assert "VoiceId" not in DOCUMENT["components"]["schemas"]  # which was made once, and serves every request


def test_a_server_without_keys_asks_for_none() -> None:
    assert openapi.document(max_input_chars=1000, needs_key=False)["security"] == []
    public = {path for (path, _), operation in OPERATIONS.items() if operation.get("security") == []}
    lists = {"/models/{id}", "/audio/voices", "/audio/models"}
    assert public == {*lists, "/openapi.json", "/livez", "/readyz", "/health"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose speech is short."""
    scratch = tmp_path_factory.mktemp("openapi")
    write_bundle(scratch / "models", "custom", generation={"max_new_tokens": 2})
    settings = {"KW_MODELS_DIR": str(scratch / "models"), "KW_MAX_INPUT_CHARS": "1000"}
    with run_server(FAKE, scratch, **settings) as server:
        server.wait_ready()
        yield server


PROPERTIES = DOCUMENT["components"]["schemas"]["SpeechRequest"]["properties"]
CHOICES = {
    name: set(choices(PROPERTIES[name]))
    for name in ("response_format", "stream_format", "layout", "text_format", "task_type", "timestamps")
}
CHOICES["format"] = CHOICES["response_format"]
NO_STRINGS = {
    *("speed", "seed", "temperature", "top_k", "top_p", "repetition_penalty", "max_new_tokens", "exact_frames"),
    *("stream", "trim_start", "lexicon", "x_vector_only_mode", "x_vector_only", "append_silence", "speaker_embedding"),
}
CLONES = {"ref_audio", "ref_text", "reference_audio", "reference_text", "speaker_embedding"}

OTHER_SERVERS = {*CLONING}
"""Fields that the schema does not list and that mean something all the same: hypothesis takes such names from our code,
as additional properties that may have any value."""


def be_strict(body: dict[str, Any]) -> None:
    """Replace what is wrong by the document, and read with mercy by the server, by what is wrong for both."""
    for name, value in body.items():
        if isinstance(value, str) and (name in NO_STRINGS or (name in CHOICES and value not in CHOICES[name])):
            body[name] = "wrong"
    if isinstance(voice := body.get("voice"), dict) and "id" in voice and voice["id"] is None:
        voice["id"] = 0


FITS = {
    name: Draft202012Validator({**schema, "components": DOCUMENT["components"]}) for name, schema in PROPERTIES.items()
}


def suit_the_model(body: Any) -> None:
    """Replace what the document allows but this model does not have, or not together, by something that it has.

    What the document forbids stays, since the server is to refuse it.
    """
    if not isinstance(body, dict):
        return
    for name in OTHER_SERVERS & body.keys():
        del body[name]
    for item in items if isinstance(items := body.get("items"), list) else ():
        suit_the_model(item)
    right = {name: value for name, value in body.items() if name in FITS and FITS[name].is_valid(value)}
    for name in CLONES & body.keys():
        if name in right:
            del body[name]
        elif body[name] in (False, [], {}):  # as good as none
            body[name] = 3
    if right.get("task_type") == "Base":
        del body["task_type"]
    be_strict(body)
    if right.get("stream") is False and right.get("stream_format") == "sse":
        del body["stream"]
    if isinstance(voice := right.get("voice"), dict):
        voice["id"] = "ryan"
    elif isinstance(voice, str):
        body["voice"] = "alloy"
    for name in ("language", *(alias for alias, ours in ALIASES.items() if ours == "language")):
        if isinstance(right.get(name), str):
            body[name] = "English"
    for name in ("input", "text"):
        if isinstance(text := body.get(name), str) and text.strip() and len(text) <= MAX_INPUT_CHARS:
            # A schema cannot say what scripts a model reads; tests/server/http/test_fuzz.py sends every character.
            body[name] = f"Hello. {text.encode('ascii', 'ignore').decode()}"[:MAX_INPUT_CHARS]
    for name, most in {"top_k": 3072, "exact_frames": 5}.items():
        if (right.get(name) or 0) > most:
            body[name] = most
    timed = right.get("timestamps")
    if timed and (right.get("stream") is True or right.get("stream_format") == "audio"):
        del body["timestamps"]
    elif timed == "sentence" and right.get("exact_frames"):
        body["timestamps"] = "chunk"
    if right.get("exact_frames") and 1 <= (right.get("max_new_tokens") or 0) < body["exact_frames"]:
        body["max_new_tokens"] = body["exact_frames"]


def test_what_the_document_forbids_stays_in_a_body() -> None:
    for wrong in (
        {"speaker_embedding": [0.5] * (MAX_EMBEDDING + 1)},
        {"timestamps": "word", "stream": True},
        {"exact_frames": 7.5},
        {"exact_frames": 3, "max_new_tokens": 1.5},
        {"ref_text": False},
    ):
        body = {"input": "Hello.", **wrong}
        suit_the_model(body)
        assert not Draft202012Validator(schema_of("SpeechRequest")).is_valid(body), wrong


API = schemathesis.openapi.from_dict(DOCUMENT)
API.config.update(headers={"Authorization": f"Bearer {KEY}"}, request_timeout=PATIENCE_SECONDS)


# Recordings: tests/server/http/test_voices.py; samples: tests/server/http/test_encoding.py.
@API.exclude(path="/audio/voices", method="POST").exclude(path="/audio/encode").parametrize()
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_server_is_as_described(case: schemathesis.Case, server: RunningServer) -> None:
    suit_the_model(case.body)
    prefix = "" if "servers" in DOCUMENT["paths"][case.path] else "/v1"
    # Every route is asked without a key and with a wrong one in tests/server/http/test_strangers.py.
    case.call_and_validate(base_url=server.url + prefix, excluded_checks=[ignored_auth])


@pytest.mark.parametrize("letter", "unfit")
def test_a_sentence_of_one_letter_is_spoken(server: RunningServer, letter: str) -> None:
    """The case above may ask for it, and this route speaks each sentence alone."""
    with server.client() as client:
        assert client.post("/dev/captioned_speech", json={"input": f"Hello. \x14{letter}"}).status_code == 200
