// The messages of a conversation on the page.

import { element, find, setText } from "./dom.js";
import { counted, count, digits, percent, seconds } from "./format.js";
import { MarkdownView } from "./markdown.js";

/// How near to the end counts as being there, in pixels.
const nearEnd = 80;

export class ChatView {
  /// - actions: what buttons do: `edit(message)`, `regenerate()` and `useSeed(message)`.
  constructor(actions) {
    this.actions = actions;
    this.root = find("messages");
    this.views = new Map();
    this.conversation = null;
    this.pending = new Set();
    this.root.addEventListener("click", (event) => copyCode(event.target));
  }

  /// Shows a conversation from the beginning.
  show(conversation, isUnderWay) {
    this.conversation = conversation;
    this.views.clear();
    this.root.replaceChildren();
    if (conversation.messages.length === 0) this.root.append(welcome());
    for (const message of conversation.messages) this.add(message);
    this.setUnderWay(isUnderWay);
    this.scrollToEnd();
  }

  /// Shows what was added to the conversation, and takes away what is no longer there.
  sync(isUnderWay) {
    this.root.querySelector(".welcome")?.remove();
    const messages = new Set(this.conversation.messages);
    for (const [message, view] of this.views) {
      if (messages.has(message)) continue;
      view.root.remove();
      this.views.delete(message);
    }
    for (const message of this.conversation.messages) if (!this.views.has(message)) this.add(message);
    this.setUnderWay(isUnderWay);
    this.scrollToEnd();
  }

  add(message) {
    const view = message.role === "user" ? new QuestionView(message, this.actions) : new AnswerView(message, this.actions);
    this.views.set(message, view);
    this.root.append(view.root);
    view.update();
  }

  setUnderWay(isUnderWay) {
    this.root.setAttribute("aria-busy", String(isUnderWay));
    const { messages } = this.conversation;
    const [question, answer] = ["user", "assistant"].map((role) => messages.findLast((message) => message.role === role));
    for (const [message, view] of this.views) {
      if (message.role === "user") view.setState(message === question && !isUnderWay);
      else view.setState(message === answer, message === messages.at(-1) && isUnderWay);
    }
  }

  /// Has a message drawn anew with the next frame.
  update(message) {
    if (!this.views.has(message)) return;
    if (this.pending.size === 0) requestAnimationFrame(() => this.draw());
    this.pending.add(message);
  }

  draw() {
    const wasAtEnd = this.isAtEnd;
    for (const message of this.pending) this.views.get(message)?.update();
    this.pending.clear();
    if (wasAtEnd) this.scrollToEnd();
  }

  get isAtEnd() {
    return this.root.scrollHeight - this.root.scrollTop - this.root.clientHeight < nearEnd;
  }

  scrollToEnd() { this.root.scrollTop = this.root.scrollHeight; }
}

function welcome() {
  return element(
    "div", { class: "welcome" },
    element("p", { class: "lead" }, "Ask the model something."),
    element(
      "p", {}, "Its weights need not fit in memory: what does not stay there is read from the drive in each sweep. "
        + "The engine's panel shows how that goes while an answer comes."));
}

class QuestionView {
  constructor(message, actions) {
    this.message = message;
    this.text = element("div", { class: "text" });
    this.change = element(
      "button", { type: "button", class: "quiet small", onclick: () => actions.edit(message) }, "Edit");
    this.root = element(
      "article", { class: "question" }, element("h3", { class: "visually-hidden" }, "You"), this.text, this.change);
  }

  /// The last question can be put in other words: what follows it goes away.
  setState(isOpen) { this.change.hidden = !isOpen; }

  update() { setText(this.text, this.message.content); }
}

class AnswerView {
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.reasoning = element("div", { class: "prose" });
    this.thoughts = element(
      "details", { class: "reasoning", hidden: true }, element("summary", {}, "Reasoning"), this.reasoning);
    this.body = element("div", { class: "prose" });
    this.progressText = element("span");
    this.bar = element("progress", { max: 1, "aria-label": "Prompt read" });
    this.progress = element("div", { class: "progress", hidden: true }, this.progressText, this.bar);
    this.error = element("p", { class: "error", hidden: true });
    this.facts = element("p", { class: "facts" });
    this.copy = element("button", { type: "button", class: "quiet small", onclick: () => this.copyAll() }, "Copy");
    this.again = element(
      "button", { type: "button", class: "quiet small", onclick: () => actions.regenerate() }, "Regenerate");
    this.seed = element(
      "button", { type: "button", class: "quiet small", onclick: () => actions.useSeed(message) }, "Keep the seed");
    this.foot = element(
      "footer", { hidden: true }, this.facts, element("div", { class: "actions" }, this.copy, this.again, this.seed));
    this.root = element(
      "article", { class: "answer" }, element("h3", { class: "visually-hidden" }, "Answer"), this.thoughts, this.progress,
      this.body, this.error, this.foot);
    this.thoughtView = new MarkdownView(this.reasoning);
    this.bodyView = new MarkdownView(this.body);
  }

  setState(isLast, isUnderWay) {
    this.root.classList.toggle("under-way", isUnderWay);
    this.isUnderWay = isUnderWay;
    this.again.hidden = !isLast;
    this.foot.hidden = isUnderWay;
    this.update();
  }

  update() {
    const { message } = this;
    this.bodyView.update(message.content);
    this.thoughts.hidden = !message.reasoning;
    if (message.reasoning) this.thoughtView.update(message.reasoning);
    const progress = this.isUnderWay ? message.progress ?? (this.isSilent ? { text: "Waiting" } : null) : null;
    this.progress.hidden = !progress;
    if (progress) {
      setText(this.progressText, progress.text);
      this.bar.hidden = progress.share === undefined;
      this.bar.value = progress.share ?? 0;
    }
    this.error.hidden = !message.error;
    setText(this.error, message.error ?? "");
    this.seed.hidden = message.seed === undefined || this.message.finish === "failed";
    this.copy.hidden = message.content === "";
    setText(this.again, message.finish === "failed" ? "Try again" : "Regenerate");
    setText(this.facts, facts(message));
  }

  get isSilent() { return this.message.content === "" && !this.message.reasoning; }

  async copyAll() { await copy(this.message.content, this.copy); }
}

/// What an answer took, in a line.
function facts(message) {
  const { usage, seconds: all, firstSeconds, finish, seed } = message;
  const parts = [];
  if (finish === undefined) parts.push("Interrupted");
  if (finish === "stopped") parts.push("Stopped");
  if (finish === "length") parts.push("Cut at its most tokens");
  if (usage) {
    const answered = usage.completion_tokens;
    parts.push(counted(answered, "token"));
    if (all > firstSeconds && answered > 1) parts.push(`${digits((answered - 1) / (all - firstSeconds))} a second`);
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    const known = cached > 0 ? `, ${percent(cached / usage.prompt_tokens)} known` : "";
    parts.push(`prompt of ${count(usage.prompt_tokens)}${known}`);
  }
  if (firstSeconds !== undefined) parts.push(`first after ${seconds(firstSeconds)}`);
  if (seed !== undefined && finish !== "failed") parts.push(`seed ${seed}`);
  return parts.join(" · ");
}

async function copy(text, button) {
  const label = button.textContent;
  let isDone = true;
  try { await navigator.clipboard.writeText(text); } catch { isDone = copyOldWay(text); }
  setText(find("status"), isDone ? "Copied" : "The browser does not let this page copy");
  setText(button, isDone ? "Copied" : "Not copied");
  setTimeout(() => setText(button, label), 1500);
}

/// Where the clipboard is for secure pages only.
function copyOldWay(text) {
  const area = element("textarea", { class: "visually-hidden" });
  area.value = text;
  document.body.append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  return isDone;
}

function copyCode(target) {
  const button = target.closest?.("button[data-copy]");
  if (button) copy(button.closest(".code").querySelector("code").textContent, button);
}
