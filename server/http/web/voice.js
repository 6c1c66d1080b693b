// Words for what the server tells of a voice.

import { capital } from "./dom.js";

/** Returns the kind of a voice: a speaker, a profile of one, another name, or a stand-in. */
export function kindOf(voice) {
  if (voice.stand_in) return "Stand-ins";
  if (voice.alias_of) return "Other names";
  return voice.speaker && voice.speaker !== voice.id ? "Profiles" : "Speakers";
}

/** Whether a voice is one of its own: no other name, and no stand-in. */
export const isOwn = ({ alias_of: heard, stand_in: standIn }) => !heard && !standIn;

/** Says who is heard if it is not the voice itself. */
export function heardOf({ alias_of: heard, stand_in: standIn }) {
  if (!heard) return "";
  return standIn ? `speaks as ${heard}` : `another name of ${heard}`;
}

/** Returns a line with gender and languages, as far as the server tells them. */
export function factsOf(voice) {
  const languages = voice.languages ?? (voice.language ? [voice.language] : []);
  const spoken = languages.length > 3 ? [`${languages.length} languages`] : languages.map((language) => capital(language.replaceAll("_", " ")));
  return [voice.gender, ...spoken].filter(Boolean).join(" · ");
}

export const wordsOf = (text) => text.toLowerCase().split(/[^\p{L}\p{N}]+/u).filter(Boolean);

/** Whether each wanted word is the beginning of some word that describes the voice. */
export function fits(voice, wanted) {
  const { id, name, description, gender, language, languages, tags } = voice;
  const words = wordsOf([id, name, description, gender, language, languages, tags].flat().filter(Boolean).join(" "));
  return wanted.every((word) => words.some((own) => own.startsWith(word)));
}
