// The server's HTTP API: errors in its own words, the keys, server-sent events over fetch (an EventSource cannot
// send a key).

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

// The keys of a tab, by their names: the operator's, which /cache/* asks for, and the one that all else does.
export const adminKey = "barkd-admin-key";
export const apiKey = "barkd-api-key";

export const keepKey = (name, key) => (key ? sessionStorage.setItem(name, key) : sessionStorage.removeItem(name));
export const hasKey = (name) => sessionStorage.getItem(name) !== null;

// keyFor is the key that a path is sent; a server without an operator's key takes any other for /cache/*.
const keyFor = (path) => (path.startsWith("/cache/") && sessionStorage.getItem(adminKey)) || sessionStorage.getItem(apiKey);

// request sends one request and returns its response, or throws an ApiError; json is a body already written as JSON.
export async function request(path, { method = "GET", json, accept, signal } = {}) {
  const headers = {};
  if (accept) headers.Accept = accept;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  const key = keyFor(path);
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { method, headers, body: json, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The server does not answer.");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  const told = await response.json().then((body) => body.error, () => null);
  let message = told?.message ?? `The server answered ${response.status}.`;
  const wait = response.headers.get("Retry-After");
  if (wait) message += ` Try again in ${wait} s.`;
  return new ApiError(response.status, told?.code, message);
}

export const get = async (path, signal) => (await request(path, { signal })).json();

// path writes a model id as the end of a route: its slash stays one.
export const path = (id) => id.split("/").map(encodeURIComponent).join("/");

// events yields what a text/event-stream says: {event, id, data} or {comment}.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) yield parse(text.slice(0, end));
  }
}

function parse(block) {
  const out = {};
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    const value = line.slice(at + 1).replace(/^ /, "");
    if (at === 0) out.comment = value;
    else if (line.startsWith("data:")) out.data = JSON.parse(value);
    else out[line.slice(0, at)] = value;
  }
  return out;
}
