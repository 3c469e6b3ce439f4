import { AbortController, AbortSignal, isAbortSignal } from "./abort.js";
import { Body, extract, mixIn } from "./body.js";
import { Headers } from "./headers.js";
import { parseURL, serializeURL } from "./url.js";
import { byteString, dictionary, expose, isObject, needs, usvString } from "./webidl.js";

const METHOD = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const UPPER = new Set(["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"]);
const REFUSED = new Set(["CONNECT", "TRACE", "TRACK"]);
const CHOICES = {
  cache: ["default", "no-store", "reload", "no-cache", "force-cache", "only-if-cached"],
  credentials: ["omit", "same-origin", "include"],
  mode: ["same-origin", "no-cors", "cors"],
  redirect: ["follow", "error", "manual"],
};

function methodOf(value) {
  const method = byteString(value, "Request");
  if (!METHOD.test(method)) throw new TypeError(`Request: "${method}" is not a method`);
  const upper = method.toUpperCase();
  if (REFUSED.has(upper)) throw new TypeError(`Request: the method ${upper} is not allowed`);
  return UPPER.has(upper) ? upper : method;
}

function choice(key, value, present) {
  if (value === undefined) return present;
  const chosen = `${value}`;
  if (CHOICES[key].includes(chosen)) return chosen;
  throw new TypeError(`Request: ${key} is one of ${CHOICES[key].join(", ")}, not "${chosen}"`);
}

function urlOf(input) {
  const text = usvString(input);
  const url = parseURL(text);
  if (url === null) throw new TypeError(`Request: "${text}" is not a URL; a rule has no page, so it is given whole`);
  if (url.username !== "" || url.password !== "") {
    throw new TypeError("Request: a URL holds no user and password; send an Authorization header");
  }
  return serializeURL(url);
}

let bodyOf;
let isRequest;
const NOTHING = {
  method: "GET", url: "", cache: "default", credentials: "same-origin", mode: "cors",
  redirect: "follow", integrity: "", keepalive: false, referrer: "about:client", referrerPolicy: "",
};

export class Request {
  #facts;
  #headers;
  #signal;
  #body;

  constructor(input, init = undefined) {
    needs(1, arguments.length, "Request");
    const options = dictionary(init, "Request");
    const from = isRequest(input) ? input : undefined;
    const facts = from === undefined ? { ...NOTHING, url: urlOf(input) } : { ...from.#facts };
    for (const key of Object.keys(CHOICES)) facts[key] = choice(key, options[key], facts[key]);
    if (options.method !== undefined) facts.method = methodOf(options.method);
    if (options.integrity !== undefined) facts.integrity = `${options.integrity}`;
    if (options.keepalive !== undefined) facts.keepalive = Boolean(options.keepalive);
    if (options.window !== undefined && options.window !== null) throw new TypeError("Request: window can only be null");
    this.#facts = facts;
    this.#signal = Request.#signalFor(options.signal === undefined ? from?.#signal : options.signal);
    this.#headers = new Headers(options.headers === undefined ? from?.#headers : options.headers);
    this.#setBody(from, options.body);
  }

  static #signalFor(signal) {
    if (signal === undefined || signal === null) return new AbortController().signal;
    if (!isAbortSignal(signal)) throw new TypeError("Request: the signal is not an AbortSignal");
    return AbortSignal.any([signal]);
  }

  #setBody(from, given) {
    const has = (given !== undefined && given !== null) || (from !== undefined && from.#body.bytes !== null);
    const { method } = this.#facts;
    if (has && (method === "GET" || method === "HEAD")) {
      throw new TypeError(`Request: a ${method} has no body`);
    }
    if (given !== undefined && given !== null) {
      const { bytes, type } = extract(given);
      this.#body = new Body(bytes);
      if (type !== null && !this.#headers.has("content-type")) this.#headers.append("Content-Type", type);
    } else if (from !== undefined) {
      this.#body = from.#body.copy("Request");
      if (from.#body.bytes !== null) from.#body.take("Request");
    } else {
      this.#body = new Body(null);
    }
  }

  get method() { return this.#facts.method; }
  get url() { return this.#facts.url; }
  get headers() { return this.#headers; }
  get destination() { this.#facts; return ""; }
  get referrer() { return this.#facts.referrer; }
  get referrerPolicy() { return this.#facts.referrerPolicy; }
  get mode() { return this.#facts.mode; }
  get credentials() { return this.#facts.credentials; }
  get cache() { return this.#facts.cache; }
  get redirect() { return this.#facts.redirect; }
  get integrity() { return this.#facts.integrity; }
  get keepalive() { return this.#facts.keepalive; }
  get signal() { return this.#signal; }
  get duplex() { this.#facts; return "half"; }

  clone() {
    const body = this.#body.copy("Request.clone");
    const copy = new Request(this.#facts.url, { signal: this.#signal, headers: this.#headers });
    copy.#facts = this.#facts;
    copy.#body = body;
    return copy;
  }

  static {
    isRequest = (value) => isObject(value) && #facts in value;
    bodyOf = (request) => request.#body;
    expose(Request, "Request");
    mixIn(Request, bodyOf);
  }
}

export { bodyOf as bodyOfRequest };
