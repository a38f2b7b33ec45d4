// The page of the API: every route of openapi.json, by its tag.

import { get } from "./api.js";
import { byId, el, show } from "./dom.js";

const methods = ["get", "post", "put", "delete"];
const maxDepth = 4; // of schemas inside schemas
let spec;

// follow resolves a reference within the document.
function follow(part) {
  if (!part?.$ref) return part;
  return part.$ref.slice(2).split("/").reduce((at, key) => at[key.replaceAll("~1", "/").replaceAll("~0", "~")], spec);
}

// inline writes `code` as code.
const inline = (text) => text.split("`").map((piece, i) => (i % 2 ? el("code", {}, piece) : piece)).filter((piece) => piece !== "");

// prose writes paragraphs and lists of what OpenAPI calls CommonMark; no more of it is used.
function prose(text = "") {
  return text.trim().split(/\n\s*\n/).filter(Boolean).flatMap((block) => {
    const [before, ...items] = block.split(/(?:^|\n)- /);
    return [before.trim() && el("p", {}, ...inline(before)),
      items.length > 0 && el("ul", {}, ...items.map((item) => el("li", {}, ...inline(item))))].filter(Boolean);
  });
}

// kind says in a few words what values a schema has.
function kind(schema) {
  schema = follow(schema) ?? {};
  const either = schema.oneOf ?? schema.anyOf;
  if (either) return either.map(kind).join(" or ");
  if ("const" in schema) return JSON.stringify(schema.const);
  const parts = [];
  if (schema.enum) parts.push(schema.enum.map((value) => JSON.stringify(value)).join(", "));
  else if (schema.type === "array") parts.push(`list of ${kind(schema.items)}`);
  else parts.push([schema.type ?? "anything"].flat().join(" or "));
  if (schema.format) parts.push(schema.format);
  if (schema.minimum !== undefined) parts.push(`from ${schema.minimum}`);
  if (schema.exclusiveMinimum !== undefined) parts.push(`above ${schema.exclusiveMinimum}`);
  if (schema.maximum !== undefined) parts.push(`to ${schema.maximum}`);
  if (schema.maxLength !== undefined) parts.push(`at most ${schema.maxLength} characters`);
  if (schema.default !== undefined) parts.push(`default ${JSON.stringify(schema.default)}`);
  return parts.join(", ");
}

// shape finds the object whose fields a schema has, through lists and alternatives.
function shapes(schema) {
  schema = follow(schema) ?? {};
  if (schema.properties) return [schema];
  if (schema.items) return shapes(schema.items);
  return (schema.oneOf ?? schema.anyOf ?? []).flatMap(shapes);
}

function fields(schema, depth = 0) {
  if (depth >= maxDepth) return [];
  return shapes(schema).map((shape) => el("dl", { class: "fields" }, ...Object.entries(shape.properties).map(([name, of]) =>
    field(name, of, shape.required?.includes(name), depth + 1))));
}

function field(name, schema, needed, depth, description) {
  const of = follow(schema) ?? {};
  const inside = fields(of, depth);
  return el("div", {},
    el("dt", {}, name, needed && el("span", { class: "needed" }, " required")),
    el("dd", {}, el("p", { class: "kind" }, kind(of)), ...prose(description ?? of.description),
      inside.length > 0 && el("details", {}, el("summary", {}, `Fields of ${name}`), ...inside)));
}

const block = (title, ...content) => el("div", {}, el("h4", {}, title), ...content);

function parameters(operation) {
  const all = (operation.parameters ?? []).map(follow);
  if (all.length === 0) return null;
  return block("Parameters", el("dl", { class: "fields" }, ...all.map((p) =>
    field(`${p.name}${p.in === "path" ? "" : ` (${p.in})`}`, p.schema, p.required, 1, p.description ?? follow(p.schema)?.description))));
}

function body(operation) {
  const content = follow(operation.requestBody)?.content;
  if (!content) return null;
  return block("Body", ...Object.entries(content).flatMap(([type, { schema }]) => [el("p", { class: "kind" }, type), ...fields(schema)]));
}

function responses(operation) {
  return block("Answers", el("dl", { class: "fields" }, ...Object.entries(operation.responses).map(([status, response]) => {
    const { description, headers, content } = follow(response);
    const types = Object.entries(content ?? {});
    const inside = types.flatMap(([, { schema }]) => fields(schema, 1));
    const named = Object.entries(headers ?? {});
    return el("div", {}, el("dt", {}, status), el("dd", {}, ...prose(description),
      types.length > 0 && el("p", { class: "kind" }, types.map(([type]) => type).join(", ")),
      named.length > 0 && el("details", {}, el("summary", {}, `Headers of ${status}`),
        el("dl", { class: "fields" }, ...named.map(([name, header]) => field(name, follow(header).schema, false, 1, follow(header).description)))),
      inside.length > 0 && el("details", {}, el("summary", {}, `Fields of ${status}`), ...inside)));
  })));
}

// example makes a value of a schema: what is required, and what has an example.
function example(schema) {
  schema = follow(schema) ?? {};
  if (schema.example !== undefined) return schema.example;
  if (schema.default !== undefined) return schema.default;
  if (schema.enum) return schema.enum[0];
  if (schema.oneOf) return example(schema.oneOf[0]);
  if (schema.type === "array") return [example(schema.items)];
  if (schema.properties) {
    const wanted = Object.entries(schema.properties).filter(([name, of]) => schema.required?.includes(name) || follow(of).example !== undefined);
    return Object.fromEntries(wanted.map(([name, of]) => [name, example(of)]));
  }
  return { integer: 1, number: 1, boolean: true }[schema.type] ?? "Hello.";
}

// curl is a command that asks for the route here.
function curl(method, path, operation) {
  const given = (operation.parameters ?? []).map(follow);
  const value = (p) => p.example ?? example(p.schema);
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => {
    const p = given.find((one) => one.in === "path" && one.name === name);
    return p ? String(value(p)) : name;
  });
  const query = given.filter((p) => p.in === "query" && p.required).map((p) => `${p.name}=${encodeURIComponent(value(p))}`).join("&");
  const lines = [`curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}'${location.origin}${filled}${query && `?${query}`}'`];
  const content = follow(operation.requestBody)?.content;
  const json = content?.["application/json"];
  if (json) lines.push("-H 'Content-Type: application/json'", `-d '${JSON.stringify(json.example ?? example(json.schema))}'`);
  else if (content?.["multipart/form-data"]) {
    for (const [name, of] of Object.entries(example(content["multipart/form-data"].schema))) lines.push(`-F '${name}=${of}'`);
  }
  if (Object.keys(follow(operation.responses["200"])?.content ?? {}).some((type) => type.startsWith("audio/"))) lines.push("-o speech");
  return el("pre", { tabindex: "0", role: "region", "aria-label": `How to ask ${operation.operationId} with curl` }, lines.join(" \\\n  "));
}

function route({ method, path, operation }) {
  return el("article", { class: "route panel", id: operation.operationId, "aria-labelledby": `${operation.operationId}-title` },
    el("h3", { id: `${operation.operationId}-title` }, el("span", { class: "method", "data-method": method }, method.toUpperCase()), el("span", {}, path)),
    el("div", { class: "prose" }, el("p", {}, operation.summary), ...prose(operation.description)),
    curl(method, path, operation), parameters(operation), body(operation), responses(operation));
}

function write() {
  byId("about").replaceChildren(...prose(spec.info.description));
  const all = Object.entries(spec.paths).flatMap(([path, item]) => methods.filter((method) => item[method])
    .map((method) => ({ method, path, operation: item[method] })));
  for (const { name, description } of spec.tags) {
    const own = all.filter((one) => one.operation.tags.includes(name));
    const id = `tag-${name.toLowerCase().replaceAll(" ", "-")}`;
    byId("contents").append(el("h2", {}, name), el("ul", {}, ...own.map(({ method, path, operation }) =>
      el("li", {}, el("a", { href: `#${operation.operationId}` }, `${method.toUpperCase()} ${path}`)))));
    byId("routes").append(el("section", { "aria-labelledby": id }, el("h2", { id }, name),
      el("div", { class: "prose" }, ...prose(description)), ...own.map(route)));
  }
}

try {
  spec = await get("/openapi.json");
  write();
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
} catch (error) {
  show(byId("docs-error"), error.message);
}
