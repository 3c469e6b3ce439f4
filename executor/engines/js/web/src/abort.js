import { eventListeners, EventTarget, Event, fire, handler, signalsAre } from "./events.js";
import { DOMException } from "./exceptions.js";
import { expose, isObject, needs } from "./webidl.js";

const MAKE = Symbol("make");
const onabort = handler("abort");

let abort;
let whenAborted;
let isAbortSignal;

export class AbortSignal extends EventTarget {
  #aborted = false;
  #reason = undefined;
  #algorithms = [];
  // For signals made by `any`: what they depend on, and what depends on a signal.
  #sources = [];
  #dependents = [];

  constructor(token) {
    if (token !== MAKE) throw new TypeError("Illegal constructor");
    super();
  }

  get aborted() { return this.#aborted; }
  get reason() { return this.#reason; }
  get onabort() { this.#aborted; return onabort.get(this); }
  set onabort(value) { this.#aborted; onabort.set(this, value); }
  throwIfAborted() { if (this.#aborted) throw this.#reason; }

  static abort(reason = new DOMException("The operation was aborted", "AbortError")) {
    const signal = new AbortSignal(MAKE);
    signal.#aborted = true;
    signal.#reason = reason;
    return signal;
  }

  static any(signals) {
    needs(1, arguments.length, "AbortSignal.any");
    if (!isObject(signals)) throw new TypeError("AbortSignal.any: the argument is not iterable");
    const sources = [...signals];
    if (!sources.every(isAbortSignal)) throw new TypeError("AbortSignal.any: an item is not an AbortSignal");
    return AbortSignal.#dependent(sources);
  }

  static #dependent(sources) {
    const signal = new AbortSignal(MAKE);
    const aborted = sources.find((source) => source.#aborted);
    if (aborted !== undefined) {
      signal.#aborted = true;
      signal.#reason = aborted.#reason;
      return signal;
    }
    const roots = new Set(sources.flatMap((source) => (source.#sources.length > 0 ? source.#sources : [source])));
    for (const root of roots) {
      signal.#sources.push(root);
      root.#dependents.push(signal);
    }
    return signal;
  }

  #mark(reason) {
    if (this.#aborted) return false;
    this.#aborted = true;
    this.#reason = reason;
    return true;
  }

  #run() {
    const algorithms = this.#algorithms;
    this.#algorithms = [];
    for (const algorithm of algorithms) algorithm();
    fire(this, new Event("abort"));
  }

  static {
    isAbortSignal = (value) => isObject(value) && #aborted in value;
    // All are aborted before anyone hears of it.
    abort = (signal, reason = new DOMException("The operation was aborted", "AbortError")) => {
      if (!signal.#mark(reason)) return;
      const dependents = signal.#dependents.filter((dependent) => dependent.#mark(reason));
      let failure;
      for (const each of [signal, ...dependents]) {
        try {
          each.#run();
        } catch (error) {
          failure ??= { error };
        }
      }
      if (failure !== undefined) throw failure.error;
    };
    whenAborted = (signal, algorithm) => {
      if (!signal.#aborted) signal.#algorithms.push(algorithm);
    };
    expose(AbortSignal, "AbortSignal");
  }
}

signalsAre(isAbortSignal);
eventListeners.onAbort = whenAborted;

export class AbortController {
  #signal = new AbortSignal(MAKE);
  get signal() { return this.#signal; }
  abort(reason = undefined) { abort(this.#signal, reason); }
  static { expose(AbortController, "AbortController"); }
}

// The AbortSignal of one run: the shared one, and `timeout`, which needs the timers of the run.
export function abortSignalOf(setTimer) {
  const own = {
    AbortSignal: function () { throw new TypeError("Illegal constructor"); },
    timeout(milliseconds) {
      needs(1, arguments.length, "AbortSignal.timeout");
      const delay = Number(milliseconds);
      if (!(delay >= 0 && delay <= Number.MAX_SAFE_INTEGER)) {
        throw new TypeError("AbortSignal.timeout: the time is not a number of milliseconds from 0");
      }
      const signal = new AbortSignal(MAKE);
      setTimer(() => abort(signal, new DOMException("The operation timed out", "TimeoutError")), Math.min(delay, 2 ** 31 - 1));
      return signal;
    },
  };
  Object.setPrototypeOf(own.AbortSignal, AbortSignal);
  Object.defineProperty(own.AbortSignal, "prototype", { value: AbortSignal.prototype, writable: false });
  Object.defineProperty(own.AbortSignal, "timeout", {
    value: own.timeout, writable: true, enumerable: true, configurable: true,
  });
  return own.AbortSignal;
}

export { isAbortSignal, whenAborted };
