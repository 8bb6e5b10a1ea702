// The live feed: one EventSource, its reconnects, and when a snapshot is whole.

const KINDS = ["task", "model", "node"];
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15000;

/**
 * Listens for as long as the page lives. The browser reconnects a broken stream by itself and
 * sends `Last-Event-ID`; a stream that was refused (a proxy's 502, say) it gives up, so that one
 * is opened anew here, waiting longer each time.
 *
 * @param {string} url
 * @param {{opened(): void, changed(kind: string, item: object): void, synced(): void,
 *   connection(state: "live"|"reconnecting"): void}} listener `opened` comes before the first
 *   event of every connection, `synced` after the last one of a snapshot
 */
export function follow(url, listener) {
  let wait = FIRST_WAIT_MS;

  const open = () => {
    const source = new EventSource(url);
    source.addEventListener("open", () => {
      wait = FIRST_WAIT_MS;
      listener.opened();
      listener.connection("live");
    });
    source.addEventListener("error", () => {
      listener.connection("reconnecting");
      if (source.readyState !== EventSource.CLOSED) return;
      setTimeout(open, wait);
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    });
    source.addEventListener("synced", () => listener.synced());
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => listener.changed(kind, JSON.parse(event.data)));
    }
  };

  open();
}
