// Drives the OpenAI Node SDK against a running server: node speak.mjs BASE_URL KEY. Prints what it saw as one line of JSON.
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const request = { model: "tts-1", voice: "alloy", input: "Hello from Node", exact_frames: 6, seed: 1 };

async function whole(extra) {
  const response = await client.audio.speech.create({ ...request, ...extra, stream: false });
  const body = Buffer.from(await response.arrayBuffer());
  return { type: response.headers.get("content-type"), length: body.length, head: body.toString("latin1", 0, 4) };
}

async function streamed(extra) {
  const response = await client.audio.speech.create({ ...request, ...extra });
  let length = 0;
  for await (const part of response.body) length += part.length;
  return { type: response.headers.get("content-type"), length };
}

async function failure(call) {
  try {
    await call();
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code, param: error.param, id: error.requestID };
  }
  return null;
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);

console.log(
  JSON.stringify({
    mp3: await whole({}),
    wav: await whole({ response_format: "wav" }),
    pcm: await whole({ response_format: "pcm" }),
    streamed: await streamed({ response_format: "pcm" }),
    models,
    model: (await client.models.retrieve("tts-1")).object,
    unknownModel: await failure(() => whole({ model: "gpt-9" })),
    wrongSeed: await failure(() => whole({ seed: -2 })),
    wrongKey: await failure(() => client.withOptions({ apiKey: "wrong" }).models.list()),
  }),
);
