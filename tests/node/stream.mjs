// The OpenAI Node SDK reads speech as it comes: node stream.mjs BASE_URL KEY TEXT. Prints what it saw as one line of JSON.
import OpenAI from "openai";

const [baseURL, apiKey, input] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });

async function endedRequests() {
  const answer = await fetch(baseURL.replace(/\/v1$/, "/metrics"), { headers: { authorization: `Bearer ${apiKey}` } });
  const lines = (await answer.text()).split("\n").filter((line) => line.startsWith("qwen3_tts_requests_total{"));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

const before = await endedRequests();
const response = await client.audio.speech.create({
  model: "gpt-4o-mini-tts",
  voice: "coral",
  input,
  instructions: "Speak in a cheerful tone.",
  response_format: "pcm",
});
let bytes = 0;
let parts = 0;
let firstWhileSpeaking = false;
for await (const part of response.body) {
  if (parts === 0) firstWhileSpeaking = (await endedRequests()) === before;
  parts += 1;
  bytes += part.length;
}
console.log(JSON.stringify({ bytes, parts, first_while_speaking: firstWhileSpeaking }));
