// Nodes: who is there, how full their disks are, and which models they hold.

import { KeyedList, h, setAttribute, setHidden, setText } from "../dom.js";
import { ago, bytes, plural, speed, titleOf } from "../format.js";
import { ACTIVE, byName } from "../placement.js";

const CLOCK_MS = 15000;
const SHOWN_MODELS = 6;

export function startNodes(panel, store) {
  const waiting = h("p", { class: "quiet waiting", text: "Waiting for the router …" });
  const none = h(
    "div",
    { class: "empty", hidden: true },
    h("h2", { text: "No node has connected yet" }),
    h("p", { text: "On each machine that is to hold models, start the agent:" }),
    h("pre", { class: "command" }, h("code", { text: command() })),
    h("p", { class: "quiet", text: "It appears here by itself. 50051 is the router's usual gRPC port." }),
  );
  const grid = h("div", { class: "nodes" });
  panel.append(waiting, none, grid);
  const cards = new KeyedList(grid, () => nodeCard(store));
  let known = new Set();

  function render() {
    const nodes = [...store.nodes.values()].sort((a, b) => byName.compare(a.name, b.name));
    known = new Set(store.nodes.keys());
    cards.render(nodes.map((node) => [node.id, node]));
    setHidden(waiting, store.synced || nodes.length > 0);
    setHidden(none, !store.synced || nodes.length > 0);
  }

  store.subscribe((changes) => {
    const same = known.size === store.nodes.size && [...known].every((id) => store.nodes.has(id));
    if (!same || known.size === 0) {
      render();
      return;
    }
    for (const id of changes.nodes) {
      const node = store.nodes.get(id);
      if (node) cards.parts.get(id)?.update(node);
    }
  });
  setInterval(() => {
    if (!panel.hidden) render();
  }, CLOCK_MS);
}

function command() {
  return `llm-router-agent --router ${location.hostname}:50051`;
}

function nodeCard(store) {
  const online = h("span", { class: "online-dot" });
  const title = h("h2", { class: "card-title" });
  const status = h("span", { class: "tag" });
  const facts = h("p", { class: "node-facts" });
  const labels = h("p", { class: "labels" });
  const fill = h("span", { class: "fill" });
  const disk = h(
    "div",
    {
      class: "progress disk",
      role: "meter",
      "aria-label": "Disk used",
      "aria-valuemin": "0",
      "aria-valuemax": "100",
    },
    fill,
  );
  const diskText = h("p", { class: "node-disk" });
  const work = h("p", { class: "node-work" });
  const models = h("ul", { class: "node-models" });
  const root = h(
    "article",
    { class: "card node" },
    h("header", { class: "node-head" }, online, title, status),
    ...[facts, labels, disk, diskText, work, models],
  );
  const list = new KeyedList(models, () => {
    const item = h("li");
    return {
      root: item,
      update({ text, kind }) {
        setText(item, text);
        setAttribute(item, "title", text);
        setAttribute(item, "data-kind", kind);
      },
    };
  });

  return {
    root,
    update(node) {
      const isOnline = node.status === "online";
      setAttribute(root, "data-online", String(isOnline));
      setText(title, node.name);
      setAttribute(title, "title", node.id);
      status.className = `tag ${isOnline ? "good" : ""}`;
      setText(status, isOnline ? "Online" : "Offline");
      setText(facts, factsOf(node));
      setText(labels, Object.entries(node.labels ?? {}).map(([k, v]) => `${k}=${v}`).join("  "));
      setHidden(labels, labels.textContent === "");

      const { disk_total_bytes: total, disk_free_bytes: free } = node;
      const used = total > 0 ? 1 - free / total : 0;
      setHidden(disk, !(total > 0));
      fill.style.setProperty("--share", String(Math.min(1, Math.max(0, used))));
      setAttribute(disk, "data-full", String(used > 0.9));
      setAttribute(disk, "aria-valuenow", Math.round(used * 100));
      setText(diskText, total > 0 ? `${bytes(free)} free of ${bytes(total)}` : "Disk not known yet");
      setText(work, workOf(node, store));

      const held = (node.models ?? []).map((model) => [
        model.name,
        { text: titleOf(store.models.get(model.name) ?? model), kind: model.status },
      ]);
      const more = held.length - SHOWN_MODELS;
      const shown = more > 0 ? held.slice(0, SHOWN_MODELS) : held;
      if (more > 0) shown.push(["", { text: `and ${more} more`, kind: "more" }]);
      list.render(shown);
    },
  };
}

function factsOf(node) {
  const words = node.status === "online" ? [] : [`Last seen ${ago(node.last_seen_at) || "never"}`];
  if (node.memory_bytes > 0) words.push(`${bytes(node.memory_bytes)} memory`);
  for (const gpu of node.gpus ?? []) {
    words.push(gpu.memory_bytes > 0 ? `${gpu.name} ${bytes(gpu.memory_bytes)}` : gpu.name);
  }
  if (node.version) words.push(`agent ${node.version}`);
  return words.join(" · ");
}

function workOf(node, store) {
  const active = [...store.tasks.values()].filter(
    (task) => task.node_id === node.id && ACTIVE.has(task.status),
  );
  const held = plural((node.models ?? []).length, "model");
  if (active.length === 0) return held;
  if (node.status !== "online") return `${held} · ${plural(active.length, "download")} waiting`;
  const pace = speed(active.reduce((sum, task) => sum + (task.speed_bps || 0), 0));
  return [held, plural(active.length, "download"), pace].filter(Boolean).join(" · ");
}
