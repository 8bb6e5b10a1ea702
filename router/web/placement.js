// What one node has of one model: the newest task and the node's own word, put together.

/**
 * @typedef {"pending"|"downloading"|"verifying"|"paused"|"failed"|"cancelled"|"ready"|"missing"}
 *   Kind
 * @typedef {object} Placement
 * @property {string} nodeId
 * @property {string} nodeName
 * @property {boolean} online
 * @property {Kind} kind
 * @property {object|null} task the newest task, when one says something
 * @property {string|null} verifiedAt
 */

export const ACTIVE = new Set(["pending", "downloading", "verifying"]);
const UNFINISHED = new Set([...ACTIVE, "paused"]);

/** Every node that has, gets or failed to get the model, by name. */
export function placements(model, store) {
  const held = new Map((model.nodes ?? []).map((entry) => [entry.node_id, entry]));
  const tasks = store.tasksOf(model.name);
  const found = [];
  for (const nodeId of new Set([...held.keys(), ...tasks.keys()])) {
    const entry = held.get(nodeId);
    const task = ofThisRegistration(tasks.get(nodeId), model);
    const kind = kindOf(task, entry);
    if (!kind) continue;
    const node = store.nodes.get(nodeId);
    found.push({
      nodeId,
      nodeName: node?.name ?? task?.node_name ?? entry?.node_name ?? nodeId,
      online: node ? node.status === "online" : (task?.node_online ?? false),
      kind,
      task: task ?? null,
      verifiedAt: entry?.verified_at ?? task?.completed_at ?? null,
    });
  }
  return found.sort((a, b) => byName.compare(a.nodeName, b.nodeName));
}

export const byName = new Intl.Collator("en", { numeric: true });

/** Tasks that ended before the model was registered (again) say nothing about it. */
function ofThisRegistration(task, model) {
  if (!task || UNFINISHED.has(task.status)) return task;
  return Date.parse(task.updated_at) < Date.parse(model.created_at) ? undefined : task;
}

// The task's event and the model's come one after the other: a task at work, or just completed,
// is believed before the model's older word; what the node lost since then is not.
function kindOf(task, entry) {
  if (task && UNFINISHED.has(task.status)) return task.status;
  if (task?.status === "completed") {
    return entry?.status === "missing" || entry?.status === "failed" ? entry.status : "ready";
  }
  if (entry?.status === "ready") return "ready";
  return task?.status ?? entry?.status ?? null;
}
