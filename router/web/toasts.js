// Short messages about what was done or went wrong, in a corner, read aloud.

import { h, linked } from "./dom.js";
import { setIcon } from "./icons.js";

const GOOD_MS = 6000;
const BAD_MS = 15000;
const MOST = 4;

/** @param {"good"|"bad"} tone */
function toast(tone, text) {
  const close = h("button", { class: "icon-button", type: "button" });
  setIcon(close, "cancel", "Dismiss");
  const message = h(
    "div",
    { class: `toast toast-${tone}`, role: tone === "bad" ? "alert" : "status" },
    h("p", {}, linked(text)),
    close,
  );
  const remove = () => message.remove();
  close.addEventListener("click", remove);
  const region = document.getElementById("toasts");
  region.append(message);
  while (region.childElementCount > MOST) region.firstElementChild.remove();

  let timer = setTimeout(remove, tone === "bad" ? BAD_MS : GOOD_MS);
  message.addEventListener("pointerenter", () => clearTimeout(timer));
  message.addEventListener("pointerleave", () => (timer = setTimeout(remove, GOOD_MS)));
}

export const good = (text) => toast("good", text);
export const bad = (text) => toast("bad", text);
