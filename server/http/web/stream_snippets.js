// Example programs that use speech while it is made. With `key` they read the key from the environment.

import { inShell, quoted } from "./snippets.js";

const TEXT = "This is heard while the rest of it is still being made.";

const client = ({ base, key }) =>
  `client = OpenAI(base_url="${base}", api_key=${key ? 'os.environ["KW_SECRET_API_KEY"]' : '"none"'})`;

export const play = ({ base, model, voice, key }) => `curl -sSfN ${base}/audio/speech \\
${key ? `  -H "Authorization: Bearer $KW_SECRET_API_KEY" \\\n` : ""}  -H "Content-Type: application/json" \\
  -d '${inShell(`{"model": ${quoted(model)}, "voice": ${quoted(voice)}, "input": "${TEXT}"}`)}' |
  ffplay -nodisp -autoexit -loglevel error -`;

export const speaker = (values) => `${values.key ? "import os\n\n" : ""}import sounddevice
from openai import OpenAI

${client(values)}

with (
    sounddevice.RawOutputStream(samplerate=24000, channels=1, dtype="int16") as loudspeaker,
    client.audio.speech.with_streaming_response.create(
        model=${quoted(values.model)},
        voice=${quoted(values.voice)},
        input="${TEXT}",
        response_format="pcm",  # signed 16 bit, 24 kHz, mono
    ) as response,
):
    for part in response.iter_bytes(4800):
        loudspeaker.write(part)`;

export const events = (values) => `import base64
import json
${values.key ? "import os\n" : ""}
from openai import OpenAI

${client(values)}

with (
    open("hello.mp3", "wb") as file,
    client.audio.speech.with_streaming_response.create(
        model=${quoted(values.model)},
        voice=${quoted(values.voice)},
        input="${TEXT}",
        stream_format="sse",
    ) as response,
):
    for line in response.iter_lines():
        if line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            if event["type"] == "speech.audio.delta":
                file.write(base64.b64decode(event["audio"]))
            elif event["type"] == "speech.audio.done":
                print(event["usage"])`;
