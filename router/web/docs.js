// The page at /docs: the OpenAPI document of this very router, for people.

import { h } from "./dom.js";

const DESCRIPTION = "/openapi.json";
const METHODS = ["get", "post", "put", "patch", "delete"];
const ANSWERS = {
  200: "Done",
  201: "Created",
  202: "Accepted",
  204: "Done; no body",
  "4XX": "The request is at fault",
  "5XX": "The router, or what it needs, is at fault",
};

const anchor = (...parts) => parts.join("-").toLowerCase().replace(/[^a-z0-9]+/g, "-");
const referred = (schema) => schema.$ref?.split("/").at(-1);

/** Text in which `words` between back-ticks are code, in paragraphs. */
function prose(text) {
  const paragraph = (part) =>
    h("p", {}, ...part.split("`").map((piece, place) => (place % 2 ? h("code", { text: piece }) : piece)));
  return text.split(/\n\s*\n/).filter(Boolean).map(paragraph);
}

/** A schema in a few words: "list of TaskShape", "integer or null"; names lead to their tables. */
function type(schema) {
  const name = referred(schema);
  if (name) return [h("a", { href: `#${anchor("object", name)}`, text: name })];
  const others = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (others) return others.flatMap((other, place) => (place ? [" or ", ...type(other)] : type(other)));
  if (schema.const !== undefined) return [h("code", { text: JSON.stringify(schema.const) })];
  if (schema.enum) {
    return schema.enum.flatMap((value, place) => [place ? ", " : "", h("code", { text: JSON.stringify(value) })]);
  }
  if (schema.type === "array") return ["list of ", ...type(schema.items ?? {})];
  if (schema.type === "object") {
    const values = schema.additionalProperties;
    return values && values !== true ? ["map to ", ...type(values)] : ["object"];
  }
  return [schema.type ?? "anything"];
}

function bounds({ minimum, maximum }) {
  if (minimum !== undefined && maximum !== undefined) return `${minimum} to ${maximum}`;
  if (minimum !== undefined) return `at least ${minimum}`;
  return maximum === undefined ? "" : `at most ${maximum}`;
}

/** What else is known of a field: needed, its default, its bounds. */
function notes(schema, required) {
  const said = [];
  if (required) said.push("required");
  if (schema.default !== undefined && schema.default !== null && schema.default !== "") {
    said.push(`default ${JSON.stringify(schema.default)}`);
  }
  for (const part of [schema, ...(schema.anyOf ?? [])]) said.push(bounds(part));
  return said.filter(Boolean).join(", ");
}

/** @param {Array<[string, object, boolean, string]>} fields name, schema, required, where it goes */
function table(caption, fields) {
  return h(
    "div",
    { class: "docs-table" },
    h(
      "table",
      {},
      h("caption", { text: caption }),
      h(
        "tbody",
        {},
        ...fields.map(([name, schema, required, place]) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, h("code", { text: name })),
            h("td", {}, ...type(schema)),
            h("td", { class: "quiet", text: [place, notes(schema, required)].filter(Boolean).join(", ") }),
          ),
        ),
      ),
    ),
  );
}

function fieldsOf(schema) {
  const required = new Set(schema.required ?? []);
  return Object.entries(schema.properties ?? {}).map(([name, field]) => [name, field, required.has(name), ""]);
}

function body(schema, schemas) {
  const name = referred(schema);
  return name ? table("Body", fieldsOf(schemas[name])) : h("p", {}, "Body: ", ...type(schema));
}

function answers(responses) {
  return h(
    "ul",
    { class: "docs-answers" },
    ...Object.entries(responses).map(([status, response]) => {
      const schema = response.content?.["application/json"]?.schema;
      const shown = schema && Object.keys(schema).length ? [": ", ...type(schema)] : [];
      return h(
        "li",
        {},
        h("span", { class: "docs-status", "data-class": status[0], text: status }),
        h("span", {}, ANSWERS[status] ?? response.description, ...shown),
      );
    }),
  );
}

function request(path, method, operation, schemas) {
  const id = anchor(method, path);
  const schema = operation.requestBody?.content?.["application/json"]?.schema;
  const parameters = operation.parameters ?? [];
  return h(
    "article",
    { class: "docs-request", id },
    h(
      "h3",
      {},
      h("span", { class: "docs-method", "data-method": method, text: method.toUpperCase() }),
      h("a", { class: "docs-path", href: `#${id}` }, h("code", { text: path })),
    ),
    ...prose(operation.description ?? ""),
    parameters.length
      ? table("Parameters", parameters.map((one) => [one.name, one.schema, one.required, one.in]))
      : null,
    schema ? body(schema, schemas) : null,
    answers(operation.responses),
  );
}

function object(name, schema) {
  const values = schema.enum ? h("p", {}, ...type({ enum: schema.enum })) : null;
  return h(
    "article",
    { class: "docs-request", id: anchor("object", name) },
    h("h3", {}, h("code", { text: name })),
    ...prose(schema.description ?? ""),
    values ?? table("Fields", fieldsOf(schema)),
  );
}

/** Requests by their tag, in the order of the document. */
function byTag(paths) {
  const groups = new Map();
  for (const [path, methods] of Object.entries(paths)) {
    for (const method of METHODS.filter((known) => methods[known])) {
      const tag = methods[method].tags?.[0] ?? "other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push([path, method, methods[method]]);
    }
  }
  return groups;
}

function contents(groups) {
  const group = ([tag, requests]) =>
    h(
      "li",
      {},
      h("a", { class: "docs-group", href: `#${anchor("tag", tag)}`, text: tag }),
      h(
        "ul",
        {},
        ...requests.map(([path, method]) =>
          h(
            "li",
            {},
            h(
              "a",
              { href: `#${anchor(method, path)}` },
              h("span", { class: "docs-method", "data-method": method, text: method.toUpperCase() }),
              h("code", { text: path }),
            ),
          ),
        ),
      ),
    );
  return h(
    "nav",
    { class: "docs-contents", "aria-label": "Requests" },
    h("ul", {}, ...[...groups].map(group), h("li", {}, h("a", { class: "docs-group", href: "#objects", text: "objects" }))),
  );
}

function page(description) {
  const schemas = description.components?.schemas ?? {};
  const groups = byTag(description.paths);
  return [
    contents(groups),
    h(
      "div",
      { class: "docs-body" },
      h(
        "section",
        { class: "docs-intro" },
        ...prose(description.info.summary ?? ""),
        ...prose(
          'JSON. Times are RFC 3339 in UTC, sizes are bytes. Every error is `{"error": {"message", "type", "param", "code"}}` with a stable `code`; where a wait helps, `Retry-After` says how long. `HEAD` is answered wherever `GET` is.',
        ),
        h("pre", {}, h("code", { text: `curl ${location.origin}/v1/models` })),
      ),
      ...[...groups].map(([tag, requests]) =>
        h(
          "section",
          { id: anchor("tag", tag) },
          h("h2", { text: tag }),
          ...requests.map(([path, method, operation]) => request(path, method, operation, schemas)),
        ),
      ),
      h(
        "section",
        { id: "objects" },
        h("h2", { text: "objects" }),
        ...Object.entries(schemas).map(([name, schema]) => object(name, schema)),
      ),
    ),
  ];
}

async function show() {
  const content = document.getElementById("content");
  const state = document.getElementById("state");
  try {
    const answer = await fetch(DESCRIPTION);
    if (!answer.ok) throw new Error(`${DESCRIPTION} answered ${answer.status}`);
    const description = await answer.json();
    document.getElementById("version").textContent = `${description.info.title} ${description.info.version}`;
    content.replaceChildren(...page(description));
    document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  } catch (error) {
    state.textContent = `This page cannot be shown: ${error.message}. Load it again once the router is back.`;
  }
}

await show();
