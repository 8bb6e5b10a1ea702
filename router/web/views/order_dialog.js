// "Download now": which nodes, what would happen on each, and the order itself.

import * as api from "../api.js";
import { ask } from "../dialog.js";
import { KeyedList, h, setAttribute, setHidden, setText } from "../dom.js";
import { bytes, plural, span, titleOf } from "../format.js";
import { byName } from "../placement.js";
import * as toasts from "../toasts.js";

const DEBOUNCE_MS = 150;
const FROM = { hub: "from the Hub", peers: "from other nodes", disk: "from its own disk" };

/** @param {() => void} ordered called once the router took the order */
export function order(model, store, ordered) {
  const label = titleOf(model);
  const choice = `target-${Date.now()}`;
  const all = h("input", { type: "radio", name: choice, value: "all", checked: true });
  const some = h("input", { type: "radio", name: choice, value: "specific" });
  const picks = h("ul", { class: "picks" });
  const total = h("p", { class: "plan-total", role: "status", text: "Asking the router …" });
  const body = [
    h("p", { class: "dialog-model" }, h("strong", { text: label }), ` · ${bytes(model.size_bytes)}`),
    h(
      "fieldset",
      { class: "choice" },
      h("legend", { class: "hidden", text: "Onto which nodes" }),
      h("label", {}, all, "All nodes"),
      h("label", {}, some, "Chosen nodes"),
    ),
    picks,
    total,
  ];

  const verdicts = new Map(); // node id → what the plan says
  let chosen = null; // node ids; null until "Chosen nodes" was taken for the first time
  let planId = null; // of the plan that is shown, while it is the one for the present choice
  let key = newKey();
  let call = null; // aborts the plan of an earlier choice
  let typing;
  const list = new KeyedList(picks, (nodeId) => pick((checked) => toggle(nodeId, checked)));

  const dialog = ask({
    title: "Download now",
    body,
    confirm: "Download",
    async onConfirm(handle) {
      try {
        // What is shown is what is confirmed: the router refuses to do something else.
        const order = planId ? { ...wanted(), plan_id: planId } : wanted();
        const { task_ids: ids } = await api.download(order, key);
        handle.close();
        toasts.good(`${label}: ordered onto ${plural(ids.length, "node")}.`);
        ordered();
      } catch (error) {
        handle.fail(error.code === "plan_outdated" ? OUTDATED : error.message);
        if (error.code === "plan_outdated") look();
      }
    },
    onClose: () => call?.abort(),
  });

  function wanted() {
    return all.checked
      ? { model_name: model.name, target: "all", node_ids: [] }
      : { model_name: model.name, target: "specific", node_ids: [...chosen] };
  }

  function toggle(nodeId, checked) {
    if (checked) chosen.add(nodeId);
    else chosen.delete(nodeId);
    changed();
  }

  /** Shows what would happen now, below the word that it is not what was shown before. */
  function look() {
    planId = null;
    key = newKey();
    plan(wanted(), undefined, { keepMessage: true });
  }

  function changed() {
    if (some.checked) chosen ??= new Set([...store.nodes.keys()].filter(isSensible));
    planId = null;
    key = newKey(); // another order: it must not be taken for a second try of the former
    render();
    clearTimeout(typing);
    typing = setTimeout(replan, DEBOUNCE_MS);
  }

  /** Whether the node needs the model and can take it, as far as is known. */
  function isSensible(nodeId) {
    const verdict = verdicts.get(nodeId);
    return verdict ? verdict.verdict === "fits" : store.nodes.get(nodeId).status === "online";
  }

  function replan() {
    call?.abort();
    call = new AbortController();
    const request = wanted();
    if (request.target === "specific" && request.node_ids.length === 0) return;
    plan(request, call.signal);
  }

  async function plan(request, signal, { keepMessage = false } = {}) {
    try {
      const answer = await api.plan(request, signal);
      for (const verdict of answer.nodes) verdicts.set(verdict.node_id, verdict);
      render();
      if (same(request, wanted())) {
        planId = answer.plan_id ?? null;
        setText(total, totalText(answer));
        if (!keepMessage) dialog.fail("");
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      setText(total, "");
      dialog.fail(error.code === "no_nodes" ? NO_NODES : error.message);
      if (error.code === "no_nodes") dialog.confirm.disabled = true;
    }
  }

  function render() {
    const ids = [...new Set([...store.nodes.keys(), ...verdicts.keys()])];
    const items = ids.map((id) => ({
      id,
      name: store.nodes.get(id)?.name ?? verdicts.get(id).node_name,
      online: store.nodes.get(id)?.status === "online",
      verdict: verdicts.get(id) ?? null,
      choosing: some.checked,
      checked: all.checked || Boolean(chosen?.has(id)),
    }));
    items.sort((a, b) => byName.compare(a.name, b.name));
    list.render(items.map((item) => [item.id, item]));
    const count = items.filter((item) => item.checked).length;
    setText(dialog.confirm, count > 0 ? `Download to ${plural(count, "node")}` : "Download");
    dialog.confirm.disabled = count === 0;
    if (count === 0) setText(total, some.checked ? "Choose at least one node." : "");
  }

  all.addEventListener("change", changed);
  some.addEventListener("change", changed);
  render();
  plan(wanted());
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

const NO_NODES =
  "No node has connected yet. Start llm-router-agent on a machine, with --router and this router's address.";

const OUTDATED = "Something has changed since this plan was made. This is what would happen now.";

/** Names one order, so that the router takes a repeated request for the same one. */
function newKey() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function totalText(answer) {
  const refused = answer.nodes.filter((node) => node.verdict === "refused").length;
  const words = [
    answer.line_bytes > 0
      ? `${bytes(answer.line_bytes)} will come over the internet line.`
      : "Nothing has to come over the internet line.",
  ];
  const peers = answer.nodes
    .filter((node) => node.verdict === "fits")
    .reduce((sum, node) => sum + (node.peer_bytes ?? 0), 0);
  if (peers > 0) words.push(`${bytes(peers)} go from node to node.`);
  if (answer.expected_seconds > 0) words.push(`It takes about ${span(answer.expected_seconds)}.`);
  if (refused > 0) words.push(`${plural(refused, "node")} cannot take it.`);
  return words.join(" ");
}

/** One node of the plan; a box to tick when nodes are being chosen. */
function pick(toggled) {
  const box = h("input", { type: "checkbox", on: { change: () => toggled(box.checked) } });
  const online = h("span", { class: "online-dot" });
  const name = h("span", { class: "pick-name" });
  const verdict = h("span", { class: "tag" });
  const why = h("span", { class: "pick-why" });
  const root = h(
    "li",
    { class: "pick" },
    h("label", {}, box, h("span", { class: "pick-node" }, online, name), verdict, why),
  );
  return {
    root,
    update(item) {
      setAttribute(root, "data-online", String(item.online));
      setText(name, item.online ? item.name : `${item.name} (offline)`);
      setHidden(box, !item.choosing);
      box.disabled = !item.choosing;
      box.checked = item.checked;
      const [tone, word] = VERDICTS[item.verdict?.verdict] ?? ["", "…"];
      verdict.className = `tag ${tone}`;
      setText(verdict, word);
      setText(why, item.verdict ? whyText(item.verdict) : "");
    },
  };
}

const VERDICTS = {
  ready: ["good", "Already there"],
  fits: ["accent", "Fits"],
  refused: ["bad", "Refused"],
};

function whyText(verdict) {
  const words = [];
  if (verdict.verdict === "fits") {
    const from = FROM[verdict.from] ?? "";
    words.push(`${bytes(verdict.needed_bytes)} ${from}`.trim());
    if (verdict.free_bytes > 0) words.push(`${bytes(verdict.free_bytes)} free`);
  }
  if (verdict.reason) words.push(verdict.reason);
  words.push(...(verdict.warnings ?? []));
  return words.join(" · ");
}
