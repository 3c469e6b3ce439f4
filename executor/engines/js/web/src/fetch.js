import { whenAborted } from "./abort.js";
import { listOf } from "./headers.js";
import { bodyOfRequest, Request } from "./request.js";
import { received } from "./response.js";

// `ask` takes a plain request and gives a promise of a plain reply; what goes where is decided by
// whoever answers it. Rejects with TypeError, as fetch does, for whatever went wrong on the way.
export async function fetch(ask, input, init) {
  const request = new Request(input, init);
  const { signal } = request;
  signal.throwIfAborted();
  const body = bodyOfRequest(request);
  const wanted = {
    method: request.method, url: request.url, headers: listOf(request.headers),
    redirect: request.redirect,
  };
  if (body.bytes !== null) wanted.body = body.take("fetch").toBase64();
  const aborted = new Promise((_, reject) => { whenAborted(signal, () => reject(signal.reason)); });
  const reply = await Promise.race([ask(wanted), aborted]);
  if (reply.ok !== true) {
    const error = new TypeError(`fetch ${request.url.slice(0, 200)}: ${reply.message}`);
    error.code = reply.code;
    throw error;
  }
  return received({
    url: reply.url, redirected: reply.redirected, status: reply.status, statusText: reply.statusText,
    headers: reply.headers, bytes: Uint8Array.fromBase64(reply.body),
  });
}
