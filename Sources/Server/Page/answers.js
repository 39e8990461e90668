// Answers under way, each in its conversation: what is asked, and what becomes of it.

import { chat, Refusal } from "./api.js";
import { count } from "./format.js";

/// Seeds are drawn here, short enough to be typed again.
const drawSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

export class Answers extends EventTarget {
  constructor(conversations) {
    super();
    this.conversations = conversations;
    this.underWay = new Map();
  }

  isUnderWay(conversation) { return this.underWay.has(conversation.id); }
  get ids() { return new Set(this.underWay.keys()); }
  stop(conversation) { this.underWay.get(conversation.id)?.abort(); }

  /// Tells of a change: `phase` is begun, progress, text or ended.
  tell(conversation, message, phase) {
    this.dispatchEvent(new CustomEvent("change", { detail: { conversation, message, phase } }));
  }

  /// Answers a conversation's last message.
  async answer(conversation) {
    const body = request(conversation);
    const message = { role: "assistant", content: "", seed: body.seed };
    const controller = new AbortController();
    conversation.messages.push(message);
    this.underWay.set(conversation.id, controller);
    this.conversations.save(conversation);
    this.tell(conversation, message, "begun");
    const start = performance.now();
    const keeping = setInterval(() => this.conversations.save(conversation), 3000);
    try {
      await chat(body, controller.signal, {
        onComment: (comment) => this.noteComment(conversation, message, comment),
        onChunk: (chunk) => this.noteChunk(conversation, message, chunk, start),
      });
    } catch (error) { noteFailure(message, error, controller.signal.aborted); }
    clearInterval(keeping);
    message.seconds = (performance.now() - start) / 1000;
    delete message.progress;
    this.underWay.delete(conversation.id);
    const isKept = this.conversations.save(conversation);
    this.tell(conversation, message, "ended");
    return isKept;
  }

  noteComment(conversation, message, comment) {
    const queued = /^queued, (\d+) ahead/.exec(comment);
    const reading = /^reading, (\d+) of (\d+) tokens/.exec(comment);
    if (queued) {
      message.progress = { text: `Waiting for a place, ${count(Number(queued[1]))} ahead` };
    } else if (reading) {
      const [done, all] = [Number(reading[1]), Number(reading[2])];
      message.progress = { text: `Reading, ${count(done)} of ${count(all)} tokens`, share: done / all };
    } else {
      return;
    }
    this.tell(conversation, message, "progress");
  }

  noteChunk(conversation, message, chunk, start) {
    if (chunk.usage) message.usage = chunk.usage;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    if (choice.finish_reason) message.finish = choice.finish_reason;
    const { content, reasoning_content: reasoning } = choice.delta ?? {};
    if (!content && !reasoning) return;
    message.firstSeconds ??= (performance.now() - start) / 1000;
    delete message.progress;
    if (reasoning) message.reasoning = (message.reasoning ?? "") + reasoning;
    if (content) message.content += content;
    this.tell(conversation, message, "text");
  }
}

/// The body that asks for the answer to a conversation.
function request(conversation) {
  const { system, temperature, limit, seed } = conversation.settings;
  const messages = conversation.messages
    .filter((message) => message.role === "user" || message.content !== "")
    .map(({ role, content }) => ({ role, content }));
  if (system) messages.unshift({ role: "system", content: system });
  const body = { messages, seed: seed ?? drawSeed() };
  if (temperature !== undefined) body.temperature = temperature;
  if (limit !== undefined) body.max_tokens = limit;
  return body;
}

function noteFailure(message, error, isStopped) {
  if (isStopped) {
    message.finish = "stopped";
  } else {
    message.finish = "failed";
    const again = error.retrySeconds ? ` Try again in ${error.retrySeconds} s.` : "";
    message.error = error instanceof Refusal ? error.message + again : "The server does not answer. Is it running?";
  }
}
