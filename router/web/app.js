// Builds the page: the store, the feed that fills it, the views that show it.

import { follow } from "./events.js";
import { Store } from "./store.js";
import { address, startTabs } from "./tabs.js";
import { startAvailable } from "./views/available.js";
import { startHeader } from "./views/header.js";
import { startNodes } from "./views/nodes.js";
import { startSupported } from "./views/supported.js";

const store = new Store();
const header = startHeader(store);

const supported = startSupported(document.getElementById("panel-supported"), store, {
  browse: () => go("available"),
});
const available = startAvailable(document.getElementById("panel-available"), store, {
  showModel(name) {
    go("supported");
    supported.reveal(name);
  },
});
startNodes(document.getElementById("panel-nodes"), store);

const go = startTabs((tab) => {
  if (tab === "available") available.shown(address().query);
});

follow("/api/events", {
  opened: () => store.beginSnapshot(),
  changed: (kind, item) => store.apply(kind, item),
  synced: () => store.endSnapshot(),
  connection: (state) => header.connection(state),
});
