"""OpenAI's Python SDK with cloned voices: as_openai_voices.py BASE_URL KEY RECORDING WORDS FIELDS.

FIELDS are further fields of speech requests, in JSON.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import openai
from seen import Server, report


def speak(server: Server, recording: Path, words: str, fields: dict[str, Any]) -> None:
    address = "data:audio/wav;base64," + base64.b64encode(recording.read_bytes()).decode()
    with openai.OpenAI(base_url=server.base_url, api_key=server.key, max_retries=0) as client:

        def said(voice: Any, **more: Any) -> int:
            create = client.audio.speech.create
            speech = create(
                model="tts-1", input="Hello.", voice=voice, response_format="pcm", extra_body={**fields, **more}
            )
            return len(speech.content)

        inline = said("alloy", ref_audio=address, ref_text=words)
        alone = client.audio.voices.create(name="alone", audio_sample=recording, consent="cons_1")
        anna = client.audio.voices.create(
            name="anna", audio_sample=recording, consent="cons_1", extra_body={"ref_text": words}
        )
        report(
            inline=inline,
            made=[[voice.object, voice.id, voice.name] for voice in (alone, anna)],
            saved=[said({"id": voice.id}) for voice in (alone, anna)],
            by_name=said("anna"),
        )


if __name__ == "__main__":
    started = Server()
    speak(started, Path(started.rest[0]), started.rest[1], json.loads(started.rest[2]))
