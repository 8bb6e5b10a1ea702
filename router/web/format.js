// Numbers and times as a person reads them.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Bytes in decimal units with three figures, as the Hub shows them: `4.37 GB`. */
export function bytes(count) {
  if (!Number.isFinite(count)) return "–";
  let unit = 0;
  let value = Math.max(0, count);
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** Bytes a second. */
export const speed = (perSecond) => (perSecond > 0 ? `${bytes(perSecond)}/s` : "");

/** A share (0–1) in whole per cent, 100 only when it is whole. */
export const percent = (share) => `${Math.floor(Math.min(1, Math.max(0, share || 0)) * 100)} %`;

/** Seconds to go: `8 s left`, `3 min left`, `1 h 05 min left`; empty when not known. */
export function timeLeft(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  return `${span(seconds)} left`;
}

/** A length of time in seconds: `8 s`, `3 min`, `1 h 05 min`. */
export function span(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.ceil(seconds))} s`;
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** A count, short: `12.3K`. */
export const count = (value) => COMPACT.format(value ?? 0);

/** What a model is called: its display name, or the name of its first file. */
export const titleOf = (model) => model.display_name || model.name.split("/").at(-1);

/** The router's messages start lower-case and end without a full stop; a page shows sentences. */
export function sentence(message) {
  if (typeof message !== "string" || message === "") return "";
  const text = message[0].toUpperCase() + message.slice(1);
  return /[.!?/]$/.test(text) ? text : `${text}.`;
}

/** `1 node`, `2 nodes`. */
export const plural = (value, word) => `${value} ${word}${value === 1 ? "" : "s"}`;

const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const STEPS = [
  ["second", 60],
  ["minute", 60],
  ["hour", 24],
  ["day", 30],
  ["month", 12],
  ["year", Infinity],
];

/** How long ago an RFC 3339 time was: `12 minutes ago`. */
export function ago(time, now = Date.now()) {
  let value = (Date.parse(time) - now) / 1000;
  if (!Number.isFinite(value)) return "";
  if (value > -5) return "just now";
  for (const [unit, length] of STEPS) {
    if (Math.abs(value) < length) return AGO.format(Math.round(value), unit);
    value /= length;
  }
  return "";
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** A day in the reader's time zone: `3 Oct 2026`. */
export function day(time) {
  const at = new Date(time);
  return Number.isNaN(at.getTime()) ? "" : DAY.format(at);
}

/** A time in the reader's time zone: `14:32` today, `3 Oct 2026, 14:32` on another day. */
export function clock(time, now = new Date()) {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return "";
  return DAY.format(at) === DAY.format(now) ? CLOCK.format(at) : `${day(at)}, ${CLOCK.format(at)}`;
}
