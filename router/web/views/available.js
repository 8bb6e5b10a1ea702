// Available models: the Hub's catalog, searched as one types, and how a model gets registered.

import * as api from "../api.js";
import { KeyedList, h, linked, outside, setHidden, setText } from "../dom.js";
import { ago, bytes, clock, count, day, plural, sentence } from "../format.js";
import { icon } from "../icons.js";
import { placements } from "../placement.js";
import { setAddress } from "../tabs.js";
import * as toasts from "../toasts.js";

const PAGE = 20;
const DEBOUNCE_MS = 250;
const SLOW_MS = 150;
const CLOCK_MS = 15000;

/** @param {{showModel(name: string): void}} way leads to the registered model */
export function startAvailable(panel, store, way) {
  const page = build();
  panel.append(...page.parts);

  let search = "";
  let offset = 0;
  let earlier = []; // offsets of the pages before this one: pages may be shorter than asked for
  let answer = null;
  let call = null; // aborts the request under way
  let asked = false;
  let typing;
  let retry;

  const variants = new Map(); // name → the row that is shown
  const repos = new KeyedList(page.list, (key) => repoPart(key, variants, registerOne, way));

  async function load() {
    call?.abort();
    clearTimeout(retry);
    const mine = (call = new AbortController());
    const slow = setTimeout(() => page.list.setAttribute("aria-busy", "true"), SLOW_MS);
    const query = new URLSearchParams();
    if (search) query.set("search", search);
    if (offset) query.set("offset", offset);
    if (!panel.hidden) setAddress("available", query.toString());
    try {
      answer = await api.available({ search, limit: PAGE, offset }, mine.signal);
      show();
    } catch (error) {
      if (error.name === "AbortError") return;
      answer = null;
      fail(error);
    } finally {
      clearTimeout(slow);
      if (call === mine) page.list.removeAttribute("aria-busy");
    }
  }

  function show() {
    const found = answer.models;
    setHidden(page.problem, true);
    variants.clear();
    repos.render(byRepo(found));
    setHidden(page.empty, found.length > 0);
    setText(page.emptyTitle, search ? `Nothing fits “${search}”` : "The Hub offers no models");
    setText(
      page.emptyHint,
      search
        ? "Try fewer or shorter words, or the owner and name as the Hub writes them: owner/repo."
        : "Start the router with --hub-url to point it at another Hub.",
    );
    const { total, has_more: more } = answer.pagination;
    setText(page.range, found.length ? rangeText(offset, found.length, total) : "");
    setHidden(page.pager, found.length === 0 && offset === 0);
    page.previous.disabled = offset === 0;
    page.next.disabled = !more;
    tellAge();
  }

  function tellAge() {
    if (!answer) return;
    setHidden(page.stale, !answer.stale);
    setText(
      page.staleText,
      `The Hub could not be asked${answer.problem ? `: ${answer.problem}` : ""}. ` +
        `This is its answer of ${clock(answer.fetched_at)}, ${ago(answer.fetched_at)}.`,
    );
    const age = answer.cached && !answer.stale;
    setText(page.age, age ? `As the Hub said ${ago(answer.fetched_at)}` : "");
  }

  function fail(error) {
    variants.clear();
    repos.render([]);
    for (const part of [page.empty, page.stale, page.pager]) setHidden(part, true);
    setText(page.range, "");
    setText(page.age, "");
    setHidden(page.problem, false);
    setText(page.problemTitle, TITLES[error.code] ?? "The catalog cannot be shown");
    page.problemText.replaceChildren(linked(error.message));
    setText(page.problemHint, "");
    if (error.retryAfter !== null) countDown(error.retryAfter);
  }

  function countDown(left) {
    setText(page.problemHint, left > 0 ? `Trying again in ${left} s` : "Trying again");
    retry = setTimeout(() => (left > 0 ? countDown(left - 1) : load()), left > 0 ? 1000 : 0);
  }

  async function registerOne(row) {
    row.busy();
    try {
      const model = await api.register(row.item.repo, row.item.filename);
      row.registered((model.warnings ?? []).map(sentence));
      toasts.good(`${row.item.display_name || model.name} is registered.`);
    } catch (error) {
      row.failed(error);
    }
  }

  function searchFor(text) {
    clearTimeout(typing);
    if (text === search && asked) return;
    search = text;
    offset = 0;
    earlier = [];
    asked = true;
    load();
  }

  function turn(to) {
    offset = to;
    load();
    scrollTo({ top: 0 });
  }

  page.search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => searchFor(page.search.value.trim()), DEBOUNCE_MS);
  });
  page.search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") searchFor(page.search.value.trim());
  });
  page.previous.addEventListener("click", () => turn(earlier.pop() ?? Math.max(0, offset - PAGE)));
  page.next.addEventListener("click", () => {
    earlier.push(offset);
    turn(offset + (answer.models.length || PAGE));
  });
  page.again.addEventListener("click", load);
  page.staleAgain.addEventListener("click", load);
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || panel.hidden || event.target.matches("input, textarea")) return;
    if (document.querySelector("dialog[open]")) return;
    event.preventDefault();
    page.search.focus();
  });
  setInterval(tellAge, CLOCK_MS);
  store.subscribe((changes) => {
    for (const name of changes.models) variants.get(name)?.refresh(store);
  });

  return {
    /** The tab came to the front, with this query in its address. */
    shown(query) {
      if (asked) return;
      offset = Math.max(0, Number.parseInt(query.get("offset"), 10) || 0);
      search = query.get("search") ?? "";
      page.search.value = search;
      asked = true;
      load();
    },
  };

  function byRepo(found) {
    const groups = [];
    for (const item of found) {
      const last = groups.at(-1)?.[1];
      if (last?.repo === item.repo) last.items.push(item);
      else groups.push([`${item.repo} ${groups.length}`, { repo: item.repo, items: [item], store }]);
    }
    return groups;
  }
}

const TITLES = {
  hub_unavailable: "The Hub does not answer",
  hub_rate_limited: "The Hub limits our requests",
  hub_gated: "The Hub asks for access",
  network: "The router does not answer",
};

function rangeText(offset, length, total) {
  const range = `${offset + 1}–${offset + length}`;
  return total === null || total === undefined ? range : `${range} of ${total}`;
}

function build() {
  const search = h("input", {
    type: "search",
    id: "search",
    placeholder: "Search the Hub: qwen3, gemma, owner/repo …",
    autocomplete: "off",
    spellcheck: "false",
    "aria-label": "Search the Hub's catalog",
    "aria-keyshortcuts": "/",
  });
  const range = h("span", { class: "range", role: "status" });
  const age = h("span", { class: "age" });
  const staleText = h("p");
  const staleAgain = h("button", { class: "button small", type: "button", text: "Ask again" });
  const stale = h("div", { class: "banner", role: "status", hidden: true }, staleText, staleAgain);
  const list = h("div", { class: "repos", "aria-busy": "true" });
  const emptyTitle = h("h2");
  const emptyHint = h("p");
  const empty = h("div", { class: "empty", hidden: true }, emptyTitle, emptyHint);
  const problemTitle = h("h2");
  const problemText = h("p");
  const problemHint = h("p", { class: "quiet" });
  const again = h("button", { class: "button", type: "button", text: "Try again" });
  const problem = h(
    "div",
    { class: "empty bad", role: "alert", hidden: true },
    problemTitle,
    problemText,
    problemHint,
    again,
  );
  const previous = h("button", { class: "button", type: "button", text: "Previous" });
  const next = h("button", { class: "button", type: "button", text: "Next" });
  const pager = h(
    "nav",
    { class: "pager", "aria-label": "Pages", hidden: true },
    previous,
    next,
  );
  const parts = [
    h(
      "div",
      { class: "bar-line" },
      h("div", { class: "search" }, icon("search"), search),
      h("p", { class: "found" }, range, age),
    ),
    stale,
    problem,
    empty,
    list,
    pager,
  ];
  return {
    ...{ parts, search, range, age, stale, staleText, staleAgain, list, empty, emptyTitle },
    ...{ emptyHint, problem, problemTitle, problemText, problemHint, again, pager, previous, next },
  };
}

/** One repository: what counts for all its variants in the head, a row for each below. */
function repoPart(key, variants, register, way) {
  const title = h("h2", { class: "repo-name" });
  const facts = h("p", { class: "repo-facts" });
  const rows = h("ul", { class: "variants" });
  const root = h("article", { class: "repo" }, h("header", {}, title, facts), rows);
  const list = new KeyedList(rows, (name) => variantRow(name, variants, register, way));
  return {
    root,
    update({ repo, items, store }) {
      const [first] = items;
      title.replaceChildren(repoLink(repo, first.download_url));
      facts.replaceChildren(...repoFacts(first));
      list.render(items.map((item) => [item.name, { item, store }]));
    },
  };
}

/** The repository's page is the part of a file's address before `/resolve/`. */
function repoLink(repo, downloadUrl) {
  const at = (downloadUrl ?? "").indexOf("/resolve/");
  const link = outside(at > 0 ? downloadUrl.slice(0, at) : "", "", { title: "Open on the Hub" });
  const slash = repo.indexOf("/") + 1;
  link.append(h("span", { class: "owner", text: repo.slice(0, slash) }), repo.slice(slash));
  return link;
}

function repoFacts(item) {
  const fact = (title, ...content) => h("span", { class: "fact", title }, ...content);
  const facts = [];
  if (item.gated) {
    facts.push(
      h(
        "span",
        { class: "tag warn", title: "The owner grants access on the Hub; the router needs a token" },
        icon("lock"),
        "Gated",
      ),
    );
  }
  if (item.source === "hf_pending_conversion") {
    facts.push(
      h("span", { class: "tag", title: "Not GGUF: it has to be converted before nodes can run it" },
        "Needs conversion"),
    );
  }
  facts.push(
    fact(`${item.downloads ?? 0} downloads`, icon("download"), count(item.downloads)),
    fact(`${item.likes ?? 0} likes`, icon("heart"), count(item.likes)),
  );
  if (item.last_modified) {
    facts.push(fact("Last change on the Hub", `Updated ${day(item.last_modified)}`));
  }
  return facts;
}

/** One variant; it knows what this page did to it and what everybody else did. */
function variantRow(name, variants, register, way) {
  const quantization = h("span", { class: "quant" });
  const file = h("span", { class: "file" });
  const size = h("span", { class: "size" });
  const memory = h("span", { class: "memory" });
  const status = h("span", { class: "have" });
  const button = h("button", { class: "button small", type: "button" });
  const result = h("div", { class: "variant-result", role: "status", hidden: true });
  const root = h(
    "li",
    { class: "variant" },
    ...[quantization, file, size, memory, h("span", { class: "variant-do" }, status, button)],
    result,
  );

  const row = {
    root,
    item: null,
    update({ item, store }) {
      row.item = item;
      variants.set(name, row);
      setText(quantization, item.quantization || "–");
      setText(file, fileText(item));
      file.title = item.name;
      setText(size, bytes(item.size_bytes));
      setText(memory, item.required_memory_bytes ? `≈ ${bytes(item.required_memory_bytes)}` : "");
      memory.title = "Memory to run it with a default context";
      row.refresh(store);
    },
    /** Shows the state that the live feed knows, or else the one that came with the page. */
    refresh(store) {
      if (button.dataset.busy) return;
      const model = store.models.get(name);
      const held = model ? placements(model, store).filter((p) => p.kind === "ready").length : 0;
      const known = model !== undefined || (!store.synced && row.item.status !== "available");
      root.dataset.status = held ? "downloaded" : known ? "registered" : "available";
      status.replaceChildren(
        ...(known ? [icon("check"), held ? `On ${plural(held, "node")}` : "Registered"] : []),
      );
      setText(button, known ? "Show" : "Register");
      button.setAttribute("aria-label", `${known ? "Show" : "Register"} ${label(row.item)}`);
      button.disabled = false;
    },
    busy() {
      button.dataset.busy = "true";
      button.disabled = true;
      setText(button, "Registering");
      setHidden(result, true);
    },
    registered(warnings) {
      delete button.dataset.busy;
      button.disabled = false;
      root.dataset.status = "registered";
      status.replaceChildren(icon("check"), "Registered");
      setText(button, "Show");
      button.setAttribute("aria-label", `Show ${label(row.item)}`);
      takeFocusBack();
      tell("warn", warnings);
    },
    failed(error) {
      delete button.dataset.busy;
      button.disabled = false;
      setText(button, "Try again");
      takeFocusBack();
      const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
      tell("bad", [error.message + wait]);
    },
  };

  /** A disabled button loses the keyboard; nobody else may lose it to the button. */
  function takeFocusBack() {
    if (document.activeElement === document.body) button.focus();
  }

  function tell(tone, texts) {
    result.dataset.tone = tone;
    result.replaceChildren(...texts.map((text) => h("p", {}, linked(text))));
    setHidden(result, texts.length === 0);
  }

  button.addEventListener("click", () => {
    if (root.dataset.status === "available") register(row);
    else way.showModel(name);
  });
  return row;
}

const label = (item) => `${item.repo} ${item.quantization || item.filename || ""}`.trim();

function fileText(item) {
  const more = (item.files?.length ?? 1) - 1;
  return more > 0 ? `${item.filename} + ${plural(more, "file")}` : (item.filename ?? "");
}
