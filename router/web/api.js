// The router's REST API: one function per request, one error class for everything that fails.

import { sentence } from "./format.js";

/** What a request ended with when it did not end well; `message` is a sentence for a person. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{code?: string, status?: number, retryAfter?: number|null}} [details] `code` is the
   *   API's stable code, or `network`; `status` 0 means that no answer came; `retryAfter` is in
   *   seconds, null when waiting is not known to help.
   */
  constructor(message, { code = "internal", status = 0, retryAfter = null } = {}) {
    super(message);
    this.code = code;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {{body?: object, headers?: object, signal?: AbortSignal}} [options]
 * @returns {Promise<any>} the JSON answer, null when there is no body
 * @throws {ApiError}; an abort of `signal` passes as it is
 */
async function request(method, path, { body, headers = {}, signal } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      signal,
      headers: body ? { ...headers, "Content-Type": "application/json" } : headers,
      body: body && JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The router does not answer. Is it running, and can you reach it?", {
      code: "network",
    });
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (response.ok && answer !== null) return answer;
  const told = answer?.error ?? {};
  throw new ApiError(sentence(told.message) || `The router answered ${response.status}.`, {
    code: told.code,
    status: response.status,
    retryAfter: seconds(response.headers.get("Retry-After")),
  });
}

/** `Retry-After` (RFC 9110, section 10.2.3): seconds or a date. */
function seconds(value) {
  if (!value) return null;
  const wait = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(wait) ? Math.max(0, Math.ceil(wait)) : null;
}

/** A model's id inside a path: its slashes stay, everything else is escaped. */
const inPath = (name) => name.split("/").map(encodeURIComponent).join("/");

export const available = ({ search, limit, offset }, signal) =>
  request("GET", `/api/models/available?${new URLSearchParams({ search, limit, offset })}`, {
    signal,
  });

export const register = (repo, filename) =>
  request("POST", "/api/models/register", { body: filename ? { repo, filename } : { repo } });

export const removeModel = (name, { force = false } = {}) =>
  request("DELETE", `/api/models/${inPath(name)}${force ? "?force=true" : ""}`);

/** @param {{model_name: string, target: "all"|"specific", node_ids: string[]}} order */
export const plan = (order, signal) => request("POST", "/api/models/plan", { body: order, signal });

/** The same `key` for the same order makes a second try safe. */
export const download = (order, key) =>
  request("POST", "/api/models/download", { body: order, headers: { "Idempotency-Key": key } });

/** @param {"cancel"|"pause"|"resume"|"retry"} verb */
export const task = (id, verb) => request("POST", `/api/tasks/${encodeURIComponent(id)}/${verb}`);
