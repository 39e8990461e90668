// What the page does: its conversations, its composer, its settings.

import { get } from "./api.js";
import { Answers } from "./answers.js";
import { ChatView } from "./chat.js";
import { Conversations, download, markdownOf, titleOf } from "./conversations.js";
import { ask, element, find, setText } from "./dom.js";
import { count, counted } from "./format.js";
import { EnginePanel } from "./engine.js";

const conversations = new Conversations();
const answers = new Answers(conversations);
const view = new ChatView({ edit, regenerate, useSeed });
const panel = new EnginePanel(find("engine"));
const prompt = find("prompt");
let current = conversations.all[0] ?? conversations.make();

/// Says something to who cannot see it.
function announce(text) { setText(find("status"), text); }

// Conversations

/// What was written in the message box of each and not sent.
const drafts = new Map();
/// A question that is being put in other words, and what follows it, until it is sent.
let edited = null;

function open(conversation) {
  if (conversation.id !== current.id) {
    drafts.set(current.id, edited ? "" : prompt.value);
    edited?.conversation.messages.push(...edited.messages);
    edited = null;
    prompt.value = drafts.get(conversation.id) ?? "";
    fit();
  }
  current = conversation;
  view.show(current, answers.isUnderWay(current));
  showState();
  if (find("conversations").popover) find("conversations").hidePopover();
}

function showState() {
  const isUnderWay = answers.isUnderWay(current);
  const isNew = current.messages.length === 0;
  setText(find("title"), titleOf(current));
  document.title = isNew ? "FlashInfer" : `${titleOf(current)} – FlashInfer`;
  for (const id of ["export", "delete"]) find(id).hidden = isNew;
  // The button that has the focus stays where it was.
  const hadFocus = [find("send"), find("stop")].includes(document.activeElement);
  find("send").hidden = isUnderWay;
  find("stop").hidden = !isUnderWay;
  if (hadFocus) (isUnderWay ? find("stop") : prompt).focus();
  const usage = current.messages.findLast((message) => message.usage)?.usage;
  const most = panel.contextLength;
  setText(find("context"), usage && most ? `${count(usage.total_tokens)} of ${counted(most, "token")} of the context` : "");
  showList();
}

function showList() {
  const items = conversations.all.map((conversation) => element(
    "li", {}, element(
      "button", {
        type: "button", class: answers.isUnderWay(conversation) ? "under-way" : null,
        "aria-current": conversation.id === current.id ? "true" : null,
        "data-id": conversation.id,
      }, titleOf(conversation),
      answers.isUnderWay(conversation) ? element("span", { class: "visually-hidden" }, ", being answered") : null)));
  const focused = document.activeElement?.dataset?.id;
  find("conversation-list").replaceChildren(...items);
  if (focused) find("conversation-list").querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
}

find("conversation-list").addEventListener("click", (event) => {
  const id = event.target.closest("button")?.dataset.id;
  if (id && conversations.byId.has(id)) open(conversations.byId.get(id));
});

find("new-conversation").addEventListener("click", () => {
  open(conversations.make());
  prompt.focus();
});

find("delete").addEventListener("click", async () => {
  if (await ask(find("confirm")) !== "delete") return;
  answers.stop(current);
  conversations.remove(current.id);
  announce("Deleted");
  open(conversations.all[0] ?? conversations.make());
  prompt.focus();
});

find("export").addEventListener("click", () => {
  const name = titleOf(current).replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "conversation";
  download(`${name}.md`, "text/markdown", markdownOf(current));
});

find("export-all").addEventListener("click", () => {
  download("flashinfer-conversations.json", "application/json", JSON.stringify(conversations.all, null, 2));
});

// A page that is closed keeps what has come so far.
addEventListener("pagehide", () => {
  for (const id of answers.ids) conversations.save(conversations.byId.get(id));
});

addEventListener("storage", () => {
  conversations.load(answers.ids);
  const stored = conversations.byId.get(current.id);
  if (!stored || stored === current) return showList();
  const isAsShown = JSON.stringify(stored.messages) === JSON.stringify(current.messages);
  // Of what is as it was nothing moves.
  if (!isAsShown && !edited) return open(stored);
  current.settings = stored.settings;
  conversations.byId.set(current.id, current);
  showList();
});

// Messages

async function send() {
  const text = prompt.value.trim();
  if (text === "" || answers.isUnderWay(current)) return;
  prompt.value = "";
  edited = null;
  fit();
  current.messages.push({ role: "user", content: text });
  await answer();
}

async function answer() {
  const isKept = await answers.answer(current);
  if (!isKept) announce("The browser has no room: this conversation is not kept");
}

function regenerate() {
  if (answers.isUnderWay(current)) return;
  if (current.messages.at(-1)?.role === "assistant") current.messages.pop();
  answer();
  find("stop").focus();
}

/// Puts a question back into the message box, to be put in other words; it is kept until it is sent.
function edit(message) {
  edited = { conversation: current, messages: current.messages.splice(current.messages.indexOf(message)) };
  prompt.value = message.content;
  view.show(current, false);
  showState();
  fit();
  prompt.focus();
}

answers.addEventListener("change", ({ detail: { conversation, message, phase } }) => {
  const isShown = conversation.id === current.id;
  if (isShown && (phase === "begun" || phase === "ended")) view.sync(phase === "begun");
  if (isShown) view.update(message);
  if (phase === "begun" || phase === "ended") showState();
  panel.wake();
  // Only the turns are said, not each token.
  if (isShown) tellTurn(message, phase);
});

let lastTurn = "";

function tellTurn(message, phase) {
  let turn = "";
  if (phase === "begun") turn = "Sent";
  if (phase === "progress") turn = message.progress.share === undefined ? message.progress.text : "Reading the prompt";
  if (phase === "text") turn = "Answering";
  if (phase === "ended") {
    turn = message.error ?? `The answer is complete, ${counted(message.usage?.completion_tokens ?? 0, "token")}`;
    if (message.finish === "stopped") turn = "Stopped";
  }
  if (turn !== lastTurn) announce(turn);
  lastTurn = turn;
}

find("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});

find("stop").addEventListener("click", () => answers.stop(current));

prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});

addEventListener("keydown", (event) => {
  const isFree = !document.querySelector("dialog[open], [popover]:popover-open");
  if (event.key === "Escape" && isFree) answers.stop(current);
});

function fit() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}
prompt.addEventListener("input", fit);

// Settings

const numbers = [["temperature", "temperature"], ["max-tokens", "limit"], ["seed", "seed"]];

find("open-settings").addEventListener("click", async () => {
  const dialog = find("settings");
  find("system").value = current.settings.system ?? "";
  for (const [id, key] of numbers) find(id).value = current.settings[key] ?? "";
  if (await ask(dialog) !== "save") return;
  const settings = { system: find("system").value.trim() };
  for (const [id, key] of numbers) if (find(id).value !== "") settings[key] = Number(find(id).value);
  change(settings);
  announce("Settings saved");
});

function useSeed(message) {
  change({ ...current.settings, seed: message.seed });
  announce(`Answers are drawn with the seed ${message.seed} from here on`);
}

function change(settings) {
  current.settings = settings;
  // A seed is that of one conversation: elsewhere it would only make answers alike.
  const { seed, ...usual } = settings;
  conversations.defaults = usual;
  if (current.messages.length > 0) conversations.save(current);
}

// Theme

const themes = { auto: "Colours of the system", light: "Light colours", dark: "Dark colours" };

function showTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  setText(find("theme-label"), themes[theme]);
  find("theme").title = themes[theme];
}

find("theme").addEventListener("click", () => {
  const names = Object.keys(themes);
  const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % names.length];
  showTheme(next);
  try { localStorage.setItem("flashinfer.theme", next); } catch { /* It lasts as long as the page. */ }
  announce(themes[next]);
});

// Layout: what stands beside the conversation lies over it where there is no room.

for (const [id, width] of [["conversations", "60rem"], ["engine", "80rem"]]) {
  const query = matchMedia(`(width < ${width})`);
  const adapt = () => { find(id).popover = query.matches ? "auto" : null; };
  query.addEventListener("change", adapt);
  adapt();
}

showTheme(document.documentElement.dataset.theme ?? "auto");
open(current);
prompt.focus();
panel.onModel = (name) => {
  setText(find("model"), name);
  showState();
};
panel.start((path, options) => get(path, options));
