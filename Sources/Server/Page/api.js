// What the page asks the server, with a key where one is needed.

import { ask, find } from "./dom.js";

const keyName = "flashinfer.key";
let asking = null;

function headers(more = {}) {
  let key = null;
  try { key = sessionStorage.getItem(keyName); } catch { /* Storage is off: it is asked for again. */ }
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

/// Asks for a key, once however many requests were refused; whether there is one now.
///
/// - isWrong: whether one was given, which the server does not know.
function askForKey(isWrong) {
  asking ??= (async () => {
    const dialog = find("key");
    const field = find("key-value");
    find("key-wrong").hidden = !isWrong;
    field.ariaInvalid = isWrong ? "true" : null;
    field.value = "";
    const isUsed = await ask(dialog) === "use" && field.value !== "";
    if (isUsed) {
      try { sessionStorage.setItem(keyName, field.value); } catch { /* As above. */ }
    }
    field.value = "";
    return isUsed;
  })().finally(() => { asking = null; });
  return asking;
}

/// What the server refused a request with.
export class Refusal extends Error {
  constructor(status, message, retrySeconds = null) {
    super(message);
    this.status = status;
    this.retrySeconds = retrySeconds;
  }
}

async function refusal(response) {
  let message = `The server answered with ${response.status}.`;
  try { message = (await response.json()).error.message; } catch { /* It is no error of this server's. */ }
  return new Refusal(response.status, message, Number(response.headers.get("Retry-After")) || null);
}

/// A response that is no refusal.
///
/// - asks: whether a key may be asked for.
async function request(path, { asks = true, ...options }) {
  for (;;) {
    const response = await fetch(path, { ...options, headers: headers(options.headers) });
    if (response.ok) return response;
    if (response.status !== 401) throw await refusal(response);
    const isWrong = "Authorization" in headers();
    if (!asks || !await askForKey(isWrong)) {
      throw new Refusal(401, isWrong ? "The server does not know this key." : "The server asks for a key.");
    }
  }
}

export async function get(path, options = {}) {
  return (await request(path, { cache: "no-store", ...options })).json();
}

/// The blocks of a stream of server-sent events.
async function* blocks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      yield text.slice(0, end);
      text = text.slice(end + 2);
    }
  }
}

/// Asks for a chat's next message. `onComment` is told what the server says while it waits or reads, `onChunk` each chunk.
export async function chat(body, signal, { onComment, onChunk }) {
  const response = await request("v1/chat/completions", {
    method: "POST", signal, headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
  });
  for await (const block of blocks(response.body)) {
    if (block.startsWith(":")) {
      onComment(block.slice(1).trim());
    } else if (block === "data: [DONE]") {
      return;
    } else if (block.startsWith("data: ")) {
      const chunk = JSON.parse(block.slice(6));
      if (chunk.error) throw new Refusal(500, chunk.error.message);
      onChunk(chunk);
    }
  }
  throw new Refusal(0, "The connection ended before the answer did.");
}
