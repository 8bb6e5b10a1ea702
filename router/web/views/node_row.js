// One node's part of a model: a bar, figures, what is going on, and what can be done about it.

import * as api from "../api.js";
import { h, setAttribute, setHidden, setText } from "../dom.js";
import { bytes, clock, percent, sentence, speed, timeLeft, titleOf } from "../format.js";
import { setIcon } from "../icons.js";
import * as toasts from "../toasts.js";

const SAID = {
  pending: "Waiting",
  downloading: "Downloading",
  verifying: "Verifying",
  paused: "Paused",
  failed: "Failed",
  cancelled: "Cancelled",
  ready: "Ready",
  missing: "No longer on this node",
};

const MAIN = {
  pending: ["pause", "pause", "Pause"],
  downloading: ["pause", "pause", "Pause"],
  verifying: ["pause", "pause", "Pause"],
  paused: ["resume", "resume", "Resume"],
  failed: ["retry", "retry", "Try again"],
  cancelled: ["retry", "retry", "Start again"],
};
const CANCELLABLE = new Set(["pending", "downloading", "verifying", "paused"]);
const MOVING = new Set(["downloading", "verifying"]);
const SOURCES = [
  ["hub", "the Hub"],
  ["peers", "other nodes"],
  ["router", "the router"],
  ["disk", "its own disk"],
];

export function nodeRow() {
  const online = h("span", { class: "online-dot" });
  const nodeName = h("span", { class: "row-node-name" });
  const fill = h("span", { class: "fill" });
  const bar = h(
    "div",
    { class: "progress", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" },
    fill,
  );
  const share = h("span", { class: "row-share" });
  const said = h("span", { class: "row-said" });
  const done = h("span", { class: "row-done" });
  const pace = h("span", { class: "row-pace" });
  const left = h("span", { class: "row-left" });
  const note = h("p", { class: "row-note" });
  const main = h("button", { class: "icon-button", type: "button" });
  const cancel = h("button", { class: "icon-button", type: "button" });
  const root = h(
    "li",
    { class: "row", tabindex: "-1" },
    h("div", { class: "row-node" }, online, nodeName),
    h("div", { class: "row-bar" }, bar, share),
    h("div", { class: "row-figures" }, said, done, pace, left),
    note,
    h("div", { class: "row-do" }, main, cancel),
  );

  let task = null;
  let verb = null;
  let asked = null; // the verb that the router has not answered yet

  function update({ place, model }) {
    task = place.task;
    const { kind } = place;
    setAttribute(root, "data-kind", kind);
    setAttribute(root, "data-online", String(place.online));
    setAttribute(online, "title", place.online ? "Online" : "Offline");
    setText(nodeName, place.nodeName);
    setAttribute(nodeName, "title", place.nodeName);

    const fraction = kind === "ready" ? 1 : kind === "missing" ? 0 : (task?.progress ?? 0);
    const text = kind === "missing" ? "" : percent(fraction);
    fill.style.setProperty("--share", String(Math.min(1, Math.max(0, fraction))));
    setAttribute(bar, "aria-label", `${titleOf(model)} on ${place.nodeName}`);
    setAttribute(bar, "aria-valuenow", Math.floor(fraction * 100));
    setText(share, text);

    const waits = !place.online && CANCELLABLE.has(kind);
    setText(said, waits && kind !== "paused" ? "Waiting for the node" : SAID[kind]);
    setText(done, doneText(place, model));
    const moving = MOVING.has(kind) && place.online;
    setText(pace, moving ? speed(task?.speed_bps) : "");
    setText(left, moving ? timeLeft(task?.eta_seconds) : "");
    setAttribute(bar, "aria-valuetext", [said, share, pace, left].map((part) => part.textContent)
      .filter(Boolean).join(", "));
    setText(note, waits ? "It goes on by itself when the node is back." : noteText(place));
    setAttribute(note, "title", note.textContent);
    actions(place);
  }

  function actions({ kind, nodeName: name }) {
    const [next, picture, label] = (task && MAIN[kind]) || [];
    verb = next ?? null;
    if (verb) setIcon(main, picture, `${label}: ${name}`);
    setIcon(cancel, "cancel", `Cancel: ${name}`);
    setHidden(cancel, !(task && CANCELLABLE.has(kind)), root);
    setHidden(main, !verb, root);
  }

  // Not `disabled` meanwhile: that would take the keyboard's focus away. Another verb passes: its
  // button may be shown by an event that came before the answer.
  async function act(wanted) {
    if (asked === wanted) return;
    asked = wanted;
    try {
      await api.task(task.id, wanted);
    } catch (error) {
      toasts.bad(error.message);
    } finally {
      if (asked === wanted) asked = null;
    }
  }

  main.addEventListener("click", () => act(verb));
  cancel.addEventListener("click", () => act("cancel"));
  return { root, update };
}

function doneText({ kind, task, verifiedAt }, model) {
  if (kind === "ready") return verifiedAt ? `verified ${clock(verifiedAt)}` : "verified";
  if (kind === "missing" || !task) return "";
  return `${bytes(task.bytes_done)} of ${bytes(task.bytes_total || model.size_bytes)}`;
}

/** The error, or the router's note, or where the bytes came from. */
function noteText({ kind, task }) {
  if (!task || kind === "missing") return "";
  if (kind === "failed") return sentence(task.error?.message);
  if (task.note && kind !== "ready") return task.note;
  const from = SOURCES.filter(([key]) => task.bytes_from?.[key] > 0).map(
    ([key, name]) => `${bytes(task.bytes_from[key])} from ${name}`,
  );
  const attempt = task.attempt > 1 ? [`attempt ${task.attempt}`] : [];
  return [...from, ...attempt].join(" · ");
}
