// What the engine does, as it does it: weights, sweep, drive, sequences.

import { element, setText } from "./dom.js";
import { bytes, count, counted, digits, percent, rate, seconds } from "./format.js";

const busyMilliseconds = 500;
const idleMilliseconds = 2500;
/// Figures are those of the last seconds.
const windowSeconds = 4;
const chartSeconds = 60;
const mostAnswers = 5;

export class EnginePanel {
  constructor(root) {
    this.root = root;
    this.samples = [];
    this.onModel = () => {};
    this.hasAsked = false;
    this.build();
    const resume = () => { if (this.isWatched) this.wake(); };
    document.addEventListener("visibilitychange", resume);
    root.addEventListener("toggle", resume);
  }

  get contextLength() { return this.state?.context_length; }
  /// Whether anybody can see it.
  get isWatched() { return !document.hidden && (!this.root.popover || this.root.matches(":popover-open")); }

  start(get) {
    this.get = get;
    this.poll();
  }

  /// Looks at once, because something has changed.
  wake() {
    if (!this.timer || !this.isWatched) return;
    clearTimeout(this.timer);
    this.timer = null;
    this.poll();
  }

  async poll() {
    let delay = idleMilliseconds;
    try {
      // A key is asked for once; who has none can say so.
      const asks = !this.hasAsked;
      this.hasAsked = true;
      const state = await this.get("state", { asks });
      const isFirst = !this.state;
      this.state = state;
      this.note(state);
      this.show();
      if (isFirst) this.onModel(state.model);
      if (state.sequences.open + state.sequences.queued > 0) delay = busyMilliseconds;
    } catch (error) {
      this.chip.dataset.state = "failed";
      setText(this.chip, error.status === 401 ? "No key" : "No answer");
    }
    this.timer = setTimeout(() => {
      this.timer = null;
      if (this.isWatched || !this.state) this.poll();
      else this.timer = setTimeout(() => this.wake(), idleMilliseconds);
    }, delay);
  }

  note(state) {
    // Another process has other counters.
    if (this.samples.length > 0 && state.uptime_seconds < this.samples.at(-1).uptime_seconds) this.samples = [];
    this.samples.push(state);
    while (this.samples[0].uptime_seconds < state.uptime_seconds - chartSeconds) this.samples.shift();
  }

  /// The state some seconds ago.
  get before() {
    const end = this.state.uptime_seconds - windowSeconds;
    return this.samples.findLast((sample) => sample.uptime_seconds <= end) ?? this.samples[0];
  }

  build() {
    this.chip = element("span", { class: "chip" }, "…");
    this.tape = new Tape();
    this.chart = new Chart();
    this.answers = element("ul", { class: "answers" });
    this.groups = {
      drive: new Group("Drive", "Busy", "Sweeps wait for it", "Read since the start", "Keys and values written"),
      sweeps: new Group("Sweeps", "Rows in each", "Tokens drawn", "Drafts that were right"),
      experts: new Group("Experts", "In memory"),
      sequences: new Group("Sequences", "Answering", "Reading", "Queued", "Places"),
      prompts: new Group("Prompts", "Tokens known from before"),
    };
    const { drive, sweeps, experts, sequences, prompts } = this.groups;
    const closer = element(
      "button", { type: "button", class: "quiet small closer", popovertarget: "engine", popovertargetaction: "hide" }, "Close");
    drive.list.before(this.chart.root);
    sequences.list.className = "counts";
    sequences.list.after(this.answers);
    this.root.replaceChildren(
      element("div", { class: "side-title" }, element("h2", { id: "engine-title" }, "Engine"), this.chip, closer),
      this.tape.root, drive.root, sweeps.root, sequences.root, experts.root, prompts.root);
  }

  show() {
    const { state } = this;
    const isBusy = state.sequences.open > 0;
    this.chip.dataset.state = state.failure ? "failed" : isBusy ? "busy" : "idle";
    setText(this.chip, state.failure ? "Failed" : isBusy ? "Sweeping" : "Idle");
    this.chip.title = state.failure ?? "";
    this.tape.show(state);
    this.showDrive();
    this.showSweeps();
    this.showExperts();
    this.showSequences();
    const { tokens, cached_tokens: cached } = state.prompts;
    this.groups.prompts.show(tokens > 0 ? percent(cached / tokens) : "–", {
      "Tokens known from before": tokens > 0 ? `${count(cached)} of ${count(tokens)}` : "–",
    });
  }

  showDrive() {
    const { state, before } = this;
    const time = state.uptime_seconds - before.uptime_seconds;
    const speed = time > 0 ? (state.drive.bytes_read - before.drive.bytes_read) / time : 0;
    const busy = time > 0 ? (state.drive.busy_seconds - before.drive.busy_seconds) / time : 0;
    const sweeping = state.sweep.seconds - before.sweep.seconds;
    const waiting = state.drive.wait_seconds - before.drive.wait_seconds;
    const written = state.drive.key_value_bytes_written;
    this.chart.show(this.samples);
    this.groups.drive.show(rate(speed), {
      Busy: percent(Math.min(1, busy)),
      "Sweeps wait for it": sweeping > 0 ? percent(Math.min(1, waiting / sweeping)) : "–",
      "Read since the start": bytes(state.drive.bytes_read),
      "Keys and values written": written > 0 ? bytes(written) : null,
    });
  }

  showSweeps() {
    const { state, before } = this;
    const sweeps = state.sweep.count - before.sweep.count;
    const time = state.uptime_seconds - before.uptime_seconds;
    const drawn = state.sweep.drawn_tokens - before.sweep.drawn_tokens;
    const verified = state.sweep.verified_drafts - before.sweep.verified_drafts;
    const accepted = state.sweep.accepted_drafts - before.sweep.accepted_drafts;
    const duration = sweeps > 0 ? `${seconds((state.sweep.seconds - before.sweep.seconds) / sweeps)} each` : "–";
    this.groups.sweeps.show(duration, {
      "Rows in each": sweeps > 0 ? digits((state.sweep.rows - before.sweep.rows) / sweeps) : "–",
      "Tokens drawn": drawn > 0 ? `${digits(drawn / time)} a second` : "–",
      "Drafts that were right": verified > 0 ? `${count(accepted)} of ${count(verified)}` : null,
    });
  }

  showExperts() {
    const { experts } = this.state;
    this.groups.experts.root.hidden = !experts;
    if (!experts) return;
    const uses = experts.uses - this.before.experts.uses;
    const [hits, all] = uses > 0
      ? [experts.hits - this.before.experts.hits, uses] : [experts.hits, experts.uses];
    this.groups.experts.show(all > 0 ? `${(100 * hits / all).toFixed(1)} % found` : "–", {
      "In memory": `${count(experts.slots)} of ${count(experts.count)}, ${bytes(experts.slot_bytes)}`,
    });
  }

  showSequences() {
    const { places, queued, answers } = this.state.sequences;
    const inState = (name) => answers.filter((answer) => answer.state === name).length;
    this.groups.sequences.show("", {
      Answering: count(inState("answering")), Reading: count(inState("reading")), Queued: count(queued),
      Places: count(places),
    });
    const shown = answers.filter((answer) => answer.state !== "queued").slice(0, mostAnswers);
    this.answers.replaceChildren(...shown.map((answer) => {
      const isReading = answer.state === "reading";
      const bar = element("progress", {
        max: answer.prompt_tokens, value: answer.read_tokens, "aria-label": `Prompt of sequence ${answer.id}` });
      const text = isReading
        ? `reads, ${count(answer.read_tokens)} of ${counted(answer.prompt_tokens, "token")}`
        : `answers, ${counted(answer.completion_tokens, "token")} so far`;
      return element("li", {}, element("span", { class: "number" }, `${answer.id}`), text, isReading ? bar : null);
    }));
  }
}

/// A heading with the figure that says most, and others under it.
class Group {
  constructor(title, ...names) {
    this.values = new Map(names.map((name) => [name, element("dd", {}, "–")]));
    this.headline = element("span", { class: "headline" });
    this.list = element(
      "dl", {}, ...names.map((name) => element("div", {}, element("dt", {}, name), this.values.get(name))));
    this.root = element(
      "section", { class: "group" }, element("div", { class: "group-title" }, element("h3", {}, title), this.headline),
      this.list);
  }

  /// Null hides a figure.
  show(headline, values) {
    setText(this.headline, headline);
    for (const [name, value] of Object.entries(values)) {
      this.values.get(name).parentElement.hidden = value === null;
      if (value !== null) setText(this.values.get(name), value);
    }
  }
}

/// The model's layers side by side, what of each stays in memory, and where the sweep is.
class Tape {
  constructor() {
    this.bars = element("div", { class: "bars", role: "img" });
    this.head = element("div", { class: "playhead", hidden: true });
    this.place = element("p", { class: "place" });
    this.pinned = element("dd");
    this.streamed = element("dd");
    this.lent = element("dd");
    const entry = (kind, name, value) => element("div", { class: kind }, element("dt", {}, name), value);
    this.lentRow = entry("lent", "Of those, kept for now", this.lent);
    this.root = element(
      "section", {}, element("h3", { class: "visually-hidden" }, "Weights"),
      element("div", { class: "film" }, this.bars, this.head), this.place,
      element(
        "dl", { class: "legend" }, entry("pinned", "Stay in memory", this.pinned),
        entry("streamed", "Read in each sweep", this.streamed), this.lentRow));
  }

  show(state) {
    const { layers, head, memory, sweep } = state;
    const parts = [...layers, head];
    if (this.bars.childElementCount !== parts.length) this.draw(parts);
    setText(this.pinned, bytes(memory.pinned_bytes));
    setText(this.streamed, bytes(memory.streamed_bytes));
    this.lentRow.hidden = !(memory.lent_bytes > 0);
    const lent = memory.streamed_bytes > 0 ? Math.min(1, memory.lent_bytes / memory.streamed_bytes) : 0;
    this.bars.style.setProperty("--lent", lent);
    setText(this.lent, bytes(memory.lent_bytes));
    const share = percent(memory.pinned_bytes / (memory.pinned_bytes + memory.streamed_bytes));
    this.bars.setAttribute(
      "aria-label", `${counted(layers.length, "layer")} and the output head; ${share} of the weights stay in memory`);
    const layer = sweep.layer;
    this.head.hidden = layer === null;
    if (layer !== null) {
      // The next sweep begins at the left: it does not run back.
      this.head.classList.toggle("returns", !(layer >= this.layer));
      this.head.style.setProperty("--at", this.middles[layer] ?? 1);
    }
    this.layer = layer;
    setText(this.place, layer === null ? `Between sweeps; ${counted(sweep.count, "sweep")} so far`
      : layer < layers.length ? `Sweep ${count(sweep.count + 1)} is at layer ${layer + 1} of ${layers.length}`
        : `Sweep ${count(sweep.count + 1)} is at the output head`);
  }

  /// Each layer as wide as it has bytes.
  draw(parts) {
    const sizes = parts.map((part) => part.pinned_bytes + part.streamed_bytes);
    const all = Math.max(1, sizes.reduce((sum, size) => sum + size, 0));
    let end = 0;
    this.middles = sizes.map((size) => (end += size) / all - size / all / 2);
    this.bars.replaceChildren(...parts.map((part, index) => {
      const bar = element("i");
      bar.style.setProperty("--share", sizes[index] / all);
      bar.style.setProperty("--pinned", sizes[index] > 0 ? part.pinned_bytes / sizes[index] : 0);
      return bar;
    }));
  }
}

const svg = (name, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

/// The drive's bandwidth over the last minute.
class Chart {
  constructor() {
    this.area = svg("polygon", { class: "area" });
    this.line = svg("polyline", { class: "line" });
    const picture = svg("svg", { viewBox: "0 0 100 32", preserveAspectRatio: "none", "aria-hidden": "true" });
    picture.append(this.area, this.line);
    this.most = element("span");
    this.root = element(
      "div", { class: "chart" }, picture,
      element("p", { class: "axis" }, element("span", {}, "A minute ago"), this.most, element("span", {}, "Now")));
  }

  show(samples) {
    const end = samples.at(-1).uptime_seconds;
    const points = [];
    for (let index = 1; index < samples.length; index += 1) {
      const [older, newer] = [samples[index - 1], samples[index]];
      const time = newer.uptime_seconds - older.uptime_seconds;
      if (time <= 0) continue;
      const speed = (newer.drive.bytes_read - older.drive.bytes_read) / time;
      points.push([100 * (1 - (end - newer.uptime_seconds) / chartSeconds), speed]);
    }
    const most = Math.max(1, ...points.map(([, speed]) => speed));
    const text = points.map(([x, speed]) => `${x.toFixed(2)},${(31 - 29 * speed / most).toFixed(2)}`).join(" ");
    this.line.setAttribute("points", text);
    this.area.setAttribute("points", points.length > 1 ? `${points[0][0].toFixed(2)},32 ${text} 100,32` : "");
    setText(this.most, most > 1 ? `up to ${rate(most)}` : "");
  }
}
