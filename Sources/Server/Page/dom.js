// Makes elements. Text becomes text nodes: nothing that others wrote is ever parsed as HTML.

/// An element with attributes, listeners (`onclick: function`) and children: elements or texts.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/// The element of the page with that id.
export const find = (id) => document.getElementById(id);

/// Writes a text only where it is another, so that nothing is laid out or read anew.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/// Opens a dialog; the value of the button that sent its form, nothing where it was closed otherwise.
export function ask(dialog) {
  const { promise, resolve } = Promise.withResolvers();
  dialog.querySelector("[data-close]").onclick = () => dialog.close();
  dialog.querySelector("form").onsubmit = ({ submitter }) => resolve(submitter.value);
  // Browsers tell of it a frame later: another key may have come by then, or the dialog be open again.
  dialog.onclose = () => { if (!dialog.open) resolve(""); };
  dialog.showModal();
  return promise;
}
