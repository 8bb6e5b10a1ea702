// The few pictures on buttons, drawn on a 16 × 16 grid; hidden from screen readers.

const PATHS = {
  cancel: "M4 4l8 8M12 4l-8 8",
  check: "M3 8.5l3.2 3.2L13 4.8",
  chevron: "M6 3.5l4.5 4.5L6 12.5",
  copy: "M6 6h7v7.5H6zM3 10.5V2.5h7",
  download: "M8 2v8M4.5 6.8L8 10.3l3.5-3.5M2.5 13.5h11",
  heart: "M8 13.3C1.5 9 1.8 3 5.2 3 7 3 8 5 8 5s1-2 2.8-2c3.4 0 3.7 6-2.8 10.3z",
  lock: "M3.5 7.5h9v6h-9zM5.5 7.5V5a2.5 2.5 0 015 0v2.5",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  resume: "M5 3.2l7.5 4.8L5 12.8z",
  retry: "M13 8a5 5 0 11-1.7-3.8M13 2v3h-3",
  search: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zM10.7 10.7L14 14",
  trash: "M2.5 4.5h11M6 4.5V2.5h4v2M4 4.5l.7 9h6.6l.7-9",
};

const SVG = "http://www.w3.org/2000/svg";

/** @param {keyof typeof PATHS} name */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button that shows only a picture; `label` is its name for everybody else. */
export function setIcon(button, name, label) {
  if (button.dataset.icon !== name) {
    button.dataset.icon = name;
    button.replaceChildren(icon(name));
  }
  if (button.getAttribute("aria-label") !== label) {
    button.setAttribute("aria-label", label);
    button.title = label;
  }
}
