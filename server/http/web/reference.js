// Tables of the API's endpoints, fields and errors, out of the OpenAPI document that the server gives.

import { make } from "./dom.js";

const MOST_CHOICES = 8;

export const cell = (...content) => make("td", {}, ...content);
const labelled = (label, content) => make("td", content ? { "data-label": label } : {}, content); // label: on narrow screens
/** Make a cell that has a line of its own on narrow screens. */
export const full = (...content) => make("td", { class: "full" }, ...content);
const head = (...content) => make("th", { scope: "row" }, ...content);
const code = (text) => make("code", {}, text);

/** Make the nodes of a text in which backticks enclose code. */
const marked = (text) => text.split("`").map((part, at) => (at % 2 ? code(part) : part));

/** Write a bound; JSON's numbers beyond 2^53 are read as powers of two. */
const bound = (value) => (Math.abs(value) > Number.MAX_SAFE_INTEGER ? `2^${Math.round(Math.log2(value))}` : String(value));

function range(low, high, below, unit = "") {
  if (low !== undefined && high !== undefined) return `, ${bound(low)} to ${bound(high)}${unit}`;
  const parts = [];
  if (low !== undefined) parts.push(`at least ${bound(low)}${unit}`);
  if (high !== undefined) parts.push(`at most ${bound(high)}${unit}`);
  if (below !== undefined) parts.push(`below ${bound(below)}${unit}`);
  return parts.map((part) => `, ${part}`).join("");
}

/** List in words what a schema allows beside null; `schemas` are those that it may refer to. */
export function kindsOf(schema, schemas) {
  if (schema.$ref) return kindsOf(schemas[schema.$ref.split("/").pop()], schemas);
  if (schema.anyOf) return [...new Set(schema.anyOf.flatMap((each) => kindsOf({ ...schema, anyOf: undefined, ...each }, schemas)))];
  if ("const" in schema) return [String(schema.const)];
  if (schema.enum?.length <= MOST_CHOICES) return [schema.enum.join(", ")];
  return [schema.type].flat().filter((type) => type !== "null").map((type) => {
    if (type === "string") return `string${range(undefined, schema.maxLength, undefined, " characters")}`;
    if (type === "array") return `list of ${kindsOf(schema.items, schemas).join(" or ")}${range(schema.minItems, schema.maxItems)}`;
    if (type !== "object") return type + range(schema.minimum, schema.maximum, schema.exclusiveMaximum);
    const names = Object.keys(schema.properties ?? {}).join(", ");
    return `object${names && ` {${names}}`}${range(undefined, schema.maxProperties, undefined, " entries")}`;
  });
}

const shown = (value) => (value === undefined ? "" : code(typeof value === "string" ? value : JSON.stringify(value)));

/** Yield every operation of the document: `{ path, method, operation, item }`. */
function* operations({ paths }) {
  for (const [path, item] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(item)) {
      if (operation.operationId) yield { path, method, operation, item };
    }
  }
}

/** Make the rows of the endpoints: method, path, what it does, whether it wants a key. */
export const endpointRows = (api) =>
  [...operations(api)].map(({ path, method, operation, item }) => {
    const prefix = item.servers ? "" : api.servers[0].url;
    const wanted = (operation.security ?? api.security).length > 0;
    return make("tr", {},
      cell(code(method.toUpperCase())), head(code(prefix + path)), full(operation.summary), labelled("Key", wanted ? "required" : "none"));
  });

/** Make the rows of a speech request's fields; other names of a field stand with it. */
export function fieldRows({ components: { schemas } }) {
  const { properties, anyOf } = schemas.SpeechRequest;
  const required = anyOf[0].required; // the others are required by their other names
  const all = Object.entries(properties);
  return all.filter(([, field]) => !field["x-alias-of"]).map(([name, field]) => {
    const names = all.filter(([, other]) => other["x-alias-of"] === name).map(([alias]) => alias);
    return make("tr", {},
      head(code(name)),
      cell(kindsOf(field, schemas).join(" or ")),
      cell(required.includes(name) ? "required" : ""),
      labelled("Default", shown(field.default)),
      full(...marked(field.description), ...names.flatMap((alias, at) => [at ? ", " : " Also read from ", code(alias)]), names.length ? "." : ""));
  });
}

/** Make the rows of all errors, by status: status, code, what it means, what to do. */
export function errorRows(api) {
  const found = new Map();
  for (const { operation } of operations(api)) {
    for (const [status, { content }] of Object.entries(operation.responses)) {
      for (const [name, example] of Object.entries(content["application/json"]?.examples ?? {})) {
        if (Number(status) >= 400) found.set(name, { status, ...example });
      }
    }
  }
  const sorted = [...found].sort(([, one], [, other]) => one.status - other.status);
  return sorted.map(([name, { status, summary, description }]) =>
    make("tr", {}, cell(status), head(code(name)), full(...marked(summary)), full(...marked(description))));
}
