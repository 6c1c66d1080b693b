// Programs that ask a server for speech. With `key` they read the key from the environment; they never hold one.

/** What OpenAI's SDKs know of a request; all other fields are this server's own. */
const OF_OPENAI = ["model", "voice", "input", "response_format", "speed", "instructions"];
const LONGEST_ARGUMENT = 100_000; // bytes; Linux takes 128 KiB

/** Write a value so that JSON, Python and JavaScript read it alike. */
export const quoted = (value) => JSON.stringify(value);

const fieldsOf = (request, known) => Object.entries(request).filter(([name]) => OF_OPENAI.includes(name) === known);

/** Escape a text for the single quotes of a shell. */
export const inShell = (text) => text.replaceAll("'", String.raw`'\''`);

export const curl = ({ base, request, key, file }) => {
  const lines = Object.entries(request).map(([name, value]) => `    ${quoted(name)}: ${quoted(value)}`);
  const body = `{\n${lines.join(",\n")}\n  }`;
  const long = new Blob([body]).size > LONGEST_ARGUMENT;
  const head = [
    `curl ${base}/audio/speech`,
    ...(key ? [`-H "Authorization: Bearer $KW_SECRET_API_KEY"`] : []),
    `-H "Content-Type: application/json"`,
    ...(long ? ["-d @-", `-o ${file} <<'END'\n${body}\nEND`] : [`-d '${inShell(body)}'`, `-o ${file}`]),
  ];
  return head.join(" \\\n  ");
};

export const python = ({ base, request, key, file }) => {
  const known = fieldsOf(request, true).map(([name, value]) => `    ${name}=${quoted(value)},\n`);
  const own = fieldsOf(request, false).map(([name, value]) => `        ${quoted(name)}: ${quoted(value)},\n`);
  const extra = own.length ? `    extra_body={  # this server's own fields\n${own.join("")}    },\n` : "";
  return `${key ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url="${base}", api_key=${key ? 'os.environ["KW_SECRET_API_KEY"]' : '"none"'})

with client.audio.speech.with_streaming_response.create(
${known.join("")}${extra}) as response:  # the audio comes while it is made
    response.stream_to_file("${file}")`;
};

export const node = ({ base, request, key, file }) => {
  const lines = (known) => fieldsOf(request, known).map(([name, value]) => `  ${name}: ${quoted(value)},\n`).join("");
  const own = lines(false);
  return `import { writeFile } from "node:fs/promises";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${base}", apiKey: ${key ? "process.env.KW_SECRET_API_KEY" : '"none"'} });

const speech = await client.audio.speech.create({
${lines(true)}${own && `  // this server's own fields\n${own}`}});
await writeFile("${file}", Buffer.from(await speech.arrayBuffer()));`;
};
