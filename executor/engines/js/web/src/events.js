// DOM events without a tree: an event reaches its target and nobody else.
//
// What a listener throws is thrown by dispatchEvent, after the other listeners were called: there
// is no window that an error could be reported to.
import { DOMException } from "./exceptions.js";
import { constants, defineProperty, dictionary, domString, expose, isObject, needs } from "./webidl.js";

let begin;
let initialize;
let trust;
let isEvent;

export class Event {
  #type; #bubbles; #cancelable; #composed;
  #initialized = true;
  #dispatching = false;
  #stopped = false;
  #stoppedNow = false;
  #canceled = false;
  #passive = false;
  #trusted = false;
  #target = null;
  #current = null;

  constructor(type, init = undefined) {
    needs(1, arguments.length, "Event");
    this.#type = domString(type);
    const { bubbles, cancelable, composed } = dictionary(init, "Event");
    this.#bubbles = Boolean(bubbles);
    this.#cancelable = Boolean(cancelable);
    this.#composed = Boolean(composed);
    defineProperty(this, "isTrusted", { get: trustedGetter, enumerable: true, configurable: false });
  }

  get type() { return this.#type; }
  get target() { return this.#target; }
  get srcElement() { return this.#target; }
  get currentTarget() { return this.#current; }
  get eventPhase() { return this.#dispatching ? 2 : 0; }
  get bubbles() { return this.#bubbles; }
  get cancelable() { return this.#cancelable; }
  get composed() { return this.#composed; }
  get defaultPrevented() { return this.#canceled; }
  // Shared by all runs, hence without a clock.
  get timeStamp() { this.#type; return 0; }
  get cancelBubble() { return this.#stopped; }
  set cancelBubble(value) { if (value) this.#stopped = true; }
  get returnValue() { return !this.#canceled; }
  set returnValue(value) { if (!value) this.#cancel(); }

  composedPath() { return this.#current === null ? [] : [this.#current]; }
  stopPropagation() { this.#stopped = true; }
  stopImmediatePropagation() { this.#stopped = true; this.#stoppedNow = true; }
  preventDefault() { this.#cancel(); }
  initEvent(type, bubbles = false, cancelable = false) {
    needs(1, arguments.length, "initEvent");
    initialize(this, domString(type), Boolean(bubbles), Boolean(cancelable));
  }

  #cancel() { if (this.#cancelable && !this.#passive) this.#canceled = true; }

  static {
    const trustedGetter = { get isTrusted() { return this.#trusted; } };
    isEvent = (value) => isObject(value) && #type in value;
    trust = (event) => { event.#trusted = true; return event; };
    initialize = (event, type, bubbles, cancelable) => {
      if (event.#dispatching) return false;
      event.#initialized = true;
      event.#stopped = event.#stoppedNow = event.#canceled = event.#trusted = false;
      event.#target = null;
      event.#type = type;
      event.#bubbles = bubbles;
      event.#cancelable = cancelable;
      return true;
    };
    // Hands each listener to `call` until one stops the event; false when it was canceled.
    begin = (event, target, listeners, call) => {
      if (event.#dispatching || !event.#initialized) {
        throw new DOMException("the event is being dispatched already", "InvalidStateError");
      }
      event.#dispatching = true;
      event.#target = event.#current = target;
      try {
        if (!event.#stopped) {
          for (const listener of listeners) {
            if (event.#stoppedNow) break;
            event.#passive = listener.passive;
            call(listener, event);
            event.#passive = false;
          }
        }
      } finally {
        event.#dispatching = event.#stopped = event.#stoppedNow = event.#passive = false;
        event.#current = null;
      }
      return !event.#canceled;
    };
    Event.trustedGetter = Object.getOwnPropertyDescriptor(trustedGetter, "isTrusted").get;
  }
}
const { trustedGetter } = Event;
delete Event.trustedGetter;
expose(Event, "Event");
constants(Event, { NONE: 0, CAPTURING_PHASE: 1, AT_TARGET: 2, BUBBLING_PHASE: 3 });

export class CustomEvent extends Event {
  #detail;

  constructor(type, init = undefined) {
    needs(1, arguments.length, "CustomEvent");
    super(type, init);
    this.#detail = dictionary(init, "CustomEvent").detail ?? null;
  }

  get detail() { return this.#detail; }

  initCustomEvent(type, bubbles = false, cancelable = false, detail = null) {
    needs(1, arguments.length, "initCustomEvent");
    if (initialize(this, domString(type), Boolean(bubbles), Boolean(cancelable))) this.#detail = detail;
  }

  static { expose(CustomEvent, "CustomEvent"); }
}

let isSignal = () => false;
export function signalsAre(test) { isSignal = test; }

const captures = (options) =>
  Boolean(isObject(options) ? options.capture : options);

function callbackOf(value, where) {
  if (value === null || value === undefined) return null;
  if (!isObject(value)) throw new TypeError(`${where}: the listener is neither a function nor an object`);
  return value;
}

let eventListeners;
let fire;

export class EventTarget {
  // type -> listeners, replaced and never changed while it may be walked.
  #listeners = new Map();

  addEventListener(type, callback, options = undefined) {
    needs(2, arguments.length, "addEventListener");
    const name = domString(type);
    const listener = callbackOf(callback, "addEventListener");
    const capture = captures(options);
    const { once = false, passive = false, signal } = isObject(options) ? options : {};
    if (signal !== undefined && !isSignal(signal)) {
      throw new TypeError("addEventListener: the signal is not an AbortSignal");
    }
    if (listener === null || signal?.aborted) return;
    this.#add(name, { callback: listener, capture, once: Boolean(once), passive: Boolean(passive), removed: false });
    if (signal !== undefined) {
      eventListeners.onAbort(signal, () => this.#remove(name, listener, capture));
    }
  }

  removeEventListener(type, callback, options = undefined) {
    needs(2, arguments.length, "removeEventListener");
    this.#remove(domString(type), callbackOf(callback, "removeEventListener"), captures(options));
  }

  dispatchEvent(event) {
    needs(1, arguments.length, "dispatchEvent");
    if (!isEvent(event)) throw new TypeError("dispatchEvent: the argument is not an Event");
    this.#listeners;
    return this.#dispatch(event);
  }

  #add(name, listener) {
    const present = this.#listeners.get(name) ?? [];
    if (present.some(({ callback, capture }) => callback === listener.callback && capture === listener.capture)) return;
    this.#listeners.set(name, [...present, listener]);
  }

  #remove(name, callback, capture) {
    const present = this.#listeners.get(name) ?? [];
    const at = present.findIndex((listener) => listener.callback === callback && listener.capture === capture);
    if (at < 0) return;
    present[at].removed = true;
    this.#listeners.set(name, present.toSpliced(at, 1));
  }

  #dispatch(event) {
    const errors = [];
    const all = this.#listeners.get(event.type) ?? [];
    // At the target, those that capture come first.
    const ordered = all.some(({ capture }) => capture) ? all.toSorted((a, b) => b.capture - a.capture) : all;
    const kept = begin(event, this, ordered, (listener) => {
      if (listener.removed) return;
      if (listener.once) this.#remove(event.type, listener.callback, listener.capture);
      const { callback } = listener;
      try {
        if (typeof callback === "function") {
          Reflect.apply(callback, this, [event]);
        } else {
          const { handleEvent } = callback;
          if (typeof handleEvent !== "function") throw new TypeError("the listener has no function handleEvent");
          Reflect.apply(handleEvent, callback, [event]);
        }
      } catch (error) {
        errors.push(error);
      }
    });
    if (errors.length > 0) throw errors[0];
    return kept;
  }

  static {
    fire = (target, event) => target.#dispatch(trust(event));
    eventListeners = { onAbort: () => {} };
    expose(EventTarget, "EventTarget");
  }
}

export { eventListeners, fire, isEvent };

// `on<type>` of a target: one listener whose place among the others is where it was first set.
export function handler(type) {
  const handlers = new WeakMap();
  return {
    get: (target) => handlers.get(target)?.value ?? null,
    set(target, value) {
      const present = handlers.get(target);
      const next = isObject(value) ? value : null;
      if (present !== undefined && next !== null) {
        present.value = next;
      } else if (present !== undefined) {
        Reflect.apply(EventTarget.prototype.removeEventListener, target, [type, present.listener]);
        handlers.delete(target);
      } else if (next !== null) {
        const state = {
          value: next,
          listener: (event) => { if (typeof state.value === "function") Reflect.apply(state.value, target, [event]); },
        };
        handlers.set(target, state);
        Reflect.apply(EventTarget.prototype.addEventListener, target, [type, state.listener]);
      }
    },
  };
}
