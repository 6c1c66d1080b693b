"""The schemas of the OpenAPI document: of what requests are read with, of answers, and of the ids that there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from server.http.schemas import (
    Alive,
    AudioModelList,
    BatchAnswer,
    CaptionedAnswer,
    ErrorAnswer,
    ModelDetails,
    ModelList,
    Ready,
    VoiceCard,
    VoiceDeleted,
    VoiceList,
    VoiceMade,
    VoiceNames,
)
from server.speech.foreign_fields import ALIASES
from server.speech.keeping import VoiceOrder
from server.speech.request import SpeechRequest

Json = dict[str, Any]

_REF = "#/components/schemas/{model}"
_ANSWERS = (
    *(BatchAnswer, CaptionedAnswer, ModelList, ModelDetails, VoiceList, VoiceNames, VoiceCard, VoiceMade, VoiceDeleted),
    *(AudioModelList, Alive, Ready, ErrorAnswer),
)
_NAMES = {
    "model": ("ModelId", "The models of this server. `GET /models` says what each of them is."),
    "voice": (
        "VoiceId",
        "The voices of the default model, and the uploaded ones that are everybody's. `GET /audio/voices` says what "
        "each of them is, and lists those of another model and those of a key.",
    ),
}
"""By field of a request: the schema that lists its ids, and what it says of them."""


def ref_to(model: type[BaseModel]) -> Json:
    """What stands for a model's schema."""
    return {"$ref": _REF.format(model=model.__name__)}


def with_names(document: Json, models: Sequence[str], voices: Sequence[str]) -> Json:
    """A document of `server.http.openapi`, with the ids that a request's `model` and `voice` may have.

    OpenAI's own document lists ids in this way: as an enumeration beside any other text, because a voice has more
    spellings than its id. A list without an id is left out, as JSON Schema has no empty enumerations.
    """
    components = document["components"]
    schemas: Json = dict(components["schemas"])
    request = schemas[SpeechRequest.__name__]
    fields = dict(request["properties"])
    for field, ids in (("model", models), ("voice", voices)):
        name, description = _NAMES[field]
        if ids:
            schemas[name] = {"type": "string", "enum": [*ids], "description": description}
            fields[field] = {**fields[field], "anyOf": [{"$ref": _REF.format(model=name)}, *fields[field]["anyOf"]]}
    schemas[SpeechRequest.__name__] = {**request, "properties": fields}
    return {**document, "components": {**components, "schemas": schemas}}


class _WithoutTitles(GenerateJsonSchema):
    """Leaves out the titles of fields, which only repeat their names."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def schemas_of(max_input_chars: int) -> Json:
    """The schemas of requests and answers, by name.

    Args:
        max_input_chars: longest text and longest instructions.
    """
    read: list[tuple[type[BaseModel], JsonSchemaMode]] = [(SpeechRequest, "validation"), (VoiceOrder, "validation")]
    made: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "serialization") for model in _ANSWERS]
    _, definitions = models_json_schema([*read, *made], ref_template=_REF, schema_generator=_WithoutTitles)
    schemas: Json = definitions["$defs"]
    request = schemas[SpeechRequest.__name__]
    for name in ("input", "instructions"):
        request["properties"][name]["maxLength"] = max_input_chars
    fields = request["properties"]
    for name in fields.keys() - set(request["required"]):
        fields[name] = _optional(fields[name])
    text = {key: fields["input"].pop(key) for key in ("type", "pattern")}
    fields["input"] |= {"type": ["string", "null"]}
    for alias, name in ALIASES.items():
        other = {key: value for key, value in fields[name].items() if key not in ("maxLength", "examples", "default")}
        about = {"description": f"Read as `{name}` where that is absent.", "x-alias-of": name}
        fields[alias] = {**_optional(other), **about}
    # The text has to be there, by one of its names.
    names = ["input", *(alias for alias, name in ALIASES.items() if name == "input")]
    request["anyOf"] = [{"required": [name], "properties": {name: text}} for name in names]
    del request["required"]
    order = schemas[VoiceOrder.__name__]
    optional = order["properties"].keys() - set(order["required"])
    order["properties"] |= {name: _optional(order["properties"][name]) for name in optional}
    return schemas


def _optional(field: Json) -> Json:
    """Allow null for a field that may be absent; its default is kept if it is not null itself."""
    if field.get("default", ...) is None:
        return {key: value for key, value in field.items() if key != "default"}
    value = dict(field)
    about: Json = {key: value.pop(key) for key in ("description", "default", "examples") if key in value}
    return {"anyOf": [value, {"type": "null"}], **about}
