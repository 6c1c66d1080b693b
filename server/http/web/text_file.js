// Reads a text file, and splits it into the paragraphs that are spoken one by one.

import { ApiError } from "./api.js";

const MOST_BYTES = 200_000; // some hours of speech, all of which is kept in memory
const LONGEST = 1500; // characters of a paragraph; a longer one is split between its sentences
const TIMING = /^(?:\d+\s*\n)?\s*[\d:.,]+\s*-->[^\n]*\n?/;
const SENTENCE_END = /[.!?…。！？]["'”’»)\]]*$/;

const fault = (message) => new ApiError(message, { param: "text_file" });

/** Read a file; returns its paragraphs, and what its text is written in, as a request's `text_format` has it. */
export async function readText(file) {
  const kind = /\.([a-z]+)$/i.exec(file.name)?.[1].toLowerCase();
  if (!["txt", "md", "markdown", "srt"].includes(kind)) throw fault(`The file ${file.name} cannot be read: choose a .txt, .md or .srt file.`);
  if (file.size > MOST_BYTES) {
    throw fault(`The file ${file.name} has ${Math.ceil(file.size / 1000)} kB; at most ${MOST_BYTES / 1000} kB are read. Split the file.`);
  }
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw fault(`The file ${file.name} is not in UTF-8: save it in this encoding, and choose it again.`);
  }
  if (text.includes("\0")) throw fault(`The file ${file.name} is no text: it has characters that no text has.`);
  const lines = text.replaceAll(/\r\n?/g, "\n");
  const markdown = kind.startsWith("m");
  const split = { srt: splitSubtitles, md: splitMarkdown, markdown: splitMarkdown, txt: splitPlain };
  const paragraphs = split[kind](lines).flatMap((part) => (markdown ? [part] : splitLong(part)));
  const said = paragraphs.filter((part) => /[\p{L}\p{N}]/u.test(part));
  if (!said.length) throw fault(`The file ${file.name} has no words to speak.`);
  return { paragraphs: said, text_format: markdown ? "markdown" : "plain" };
}

const splitPlain = (text) => text.split(/\n\s*\n/).map((part) => part.trim());

/** Split at blank lines outside of fences, and before headings; the front matter is left out. */
function splitMarkdown(text) {
  const parts = [[]];
  let fence = "";
  for (const line of text.replace(/^---\n[^]*?\n(?:---|\.\.\.)\n/, "").split("\n")) {
    const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1] ?? "";
    if (!fence && (!line.trim() || /^ {0,3}#{1,6}\s/.test(line))) parts.push([]);
    if (!fence) fence = mark;
    else if (mark.startsWith(fence)) fence = "";
    parts.at(-1).push(line);
  }
  return parts.map((part) => part.join("\n").trim());
}

/** Join the lines of subtitles to sentences, without numbers, times and marks. */
function splitSubtitles(text) {
  const said = [];
  let begun = "";
  for (const cue of text.trim().split(/\n\s*\n/)) {
    const words = cue.trim().replace(TIMING, "").replaceAll(/<[^<>]*>|\{[^{}]*\}/g, "").replaceAll(/\s+/g, " ").trim();
    begun = `${begun} ${words}`.trim();
    if (!SENTENCE_END.test(begun)) continue;
    said.push(begun);
    begun = "";
  }
  return [...said, begun];
}

/** Split a paragraph that is too long between sentences. */
function splitLong(text) {
  if (text.length <= LONGEST) return [text];
  const parts = [""];
  for (const { segment } of new Intl.Segmenter(undefined, { granularity: "sentence" }).segment(text)) {
    if (parts.at(-1).length + segment.length > LONGEST) parts.push("");
    parts[parts.length - 1] += segment;
  }
  return parts.map((part) => part.trim());
}
