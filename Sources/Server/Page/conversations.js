// Conversations, kept in the browser: each under a key of its own, so that tabs do not overwrite one another's.

const prefix = "flashinfer.conversation.";
const defaultsName = "flashinfer.settings";

function read(key) {
  try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
}

/// Writes a value; false where the browser keeps nothing, or no more.
function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch { return false; }
}

const isConversation = (value) =>
  typeof value?.id === "string" && Array.isArray(value.messages)
  && value.messages.every((message) => typeof message?.content === "string");

export class Conversations {
  constructor() {
    this.byId = new Map();
    this.load();
  }

  /// Reads what there is; those that are under way here stay as they are.
  load(underWay = new Set()) {
    const stored = new Map();
    let keys = [];
    try { keys = Object.keys(localStorage).filter((key) => key.startsWith(prefix)); } catch { /* Storage is off. */ }
    for (const key of keys) {
      const value = read(key);
      if (!isConversation(value) || prefix + value.id !== key) continue;
      stored.set(value.id, underWay.has(value.id) ? this.byId.get(value.id) : value);
    }
    for (const id of underWay) if (this.byId.has(id)) stored.set(id, this.byId.get(id));
    this.byId = stored;
  }

  /// The one that changed last first.
  get all() { return [...this.byId.values()].sort((left, right) => right.changed - left.changed); }

  make() {
    const now = Date.now();
    return { id: crypto.randomUUID?.() ?? `${now}-${Math.random()}`, title: "", created: now, changed: now,
      settings: this.defaults, messages: [] };
  }

  /// Keeps a conversation; false where the browser does not.
  save(conversation) {
    conversation.changed = Date.now();
    this.byId.set(conversation.id, conversation);
    return write(prefix + conversation.id, conversation);
  }

  remove(id) {
    this.byId.delete(id);
    try { localStorage.removeItem(prefix + id); } catch { /* It was never kept. */ }
  }

  /// Settings of new conversations.
  get defaults() { return { ...read(defaultsName) }; }
  set defaults(settings) { write(defaultsName, settings); }
}

/// What a conversation is called: how it begins.
export function titleOf(conversation) {
  const first = conversation.messages.find((message) => message.role === "user")?.content ?? "";
  const line = first.trim().split("\n")[0];
  if (line === "") return "New conversation";
  return line.length > 60 ? `${line.slice(0, 59).trimEnd()}…` : line;
}

/// A conversation as a document for people.
export function markdownOf(conversation) {
  const parts = [`# ${titleOf(conversation)}`];
  if (conversation.settings.system) parts.push(`> ${conversation.settings.system.replaceAll("\n", "\n> ")}`);
  for (const message of conversation.messages) {
    const seed = message.seed === undefined ? "" : ` (seed ${message.seed})`;
    parts.push(`## ${message.role === "user" ? "You" : "Answer"}${seed}`, message.content);
  }
  return `${parts.join("\n\n")}\n`;
}

/// Has the browser save a file.
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
