// Building and changing the page. Text from outside only ever becomes text.

/**
 * An element. `attributes`: `class`, `text`, `on` (listeners), anything else as an attribute
 * (true: present, false, null or undefined: absent). Children are nodes or text.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    } else if (name === "text") {
      element.textContent = value;
    } else {
      setAttribute(element, name, value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets, or with false, null or undefined removes; touches the page only for a change. */
export function setAttribute(element, name, value) {
  if (value === false || value === null || value === undefined) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/** Changes the text only when it differs: an unchanged node costs no layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Shows or hides without moving the keyboard to nowhere: `next` takes the focus over. */
export function setHidden(element, hidden, next = null) {
  if (element.hidden === hidden) return;
  const focused = hidden && document.activeElement === element;
  element.hidden = hidden;
  if (focused) next?.focus();
}

const LINK = /https?:\/\/[^\s<>"')\]]*[^\s<>"')\].,;:!?]/g;

/** Text whose web addresses can be followed. */
export function linked(text) {
  const fragment = document.createDocumentFragment();
  let from = 0;
  for (const match of text.matchAll(LINK)) {
    fragment.append(text.slice(from, match.index), outside(match[0], match[0]));
    from = match.index + match[0].length;
  }
  fragment.append(text.slice(from));
  return fragment;
}

/** A link to another site; plain text when the address is not one of the web. */
export function outside(address, text, attributes = {}) {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url?.protocol !== "https:" && url?.protocol !== "http:") return h("span", { text });
  return h("a", { ...attributes, href: url.href, target: "_blank", rel: "noreferrer", text });
}

/**
 * A list whose parts live as long as their keys: updating moves and changes them, nothing more.
 * `create(key)` returns `{root, update(item)}`.
 */
export class KeyedList {
  parts = new Map();

  constructor(container, create) {
    this.container = container;
    this.create = create;
  }

  /** @param {Array<[string, any]>} entries keys and items in the order they are to be shown */
  render(entries) {
    const wanted = new Set(entries.map(([key]) => key));
    for (const [key, part] of this.parts) {
      if (wanted.has(key)) continue;
      part.root.remove();
      this.parts.delete(key);
    }
    let place = this.container.firstElementChild;
    for (const [key, item] of entries) {
      let part = this.parts.get(key);
      if (!part) this.parts.set(key, (part = this.create(key)));
      part.update(item);
      if (part.root === place) place = place.nextElementSibling;
      else this.container.insertBefore(part.root, place);
    }
  }
}
