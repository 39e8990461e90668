// Markdown as models write it, made of elements and text nodes: nothing of an answer is ever parsed as HTML, no image is
// loaded, and only http, https and mailto links lead anywhere.

import { element } from "./dom.js";

/// Deeper quotes, lists and emphasis stay as they were written.
const mostDepth = 12;
/// A link's text and address are looked for so far.
const mostLinkLength = 2000;

/// Keeps an element's children as a growing text has them: what did not change stays.
export class MarkdownView {
  constructor(root) {
    this.root = root;
    this.parts = [];
  }

  update(text) {
    const blocks = parse(text.split("\n"), 0);
    let same = 0;
    while (same < blocks.length && same < this.parts.length
      && blocks[same].source === this.parts[same].source) same += 1;
    for (const part of this.parts.splice(same)) part.node.remove();
    for (const block of blocks.slice(same)) {
      const part = { source: block.source, node: block.build() };
      this.parts.push(part);
      this.root.append(part.node);
    }
  }
}

// Blocks

const patterns = {
  blank: /^\s*$/,
  fence: /^ {0,3}(`{3,}|~{3,})([^`]*)$/,
  heading: /^ {0,3}(#{1,6})(?:\s+|$)/,
  rule: /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/,
  quote: /^ {0,3}> ?/,
  item: /^( *)([-*+]|\d{1,9}[.)])(?: |$)/,
};

/// The blocks of some lines, each with its source and what makes its element.
function parse(lines, depth) {
  const blocks = [];
  let start = 0;
  while (start < lines.length) {
    if (patterns.blank.test(lines[start])) {
      start += 1;
      continue;
    }
    const [end, build] = block(lines, start, depth);
    blocks.push({ source: lines.slice(start, end).join("\n"), build });
    start = end;
  }
  return blocks;
}

/// The end of the block that begins at a line, and what makes its element.
function block(lines, start, depth) {
  const line = lines[start];
  const fence = patterns.fence.exec(line);
  if (fence) return code(lines, start, fence);
  const heading = patterns.heading.exec(line);
  if (heading) {
    const text = line.slice(heading[0].length).replace(/#+\s*$/, "").trim();
    // A message has a heading of the third level.
    const name = `h${Math.min(6, 3 + heading[1].length)}`;
    return [start + 1, () => element(name, {}, ...inline(text, 0))];
  }
  if (patterns.rule.test(line)) return [start + 1, () => element("hr")];
  if (depth < mostDepth) {
    if (patterns.quote.test(line)) return quote(lines, start, depth);
    if (patterns.item.test(line)) return list(lines, start, depth);
  }
  const cells = tableHead(lines, start);
  return cells ? table(lines, start, cells) : paragraph(lines, start, depth);
}

function code(lines, start, fence) {
  const [mark, language] = [fence[1], fence[2].trim().split(/\s/)[0]];
  let end = start + 1;
  while (end < lines.length && !closes(lines[end], mark)) end += 1;
  const text = lines.slice(start + 1, end).join("\n");
  return [Math.min(end + 1, lines.length), () => codeBlock(text, language)];
}

function closes(line, mark) {
  const text = line.trim();
  return text.length >= mark.length && [...text].every((letter) => letter === mark[0]);
}

function codeBlock(text, language) {
  const copy = element("button", { type: "button", class: "quiet small", "data-copy": true }, "Copy code");
  return element(
    "div", { class: "code" },
    element("div", { class: "code-head" }, element("span", {}, language), copy),
    element("pre", { tabindex: 0 }, element("code", {}, text)));
}

function quote(lines, start, depth) {
  let end = start;
  while (end < lines.length && patterns.quote.test(lines[end])) end += 1;
  const inner = lines.slice(start, end).map((line) => line.replace(patterns.quote, ""));
  return [end, () => element("blockquote", {}, ...parse(inner, depth + 1).map((part) => part.build()))];
}

const indent = (line) => line.length - line.trimStart().length;
const isOrdered = (mark) => mark.length > 1;

function list(lines, start, depth) {
  const [, space, firstMark] = patterns.item.exec(lines[start]);
  const items = [];
  let end = start;
  let isLoose = false;
  while (end < lines.length) {
    const item = patterns.item.exec(lines[end]);
    const begins = item && item[1].length < space.length + 2
      && isOrdered(item[2]) === isOrdered(firstMark) && !patterns.rule.test(lines[end]);
    if (begins) {
      items.push([lines[end].slice(item[0].length).trimStart()]);
    } else if (patterns.blank.test(lines[end])) {
      // What follows a blank line is the item's only where it stands further right, or begins the next.
      const next = lines[end + 1];
      const follows = next !== undefined && !patterns.blank.test(next)
        && (indent(next) >= space.length + 2
          || (patterns.item.test(next) && isOrdered(patterns.item.exec(next)[2]) === isOrdered(firstMark)));
      if (!follows) break;
      isLoose = true;
      items[items.length - 1].push("");
    } else if (indent(lines[end]) >= space.length + 2) {
      const width = space.length + firstMark.length + 1;
      items[items.length - 1].push(lines[end].slice(Math.min(indent(lines[end]), width)));
    } else if (interrupts(lines[end], depth) || patterns.blank.test(lines[end - 1])) {
      break;
    } else {
      items[items.length - 1].push(lines[end].trimStart());
    }
    end += 1;
  }
  return [end, () => {
    const from = isOrdered(firstMark) ? parseInt(firstMark, 10) : 1;
    return element(
      isOrdered(firstMark) ? "ol" : "ul", { start: from === 1 ? null : from },
      ...items.map((item) => element("li", {}, ...itemContent(item, isLoose, depth))));
  }];
}

function itemContent(lines, isLoose, depth) {
  const nodes = parse(lines, depth + 1).map((part) => part.build());
  if (isLoose) return nodes;
  return nodes.flatMap((node) => (node.tagName === "P" ? [...node.childNodes] : [node]));
}

/// Whether a line ends a paragraph before it.
function interrupts(line, depth) {
  if (patterns.fence.test(line) || patterns.heading.test(line) || patterns.rule.test(line)) return true;
  if (depth >= mostDepth) return false;
  // A sentence may begin with a number; a list begins with the first.
  const item = patterns.item.exec(line);
  return patterns.quote.test(line) || (item !== null && (!isOrdered(item[2]) || parseInt(item[2], 10) === 1));
}

function paragraph(lines, start, depth) {
  let end = start + 1;
  while (end < lines.length && !patterns.blank.test(lines[end]) && !interrupts(lines[end], depth)
    && !tableHead(lines, end)) end += 1;
  const text = lines.slice(start, end).map((line) => line.trim()).join("\n");
  return [end, () => element("p", {}, ...inline(text, 0))];
}

// Tables

function row(line) {
  const text = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return text.split("|").map((cell) => cell.trim());
}

/// The cells of a table's head, where one begins at that line.
function tableHead(lines, start) {
  const next = lines[start + 1];
  if (!lines[start].includes("|") || next === undefined || !next.includes("-")) return null;
  const [cells, marks] = [row(lines[start]), row(next)];
  return cells.length === marks.length && marks.every((mark) => /^:?-+:?$/.test(mark)) ? cells : null;
}

function table(lines, start, head) {
  let end = start + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const rows = lines.slice(start + 2, end).map((line) => row(line));
  return [end, () => element(
    "div", { class: "table", tabindex: 0, role: "group", "aria-label": "Table" },
    element(
      "table", {},
      element("thead", {}, element("tr", {}, ...head.map((cell) => element("th", { scope: "col" }, ...inline(cell, 0))))),
      element("tbody", {}, ...rows.map((cells) => element(
        "tr", {}, ...head.map((_, index) => element("td", {}, ...inline(cells[index] ?? "", 0))))))))];
}

// Text

/// The nodes of a text with emphasis, code and links.
function inline(text, depth) {
  const nodes = [];
  const missing = new Set();
  let [plain, at] = ["", 0];
  const flush = () => {
    if (plain !== "") nodes.push(document.createTextNode(plain));
    plain = "";
  };
  while (at < text.length) {
    const found = depth < mostDepth ? span(text, at, depth, missing) : null;
    if (found) {
      flush();
      nodes.push(found.node);
      at = found.end;
    } else if (text[at] === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
    } else {
      // A run of marks that begin nothing is taken as a whole.
      const length = /^(`+|\*+|_+|~+)/.exec(text.slice(at, at + 64))?.[0].length ?? 1;
      plain += text.slice(at, at + length);
      at += length;
    }
  }
  flush();
  return nodes;
}

/// What begins there, if it is more than text: its node and its end.
function span(text, at, depth, missing) {
  switch (text[at]) {
    case "\n": return { node: element("br"), end: at + 1 };
    case "`": return codeSpan(text, at, missing);
    case "*": case "_": case "~": return emphasis(text, at, depth, missing);
    case "!": return text[at + 1] === "[" ? link(text, at + 1, depth, missing) : null;
    case "[": return link(text, at, depth, missing);
    case "<": case "h": return address(text, at);
    default: return null;
  }
}

function codeSpan(text, at, missing) {
  const mark = /^`+/.exec(text.slice(at, at + 64))[0];
  if (missing.has(mark)) return null;
  let end = at + mark.length;
  for (;;) {
    end = text.indexOf(mark, end);
    if (end < 0) {
      missing.add(mark);
      return null;
    }
    let after = end;
    while (text[after] === "`") after += 1;
    if (after - end === mark.length) break;
    end = after;
  }
  let inside = text.slice(at + mark.length, end).replaceAll("\n", " ");
  if (/^ .*[^ ].* $/.test(inside)) inside = inside.slice(1, -1);
  return { node: element("code", {}, inside), end: end + mark.length };
}

const isWord = (letter) => letter !== undefined && /[\p{L}\p{N}]/u.test(letter);
const isSpace = (letter) => letter === undefined || /\s/.test(letter);
const emphases = [["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];

function emphasis(text, at, depth, missing) {
  const [mark, name] = emphases.find(([mark]) => text.startsWith(mark, at)) ?? [];
  if (!mark || missing.has(mark) || isSpace(text[at + mark.length])) return null;
  // Within a word _ is a letter of a name, and a single * more often a product than emphasis.
  if ((mark[0] === "_" || mark === "*") && isWord(text[at - 1])) return null;
  const end = closing(text, mark, at + mark.length);
  if (end < 0) {
    missing.add(mark);
    return null;
  }
  const inside = inline(text.slice(at + mark.length, end), depth + 1);
  return { node: element(name, {}, ...inside), end: end + mark.length };
}

/// Where emphasis ends that began before `from`; -1 = nowhere.
function closing(text, mark, from) {
  let end = from;
  while ((end = text.indexOf(mark, end)) >= 0) {
    let after = end;
    while (text[after] === mark[0]) after += 1;
    // Of ***, the last two end what ** began.
    const run = after - end;
    const isRight = mark.length === 1 ? run % 2 === 1 : run >= 2;
    const isWithin = mark[0] === "_" && isWord(text[after]);
    if (end > from && isRight && !isSpace(text[end - 1]) && !isWithin) return after - mark.length;
    end = after;
  }
  return -1;
}

function link(text, at, depth, missing) {
  if (missing.has("[")) return null;
  if (!text.includes("](", at)) {
    missing.add("[");
    return null;
  }
  const part = text.slice(at, at + mostLinkLength);
  let [open, end] = [0, 0];
  for (; end < part.length; end += 1) {
    if (part[end] === "\\") end += 1;
    else if (part[end] === "[") open += 1;
    else if (part[end] === "]" && (open -= 1) === 0) break;
  }
  const target = /^\(<?([^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*)>?(?: +"[^"]*")?\)/.exec(part.slice(end + 1));
  if (!target) return null;
  const label = inline(part.slice(1, end), depth + 1);
  return { node: anchor(target[1], label), end: at + end + 1 + target[0].length };
}

/// An address that stands for itself.
function address(text, at) {
  const isBracketed = text[at] === "<";
  if (!isBracketed && isWord(text[at - 1])) return null;
  const part = text.slice(at, at + mostLinkLength);
  const found = (isBracketed ? /^<(https?:\/\/[^\s<>]+)>/ : /^(https?:\/\/[^\s<>`*]+)/).exec(part);
  if (!found) return null;
  let href = found[1];
  if (!isBracketed) {
    href = href.replace(/[.,;:!?'"\]]+$/, "");
    if (href.endsWith(")") && !href.includes("(")) href = href.slice(0, -1);
  }
  return { node: anchor(href, [href]), end: at + (isBracketed ? found[0].length : href.length) };
}

function anchor(href, label) {
  const protocol = URL.canParse(href) ? new URL(href).protocol : "";
  if (!["http:", "https:", "mailto:"].includes(protocol)) return element("span", {}, ...label);
  return element("a", { href, rel: "noopener noreferrer nofollow", target: "_blank" }, ...label);
}
