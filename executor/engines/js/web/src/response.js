import { Body, extract, mixIn } from "./body.js";
import { Headers, makeImmutable } from "./headers.js";
import { parseURL, serializeURL } from "./url.js";
import { byteString, dictionary, expose, needs, usvString } from "./webidl.js";

const NO_BODY = new Set([101, 103, 204, 205, 304]);
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const REASON = /^[\t\x20-\x7e\x80-\xff]*$/;

const number16 = (value) => Math.trunc(Number(value)) & 0xffff;

let received;

export class Response {
  #type = "default";
  #url = "";
  #redirected = false;
  #status;
  #statusText;
  #headers;
  #body;

  constructor(body = null, init = undefined) {
    const { status = 200, statusText = "", headers } = dictionary(init, "Response");
    const code = number16(status);
    if (code < 200 || code > 599) throw new RangeError(`Response: a status is from 200 to 599, not ${status}`);
    const reason = byteString(statusText, "Response");
    if (!REASON.test(reason)) throw new TypeError("Response: the status text has forbidden characters");
    this.#status = code;
    this.#statusText = reason;
    this.#headers = new Headers(headers);
    if (body === null || body === undefined) {
      this.#body = new Body(null);
      return;
    }
    if (NO_BODY.has(code)) throw new TypeError(`Response: status ${code} has no body`);
    const { bytes, type } = extract(body);
    this.#body = new Body(bytes);
    if (type !== null && !this.#headers.has("content-type")) this.#headers.append("Content-Type", type);
  }

  static error() {
    const response = new Response();
    response.#type = "error";
    response.#status = 0;
    makeImmutable(response.#headers);
    return response;
  }

  static redirect(url, status = 302) {
    needs(1, arguments.length, "Response.redirect");
    const parsed = parseURL(usvString(url));
    if (parsed === null) throw new TypeError(`Response.redirect: "${url}" is not a URL`);
    const code = number16(status);
    if (!REDIRECTS.has(code)) throw new RangeError(`Response.redirect: ${status} is not the status of a redirect`);
    const response = new Response(null, { status: code, headers: { Location: serializeURL(parsed) } });
    makeImmutable(response.#headers);
    return response;
  }

  static json(data, init = undefined) {
    needs(1, arguments.length, "Response.json");
    const text = JSON.stringify(data);
    if (text === undefined) throw new TypeError("Response.json: the value is not what JSON can express");
    const response = new Response(text, init);
    const { headers } = dictionary(init, "Response.json");
    if (headers === undefined || !new Headers(headers).has("content-type")) {
      response.#headers.set("Content-Type", "application/json");
    }
    return response;
  }

  get type() { return this.#type; }
  get url() { return this.#url; }
  get redirected() { return this.#redirected; }
  get status() { return this.#status; }
  get ok() { return this.#status >= 200 && this.#status <= 299; }
  get statusText() { return this.#statusText; }
  get headers() { return this.#headers; }

  clone() {
    const copy = new Response();
    copy.#body = this.#body.copy("Response.clone");
    copy.#type = this.#type;
    copy.#url = this.#url;
    copy.#redirected = this.#redirected;
    copy.#status = this.#status;
    copy.#statusText = this.#statusText;
    copy.#headers = new Headers(this.#headers);
    if (this.#type !== "default") makeImmutable(copy.#headers);
    return copy;
  }

  static {
    // What came over the network.
    received = ({ url, redirected, status, statusText, headers, bytes }) => {
      const response = new Response(null, { headers });
      response.#type = "basic";
      response.#url = url;
      response.#redirected = redirected;
      response.#status = status;
      response.#statusText = statusText;
      response.#body = new Body(NO_BODY.has(status) ? null : bytes);
      makeImmutable(response.#headers);
      return response;
    };
    expose(Response, "Response");
    mixIn(Response, (response) => response.#body);
  }
}

export { received };
