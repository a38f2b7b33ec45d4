// Elements and words: everything shown goes through textContent or text nodes, never through markup.

export const byId = (id) => document.getElementById(id);

const svgNamespace = "http://www.w3.org/2000/svg";

// el makes an element; properties starting with "on" are listeners, the others attributes, false and null none.
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(svgNamespace, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}

// setText writes only what differs: a screen reader need not hear the same twice.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// show puts a text into a notice, or hides it when there is none.
export function show(node, text) {
  setText(node, text || "");
  node.hidden = !text;
}

// describe fills a dl from pairs; those without a value are left out.
export function describe(list, pairs) {
  const told = pairs.filter(([, value]) => value != null && value !== "" && value !== false);
  list.replaceChildren(...told.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
}

// options fills a select from [value, text] pairs and keeps its choice where it still exists.
export function options(select, pairs) {
  const chosen = select.value;
  select.replaceChildren(...pairs.map(([value, text]) => el("option", { value }, text)));
  if (pairs.some(([value]) => value === chosen)) select.value = chosen;
}

export function bytes(n) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) {
    n /= 1000;
    unit++;
  }
  return `${unit === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}

export function seconds(s) {
  if (s > 0 && s < 0.05) return "under 0.1 s";
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

export const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}.${Math.floor((s * 10) % 10)}`;

export const percent = (x) => `${(100 * x).toFixed(x > 0 && x < 0.1 ? 1 : 0)} %`;
