// Supported models: every registered model, which nodes have it, and the downloads at work.

import { KeyedList, h, setHidden, setText } from "../dom.js";
import { icon } from "../icons.js";
import { ACTIVE, placements } from "../placement.js";
import { modelCard } from "./model_card.js";

const FILTERS = [
  ["all", "All"],
  ["active", "Downloading"],
  ["failed", "Failed"],
  ["ready", "Ready"],
  ["absent", "On no node"],
];

/** @param {{browse(): void}} way leads to the catalog */
export function startSupported(panel, store, way) {
  const filter = h("input", {
    type: "search",
    placeholder: "Filter by name",
    autocomplete: "off",
    spellcheck: "false",
    "aria-label": "Filter supported models by name",
  });
  const state = h(
    "select",
    { "aria-label": "Filter supported models by state" },
    ...FILTERS.map(([value, text]) => h("option", { value, text })),
  );
  const shown = h("p", { class: "found", role: "status" });
  const toolbar = h(
    "div",
    { class: "bar-line", hidden: true },
    h("div", { class: "search" }, icon("search"), filter),
    state,
    shown,
  );
  const waiting = h("p", { class: "quiet waiting", text: "Waiting for the router …" });
  const none = h(
    "div",
    { class: "empty", hidden: true },
    h("h2", { text: "No model is supported yet" }),
    h("p", { text: "Register one from the Hub's catalog, and order it onto your nodes from here." }),
    h("button", {
      class: "button primary",
      type: "button",
      text: "Browse available models",
      on: { click: way.browse },
    }),
  );
  const noneFits = h("p", { class: "empty", hidden: true, text: "No supported model fits the filter." });
  const list = h("div", { class: "cards" });
  panel.append(toolbar, waiting, none, noneFits, list);

  const cards = new KeyedList(list, (name) => modelCard(name, store));
  let order = []; // names, newest registration first: it never changes while bars move

  function arrange() {
    order = [...store.models.values()].sort(newestFirst).map((model) => model.name);
    render();
  }

  function render() {
    const text = filter.value.trim().toLowerCase();
    const visible = order.filter((name) => fits(store.models.get(name), text, state.value, store));
    cards.render(visible.map((name) => [name, store.models.get(name)]));
    setHidden(waiting, store.synced || order.length > 0);
    setHidden(none, !store.synced || order.length > 0);
    setHidden(toolbar, order.length === 0);
    setHidden(noneFits, order.length === 0 || visible.length > 0);
    setText(shown, visible.length < order.length ? `${visible.length} of ${order.length}` : "");
  }

  filter.addEventListener("input", render);
  state.addEventListener("change", render);
  store.subscribe((changes) => {
    const known = order.length === store.models.size && order.every((name) => store.models.has(name));
    if (!known) arrange();
    else if (state.value !== "all") render();
    else for (const name of changes.models) update(name);
    setHidden(waiting, store.synced || order.length > 0);
    setHidden(none, !store.synced || order.length > 0);
  });

  function update(name) {
    const model = store.models.get(name);
    if (model) cards.parts.get(name)?.update(model);
  }

  return {
    /** Opens the model's card and brings it into view. */
    reveal(name) {
      filter.value = "";
      state.value = "all";
      arrange();
      cards.parts.get(name)?.reveal();
    },
  };
}

function newestFirst(a, b) {
  return Date.parse(b.created_at) - Date.parse(a.created_at) || (a.name < b.name ? -1 : 1);
}

function fits(model, text, state, store) {
  if (text && !`${model.display_name} ${model.name}`.toLowerCase().includes(text)) return false;
  if (state === "all") return true;
  const kinds = placements(model, store).map((placement) => placement.kind);
  return {
    active: kinds.some((kind) => ACTIVE.has(kind) || kind === "paused"),
    failed: kinds.includes("failed"),
    ready: kinds.includes("ready"),
    absent: kinds.every((kind) => kind === "cancelled" || kind === "missing"),
  }[state];
}
