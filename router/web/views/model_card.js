// One supported model: its head with the state of all nodes, and a row for each node below.

import * as api from "../api.js";
import { ask } from "../dialog.js";
import { KeyedList, h, setAttribute, setHidden, setText } from "../dom.js";
import { bytes, plural, titleOf } from "../format.js";
import { icon, setIcon } from "../icons.js";
import { ACTIVE, placements } from "../placement.js";
import * as toasts from "../toasts.js";
import { nodeRow } from "./node_row.js";
import { order } from "./order_dialog.js";

const NOT_GGUF = {
  pending_conversion: "Waiting for conversion",
  converting: "Converting",
  conversion_failed: "Conversion failed",
};

// With nothing but these, ordering the model is the next thing to do.
const IDLE = new Set(["cancelled", "missing"]);

let serial = 0;

export function modelCard(name, store) {
  const id = `card-${(serial += 1)}`;
  const toggle = h("button", { class: "icon-button toggle", type: "button", "aria-controls": id });
  const title = h("h2", { class: "card-title" });
  const quantization = h("span", { class: "quant" });
  const conversion = h("span", { class: "tag warn", hidden: true });
  const identity = h("p", { class: "card-id" });
  const strip = h("span", { class: "strip", "aria-hidden": "true" });
  const summary = h("p", { class: "card-summary" });
  const download = h(
    "button",
    { class: "button", type: "button" },
    icon("download"),
    "Download now",
  );
  const remove = h("button", { class: "icon-button", type: "button" });
  const rows = h("ul", { class: "rows", id });
  const head = h(
    "header",
    { class: "card-head" },
    toggle,
    h("div", { class: "card-name" }, h("div", { class: "card-line" }, title, quantization, conversion), identity),
    h("div", { class: "card-state" }, strip, summary),
    h("div", { class: "card-do" }, download, remove),
  );
  const nothing = h("p", { class: "rows-none quiet", text: "On no node yet." });
  const body = h("div", { class: "card-body" }, rows, nothing);
  const root = h("article", { class: "card", "aria-label": name }, head, body);

  const list = new KeyedList(rows, (nodeId) => nodeRow(nodeId));
  const dots = new KeyedList(strip, () => {
    const dot = h("span", { class: "dot" });
    return { root: dot, update: (kind) => setAttribute(dot, "data-kind", kind) };
  });
  let model;
  let chosen = null; // what the operator wants; null: open while something happens
  let opened = false;

  function update(next) {
    model = next;
    const places = placements(model, store);
    if (places.some(({ kind }) => ACTIVE.has(kind) || kind === "failed")) opened = true;

    setText(title, titleOf(model));
    setText(quantization, model.quantization || "");
    setHidden(quantization, !model.quantization || titleOf(model).includes(model.quantization));
    setText(conversion, NOT_GGUF[model.status] ?? "");
    setHidden(conversion, !NOT_GGUF[model.status]);
    setText(identity, model.name);
    setText(summary, summaryOf(model, places));
    download.disabled = Boolean(NOT_GGUF[model.status]);
    download.title = download.disabled ? "It has to be converted to GGUF first" : "";
    download.classList.toggle("primary", places.every(({ kind }) => IDLE.has(kind)));
    dots.render(places.map((place) => [place.nodeId, place.kind]));
    const label = titleOf(model);
    setIcon(remove, "trash", `Remove ${label}`);
    setAttribute(download, "aria-label", `Download ${label} now`);
    setAttribute(toggle, "aria-label", `Nodes of ${label}`);
    unfold(places);
  }

  function unfold(places) {
    const open = chosen ?? opened;
    setAttribute(toggle, "aria-expanded", String(open));
    setAttribute(root, "data-open", String(open));
    setHidden(body, !open);
    if (!open) return;
    list.render(places.map((place) => [place.nodeId, { place, model }]));
    setHidden(nothing, places.length > 0);
  }

  function choose(open) {
    chosen = open;
    unfold(placements(model, store));
  }

  toggle.append(icon("chevron"));
  toggle.addEventListener("click", () => choose(toggle.getAttribute("aria-expanded") !== "true"));
  download.addEventListener("click", () => order(model, store, () => choose(true)));
  remove.addEventListener("click", () => askRemoval(model));

  return {
    root,
    update,
    reveal() {
      choose(true);
      root.scrollIntoView({ block: "center" });
      toggle.focus({ preventScroll: true });
      root.classList.add("found-here");
      root.addEventListener("animationend", () => root.classList.remove("found-here"), { once: true });
    },
  };
}

function summaryOf(model, places) {
  const words = [bytes(model.size_bytes)];
  const ready = places.filter(({ kind }) => kind === "ready").length;
  const active = places.filter(({ kind }) => ACTIVE.has(kind) || kind === "paused");
  const failed = places.filter(({ kind }) => kind === "failed").length;
  if (places.length > 0) words.push(`${ready} of ${plural(places.length, "node")} ready`);
  else if (!NOT_GGUF[model.status]) words.push("on no node");
  if (active.length > 0) words.push(`${active.length} under way`);
  if (failed > 0) words.push(`${failed} failed`);
  return words.join(" · ");
}

function askRemoval(model) {
  const label = titleOf(model);
  let force = false;
  ask({
    title: `Remove ${label}?`,
    body: [
      h("p", { text: "It is no longer offered to clients, and cannot be ordered until it is registered again." }),
      h("p", { class: "quiet", text: "Files that nodes already hold stay on their disks." }),
    ],
    confirm: "Remove",
    tone: "danger",
    async onConfirm(dialog) {
      try {
        await api.removeModel(model.name, { force });
        dialog.close();
        toasts.good(`${label} was removed.`);
      } catch (error) {
        dialog.fail(error.message);
        if (error.status !== 409) return;
        force = true;
        setText(dialog.confirm, "Cancel its downloads and remove");
      }
    },
  });
}
