// A modal question: the browser's own <dialog> keeps the focus inside and gives it back.

import { h } from "./dom.js";
import { setIcon } from "./icons.js";

let serial = 0;

/**
 * Opens at once; Escape, the cross and a click beside it close it.
 *
 * @param {{title: string, body: Node[], confirm: string, tone?: "primary"|"danger",
 *   onConfirm(dialog: {confirm: HTMLButtonElement, fail(text: string): void, close(): void}):
 *   Promise<void>, onClose?(): void}} options `onConfirm` runs with the button disabled and
 *   closes the dialog itself when all went well
 */
export function ask({ title, body, confirm, tone = "primary", onConfirm, onClose }) {
  const id = `dialog-${(serial += 1)}`;
  const cross = h("button", { class: "icon-button", type: "button" });
  setIcon(cross, "cancel", "Close");
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const yes = h("button", { class: `button ${tone}`, type: "button", text: confirm });
  const no = h("button", { class: "button", type: "button", text: "Not now" });
  const dialog = h(
    "dialog",
    { class: "dialog", "aria-labelledby": id },
    h("div", { class: "dialog-head" }, h("h2", { id, text: title }), cross),
    h("div", { class: "dialog-body" }, ...body, problem),
    h("div", { class: "dialog-foot" }, no, yes),
  );

  const handle = {
    confirm: yes,
    close: () => dialog.close(),
    fail(text) {
      problem.textContent = text;
      problem.hidden = !text;
    },
  };
  cross.addEventListener("click", handle.close);
  no.addEventListener("click", handle.close);
  yes.addEventListener("click", async () => {
    yes.disabled = true;
    handle.fail("");
    await onConfirm(handle);
    yes.disabled = false;
    if (dialog.open) yes.focus();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    dialog.remove();
    onClose?.();
  });
  document.body.append(dialog);
  dialog.showModal();
  yes.focus();
  return handle;
}
