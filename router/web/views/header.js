// The line on top: what the fleet does now, and whether this page still hears of it.

import { setHidden, setText } from "../dom.js";
import { plural, speed } from "../format.js";
import { ACTIVE } from "../placement.js";

const SAID = { live: "Live", reconnecting: "Reconnecting" };

export function startHeader(store) {
  const fleet = document.getElementById("fleet");
  const connection = document.getElementById("connection");

  store.subscribe(() => {
    setText(fleet, store.synced ? summary(store) : "");
    setCount("count-supported", store.models.size);
    setCount("count-nodes", store.nodes.size);
  });

  return {
    connection(state) {
      connection.dataset.state = state;
      setText(document.getElementById("connection-text"), SAID[state]);
      connection.title =
        state === "live"
          ? "Changes are shown as they happen"
          : "The router does not answer; what is shown may be old";
    },
  };
}

function summary(store) {
  const nodes = [...store.nodes.values()];
  if (nodes.length === 0) return "No nodes yet";
  const online = nodes.filter((node) => node.status === "online").length;
  const active = [...store.tasks.values()].filter((task) => ACTIVE.has(task.status));
  const words = [`${online} of ${plural(nodes.length, "node")} online`];
  if (active.length > 0) {
    words.push(plural(active.length, "download"));
    const total = active
      .filter((task) => task.node_online)
      .reduce((sum, task) => sum + (task.speed_bps || 0), 0);
    if (total > 0) words.push(speed(total));
  }
  return words.join(" · ");
}

function setCount(id, value) {
  const badge = document.getElementById(id);
  setText(badge, String(value));
  setHidden(badge, value === 0);
}
