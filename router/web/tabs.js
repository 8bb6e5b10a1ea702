// Tabs after the ARIA Authoring Practices; the address' fragment says which one is shown.

const NAMES = ["available", "supported", "nodes"];

/** The fragment as `{tab, query}`: `#available?search=qwen`. */
export function address() {
  const [name, query = ""] = location.hash.slice(1).split("?");
  return { tab: NAMES.includes(name) ? name : NAMES[0], query: new URLSearchParams(query) };
}

/** Changes the address of a tab without a step in the browser's history. */
export function setAddress(tab, query = "") {
  history.replaceState(null, "", `#${tab}${query ? `?${query}` : ""}`);
}

/** @param {(tab: string) => void} shown called whenever a tab comes to the front */
export function startTabs(shown) {
  const tabs = NAMES.map((name) => document.getElementById(`tab-${name}`));
  const fragments = new Map(); // what each tab's address was when it was left

  const show = () => {
    const { tab } = address();
    fragments.set(tab, location.hash);
    for (const [index, name] of NAMES.entries()) {
      const selected = name === tab;
      tabs[index].setAttribute("aria-selected", String(selected));
      tabs[index].tabIndex = selected ? 0 : -1;
      document.getElementById(`panel-${name}`).hidden = !selected;
    }
    shown(tab);
  };

  const go = (name) => {
    fragments.set(address().tab, location.hash);
    location.hash = fragments.get(name) || `#${name}`;
    show(); // at once: the event of the browser comes later
  };

  for (const [index, tab] of tabs.entries()) {
    tab.addEventListener("click", () => go(NAMES[index]));
    tab.addEventListener("keydown", (event) => {
      const next = {
        ArrowRight: (index + 1) % NAMES.length,
        ArrowLeft: (index + NAMES.length - 1) % NAMES.length,
        Home: 0,
        End: NAMES.length - 1,
      }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      tabs[next].focus();
      go(NAMES[next]);
    });
  }
  addEventListener("hashchange", show);
  show();
  return go;
}
