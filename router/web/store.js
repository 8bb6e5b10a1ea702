// What the router said last: models, nodes and tasks by id, and who wants to know of changes.

/**
 * @typedef {object} Changes what changed since the last call
 * @property {Set<string>} models names; also of models whose tasks changed
 * @property {Set<string>} nodes ids; also of nodes whose tasks changed
 */

const KEY = { model: "name", node: "id", task: "id" };

export class Store {
  models = new Map();
  nodes = new Map();
  tasks = new Map();
  /** Whether a whole snapshot has come: until then "nothing" means "not known yet". */
  synced = false;

  #newest = new Map(); // model name → node id → that node's newest task of the model
  #listeners = [];
  #changes = { models: new Set(), nodes: new Set() };
  #scheduled = false;
  #snapshot = null; // kind → keys seen since the stream opened

  /** Calls `listener(changes)` at most once a frame, however many events came. */
  subscribe(listener) {
    this.#listeners.push(listener);
  }

  /** A stream opened: what comes before `endSnapshot` may be a snapshot of everything. */
  beginSnapshot() {
    this.#snapshot = { model: new Set(), node: new Set(), task: new Set() };
  }

  /** The snapshot is whole: whatever it did not hold is gone. */
  endSnapshot() {
    for (const [kind, seen] of Object.entries(this.#snapshot ?? {})) {
      for (const key of [...this.#map(kind).keys()]) {
        if (!seen.has(key)) this.#remove(kind, key);
      }
    }
    this.#snapshot = null;
    this.synced = true;
    this.#schedule();
  }

  /** Takes one event in: the whole present object, or `{…key, deleted: true}`. */
  apply(kind, item) {
    const key = item[KEY[kind]];
    if (item.deleted) {
      this.#remove(kind, key);
      return;
    }
    this.#snapshot?.[kind].add(key);
    this.#map(kind).set(key, item);
    if (kind === "task") this.#index(item);
    this.#touch(kind, item);
  }

  /** The newest task of each node for this model, by node id. */
  tasksOf(modelName) {
    return this.#newest.get(modelName) ?? EMPTY;
  }

  #map(kind) {
    return { model: this.models, node: this.nodes, task: this.tasks }[kind];
  }

  #remove(kind, key) {
    const item = this.#map(kind).get(key);
    if (!item) return;
    this.#map(kind).delete(key);
    this.#snapshot?.[kind].delete(key);
    if (kind === "task") this.#reindex(item.model_name);
    this.#touch(kind, item);
  }

  #index(task) {
    let nodes = this.#newest.get(task.model_name);
    if (!nodes) this.#newest.set(task.model_name, (nodes = new Map()));
    const known = nodes.get(task.node_id);
    if (!known || known.id === task.id || isNewer(task, known)) nodes.set(task.node_id, task);
  }

  #reindex(modelName) {
    this.#newest.delete(modelName);
    for (const task of this.tasks.values()) {
      if (task.model_name === modelName) this.#index(task);
    }
  }

  #touch(kind, item) {
    if (kind === "model") this.#changes.models.add(item.name);
    if (kind === "node") this.#touchNode(item);
    if (kind === "task") {
      this.#changes.models.add(item.model_name);
      this.#changes.nodes.add(item.node_id);
    }
    this.#schedule();
  }

  #touchNode(node) {
    this.#changes.nodes.add(node.id);
    for (const [modelName, nodes] of this.#newest) {
      if (nodes.has(node.id)) this.#changes.models.add(modelName);
    }
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      const changes = this.#changes;
      this.#changes = { models: new Set(), nodes: new Set() };
      for (const listener of this.#listeners) listener(changes);
    });
  }
}

const EMPTY = new Map();

function isNewer(task, other) {
  return Date.parse(task.created_at) >= Date.parse(other.created_at);
}
