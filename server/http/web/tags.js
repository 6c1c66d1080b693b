// The tags in a text, pauses and changes of the voice, by the grammar of `server/text/tags.py`.

const SECONDS = String.raw`(?:\d+(?:[.,]\d+)?|[.,]\d+)`;
const UNIT = "(?:ms(?:ecs?)?|milliseconds?|s(?:ecs?)?|seconds?)";
const PAUSE = String.raw`\[\s*(?:(?:pause|silence|silent|break)(?:\s*[:=]\s*|\s+))?(?<seconds>${SECONDS})\s*(?<unit>${UNIT})\s*\]`;
const BARE_PAUSE = String.raw`(?<pause>\[\s*pause\s*\])`;
const VOICE = String.raw`\[\s*voice\s*:\s*(?<voice>[^\[\]\s][^\[\]\r\n]{0,255})\]`;
const BREAK = String.raw`<break(?<attributes>(?:\s+[a-z:]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'))*)\s*(?:/>|>(?:\s*</break\s*>)?)`;
const TAG = new RegExp([PAUSE, BARE_PAUSE, VOICE, BREAK].join("|"), "giu");
const ATTRIBUTE = /\s([a-z:]+)\s*=\s*(["'])\s*([^"'<>]*?)\s*\2/giu;
const TIME = new RegExp(String.raw`^\+?(${SECONDS})(m?s)$`, "i");
const STRENGTHS = { none: 0, "x-weak": 0.25, weak: 0.5, medium: 0.75, strong: 1, "x-strong": 1.25 }; // seconds

const secondsOf = (number, unit) => Number(number.replace(",", ".")) / (/^m/i.test(unit) ? 1000 : 1);

/** Returns the seconds of a `<break>`, or undefined if its time is malformed, and so it is text. */
function breakSeconds(attributes) {
  const found = {};
  for (const [, name, , value] of attributes.matchAll(ATTRIBUTE)) found[name.toLowerCase()] = value;
  if ("time" in found) {
    const time = TIME.exec(found.time);
    return time ? secondsOf(time[1], time[2]) : undefined;
  }
  return STRENGTHS[(found.strength ?? "medium").toLowerCase()];
}

function silenceOf({ seconds, unit, pause, attributes }) {
  if (seconds) return secondsOf(seconds, unit);
  return pause ? STRENGTHS.medium : breakSeconds(attributes);
}

/** Returns the tags of a text in their order: where each begins and ends, and its `seconds` or its `voice`. */
export function tagsOf(text) {
  const tags = [];
  for (const { 0: tag, index: start, groups } of text.matchAll(TAG)) {
    const meaning = groups.voice ? { voice: groups.voice.trim() } : { seconds: silenceOf(groups) };
    if (meaning.voice || meaning.seconds !== undefined) tags.push({ start, end: start + tag.length, ...meaning });
  }
  return tags;
}
