// Captions of a take, from the times at which the pieces of its text are said.

/** Take what is told of a piece: its times, of which the end may be told again once it is known. */
export function noteTime(times, time) {
  const begun = times.findIndex((one) => one.end_time === null && one.start_char === time.start_char && one.start_time === time.start_time);
  if (begun < 0) times.push(time);
  else times[begun] = time;
}

/** Returns the piece that is said at a position, or undefined where there is none; a pause is none. */
export function pieceAt(times, position) {
  const piece = times.findLast(({ start_time: start }) => start <= position);
  return piece?.pause || position >= (piece?.end_time ?? Infinity) ? undefined : piece;
}

function clock(seconds, mark) {
  const rounded = Math.round(1000 * seconds);
  const parts = [rounded / 3_600_000, (rounded / 60_000) % 60, (rounded / 1000) % 60];
  return parts.map((part) => String(Math.floor(part)).padStart(2, "0")).join(":") + mark + String(rounded % 1000).padStart(3, "0");
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** Returns captions as a file: `srt` (SubRip) or `vtt` (W3C's WebVTT); `duration` ends what has no end. */
export function captionFile(times, format, duration) {
  const vtt = format === "vtt";
  const at = (seconds) => clock(seconds, vtt ? "." : ",");
  const said = times.filter(({ text, pause }) => !pause && text.trim());
  const cues = said.map(({ text, start_time: start, end_time: end }, i) => {
    const words = text.trim().replaceAll(/\s+/g, " ");
    return `${i + 1}\n${at(start)} --> ${at(end ?? duration)}\n${vtt ? escaped(words) : words}\n\n`;
  });
  return new Blob([vtt ? "WEBVTT\n\n" : "", ...cues], { type: vtt ? "text/vtt" : "application/x-subrip" });
}
