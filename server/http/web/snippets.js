// Example programs for one server, model and voice. With `key` they read the key from the environment.

const TEXT = "Hello from my own machine.";

/** Put a text in double quotes that JSON, Python and JavaScript read alike. */
export const quoted = (text) => JSON.stringify(text);

/** Escape a text for the single quotes of a shell. */
export const inShell = (text) => text.replaceAll("'", String.raw`'\''`);

export const curl = ({ base, model, voice, key }) => `curl ${base}/audio/speech \\
${key ? `  -H "Authorization: Bearer $KW_SECRET_API_KEY" \\\n` : ""}  -H "Content-Type: application/json" \\
  -d '${inShell(`{"model": ${quoted(model)}, "voice": ${quoted(voice)}, "input": "${TEXT}"}`)}' \\
  -o hello.mp3`;

export const python = ({ base, model, voice, key }) => `${key ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url="${base}", api_key=${key ? 'os.environ["KW_SECRET_API_KEY"]' : '"none"'})

with client.audio.speech.with_streaming_response.create(
    model=${quoted(model)},
    voice=${quoted(voice)},
    input="${TEXT}",  # its audio comes while it is made
) as response:
    response.stream_to_file("hello.mp3")`;

export const node = ({ base, model, voice, key }) => `import { writeFile } from "node:fs/promises";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${base}", apiKey: ${key ? "process.env.KW_SECRET_API_KEY" : '"none"'} });

const speech = await client.audio.speech.create({
  model: ${quoted(model)},
  voice: ${quoted(voice)},
  input: "${TEXT}",
});
await writeFile("hello.mp3", Buffer.from(await speech.arrayBuffer()));`;
