// The first script of every isolate, evaluated before any guest; its value is a function.
//
// That function puts what guests share out of their reach: afterwards everything that two runs can
// both get hold of is frozen, has no clock, no randomness and no way to make code from strings.
// It is called after the host's own objects exist, with those of them that guests will see. It
// returns a function that does the same for objects made later.
//
// Not promised: that V8 has no bugs, or that a stack overflow comes at the same depth every time.
(() => {
  "use strict";

  // What lets a script observe the garbage collector, a second thread or a wall clock, and what
  // mini-racer and V8 put there for themselves.
  const REMOVED = [
    "WeakRef", "FinalizationRegistry", "SharedArrayBuffer", "Atomics", "WebAssembly", "Temporal",
    "console",
  ];
  // Declared with `var` by mini-racer: these cannot be deleted.
  const EMPTIED = ["__timer_manager", "setTimeout", "clearTimeout"];
  // The legacy statics of RegExp would hand the text of one run to the next.
  const REGEXP_STATICS = [
    "input", "$_", "lastMatch", "$&", "lastParen", "$+", "leftContext", "$`", "rightContext", "$'",
    "$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8", "$9",
  ];
  // Assigned to instances by ordinary code, whatever their class.
  const OFTEN_ASSIGNED = new Set([
    "constructor", "toString", "toLocaleString", "valueOf", "toJSON", "name", "message", "length",
  ]);

  const { apply, construct, ownKeys } = Reflect;
  const { getPrototypeOf, getOwnPropertyDescriptor, defineProperty, freeze, hasOwn } = Object;

  function tameFunctions() {
    const refuse = (what) => {
      throw new EvalError(`${what} is not available to scripts: code cannot be made from strings`);
    };
    globalThis.eval = { eval() { return refuse("eval"); } }.eval;
    for (const sample of [() => {}, async () => {}, function* () {}, async function* () {}]) {
      const prototype = getPrototypeOf(sample);
      const { name } = prototype.constructor;
      const Tamed = { [name]: function () { return refuse(`new ${name}`); } }[name];
      defineProperty(Tamed, "prototype", { value: prototype, writable: false });
      defineProperty(prototype, "constructor", { value: Tamed });
      if (name === "Function") globalThis.Function = Tamed;
    }
  }

  // Each run gets a Date of its own, which inherits this one.
  function tameDate() {
    const NativeDate = Date;
    const Tamed = function Date(...parts) {
      if (new.target === undefined || parts.length === 0) {
        throw new TypeError("this Date has no clock; use the global Date of the script");
      }
      return construct(NativeDate, parts, new.target);
    };
    defineProperty(Tamed, "prototype", { value: NativeDate.prototype, writable: false });
    defineProperty(Tamed, "UTC", getOwnPropertyDescriptor(NativeDate, "UTC"));
    defineProperty(Tamed, "parse", getOwnPropertyDescriptor(NativeDate, "parse"));
    defineProperty(NativeDate.prototype, "constructor", { value: Tamed });
    globalThis.Date = Tamed;
  }

  // Intl formats the present moment when it is given no date.
  function tameIntl() {
    const { prototype } = Intl.DateTimeFormat;
    const dated = (date) => {
      if (date === undefined) throw new TypeError("Intl.DateTimeFormat has no clock; pass a date");
      return date;
    };
    const nativeFormat = getOwnPropertyDescriptor(prototype, "format").get;
    defineProperty(prototype, "format", {
      get() {
        const format = apply(nativeFormat, this, []);
        return (date) => format(dated(date));
      },
    });
    const nativeParts = prototype.formatToParts;
    prototype.formatToParts = {
      formatToParts(date) { return apply(nativeParts, this, [dated(date)]); },
    }.formatToParts;
  }

  // Objects that no property path from the global object leads to.
  function hiddenRoots() {
    const error = new Error();
    const captured = {};
    Error.captureStackTrace(captured);
    const segments = new Intl.Segmenter().segment("");
    return [
      getPrototypeOf(function* () {}), getPrototypeOf(async function* () {}),
      getPrototypeOf(async () => {}), getPrototypeOf(() => {}),
      [][Symbol.iterator](), new Map().keys(), new Set().keys(), ""[Symbol.iterator](),
      "".matchAll(/a/g), Iterator.from({ next() {} }), [].values().map((x) => x),
      segments, segments[Symbol.iterator](),
      ...[error, captured].flatMap((object) => {
        const stack = getOwnPropertyDescriptor(object, "stack");
        return [stack.get, stack.set];
      }),
      getOwnPropertyDescriptor((function () { return arguments; })(), "callee").get,
    ];
  }

  // A frozen property of a prototype cannot be shadowed by assignment; code that does
  // `this.name = ...` in a subclass of Error would break. An accessor lets the assignment through.
  function mend(object, key, { value, enumerable }) {
    const get = () => value;
    const set = function (next) {
      if (this === object || (typeof this !== "object" && typeof this !== "function") || this === null) {
        throw new TypeError(`Cannot assign to read only property '${String(key)}'`);
      }
      defineProperty(this, key, {
        value: next, writable: true, enumerable: true, configurable: true,
      });
    };
    freeze(get);
    freeze(set);
    freeze(set.prototype);
    defineProperty(object, key, { get, set, enumerable, configurable: false });
  }

  const isPrototype = (object) =>
    hasOwn(object, "constructor") && typeof object.constructor === "function"
    && object.constructor.prototype === object;

  // What is frozen already; it is not walked again for what comes later.
  const frozen = new WeakSet();

  function freezeAll(roots) {
    // Converting every method would slow the hot ones (push, get, then) for code nobody writes.
    const wide = new Set([
      Object.prototype, Function.prototype, Error.prototype,
    ]);
    const seen = new Set();
    const found = [];
    const visit = (value) => {
      if ((typeof value !== "object" && typeof value !== "function") || value === null) return;
      if (seen.has(value) || frozen.has(value)) return;
      seen.add(value);
      found.push(value);
    };
    roots.forEach(visit);
    for (let i = 0; i < found.length; i += 1) {
      const object = found[i];
      visit(getPrototypeOf(object));
      for (const key of ownKeys(object)) {
        const { value, get, set } = getOwnPropertyDescriptor(object, key);
        visit(value);
        visit(get);
        visit(set);
      }
    }
    for (const object of found) {
      if (!isPrototype(object)) continue;
      for (const key of ownKeys(object)) {
        const descriptor = getOwnPropertyDescriptor(object, key);
        const mended = wide.has(object) ? typeof key === "string" : OFTEN_ASSIGNED.has(key);
        if (mended && descriptor.configurable && hasOwn(descriptor, "value")) {
          mend(object, key, descriptor);
        }
      }
    }
    for (const object of found) {
      freeze(object);
      frozen.add(object);
    }
  }

  return (seenByGuests) => {
    for (const name of REMOVED) delete globalThis[name];
    for (const name of EMPTIED) globalThis[name] = undefined;
    for (const name of REGEXP_STATICS) delete RegExp[name];
    delete RegExp.prototype.compile;
    // The last way to Temporal, whose prototypes nobody else leads to.
    delete Date.prototype.toTemporalInstant;
    delete Math.random;
    tameFunctions();
    tameDate();
    tameIntl();
    freezeAll([globalThis, ...hiddenRoots(), ...seenByGuests]);
    return freezeAll;
  };
})()
