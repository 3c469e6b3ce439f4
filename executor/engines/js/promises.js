// What becomes of promises that a script drops or keeps. Called before the hardening; its value is the host's.
//
// V8 tells only its embedder of rejections that nobody handles. So the places where a script drops a
// value, or keeps what may be a promise, are known by syntax and names: there, what was put into its text
// calls the host. A promise is handled when somebody called `then` of it, as `catch` and Promise.all do,
// or awaited it.
//
// Not promised: to see a promise that no call of the script gives, as of a function that V8 calls to
// convert a value.
(() => {
  "use strict";

  const NativePromise = Promise;
  const forEachOfArray = Array.prototype.forEach;
  const { isArray } = Array;
  const { prototype } = Promise;
  const nativeThen = prototype.then;
  const nativeText = Function.prototype.toString;
  const isPrototypeOf = Function.prototype.call.bind(Object.prototype.isPrototypeOf);
  const { apply } = Reflect;
  const { defineProperty, getOwnPropertyDescriptor, getPrototypeOf, hasOwn, setPrototypeOf } = Object;
  const asyncGenerator = getPrototypeOf((async function* () {}).prototype);

  const handled = new WeakSet();
  // Functions of ours in the place of others, whose text they show.
  const standIns = new WeakMap();
  // What the linker puts into a text: no script that says this name is watched.
  const NAME = "$ops_";
  const PUT_IN = /(?:\/\*\$ops_\*\/)?\$ops_(?:[acdim]\(|s\(\()|,\$ops_[aci]\)|\),\$ops_s\)|,\d+,\$ops_[dm]\)/g;
  let watching = false;

  const isObject = (value) => typeof value === "object" && value !== null;

  function stand(standIn, original) {
    for (const key of ["name", "length"]) {
      const descriptor = getOwnPropertyDescriptor(original, key);
      if (descriptor !== undefined) defineProperty(standIn, key, descriptor);
    }
    standIns.set(standIn, original);
    return setPrototypeOf(standIn, getPrototypeOf(original));
  }

  prototype.then = stand({
    then(fulfilled, rejected) {
      if (watching && isObject(this)) handled.add(this);
      return apply(nativeThen, this, [fulfilled, rejected]);
    },
  }.then, nativeThen);

  Function.prototype.toString = stand({
    toString() {
      const text = apply(nativeText, standIns.get(this) ?? this, []);
      // Whatever else is held here: a script is not to see by this whether another is watched.
      return text.includes(NAME) ? text.replace(PUT_IN, "") : text;
    },
  }.toString, nativeText);

  // What the linker says of what it put into a script; "" when that was nothing.
  function readWatch(text) {
    if (text === "") return undefined;
    watching = true;
    return JSON.parse(text);
  }

  // `then` makes a promise of the class that `constructor` names: none of the script's, here.
  function foreign(promise, rejected) {
    defineProperty(promise, "constructor", { value: NativePromise, configurable: true });
    try {
      apply(nativeThen, promise, [undefined, rejected]);
    } finally {
      delete promise.constructor;
    }
  }

  // Have `value` looked at, when it is a promise and this script is watched.
  function watch(run, value, site) {
    if (run.script.watch === undefined || !isObject(value)) return value;
    try {
      if (!isPrototypeOf(prototype, value) || hasOwn(value, "constructor")) return value;
      const rejected = (reason) => {
        if (!run.over) run.rejected.push({ promise: value, reason, site });
      };
      if (getPrototypeOf(value) === prototype) apply(nativeThen, value, [undefined, rejected]);
      else foreign(value, rejected);
    } catch {
      // A proxy that minds; what inherits from promises and is none, or one that cannot be changed.
    }
    return value;
  }

  function watchItems(run, value, site) {
    try {
      if (isArray(value)) apply(forEachOfArray, value, [(item) => { watch(run, item, site); }]);
    } catch {
      // A proxy that minds.
    }
    return value;
  }

  function awaited(value) {
    if (isObject(value)) handled.add(value);
    return value;
  }

  // `for await`, and what else waits for items, asks nobody's `then`: it is given what asks for each item
  // of `value` as it would, and notes what that one gives.
  function itemsAwaited(value) {
    if (!isObject(value) || isPrototypeOf(asyncGenerator, value)) return value;
    const asynchronously = value[Symbol.asyncIterator] ?? undefined;
    const method = asynchronously ?? value[Symbol.iterator];
    if (typeof method !== "function") return value;
    const note = asynchronously === undefined ? itemAwaited : awaited;
    return {
      [asynchronously === undefined ? Symbol.iterator : Symbol.asyncIterator]() {
        const iterator = apply(method, value, []);
        const { next } = iterator;
        const noting = (name) => {
          const step = iterator[name] ?? undefined;
          return step === undefined ? undefined : (...given) => note(apply(step, iterator, given));
        };
        return {
          next: (...given) => note(apply(next, iterator, given)),
          get return() { return noting("return"); },
          get throw() { return noting("throw"); },
        };
      },
    };
  }

  function itemAwaited(step) {
    if (isObject(step)) awaited(step.value);
    return step;
  }

  // One function has one that stands for it, by which a listener is found again.
  function callbackOf(run) {
    let known;
    return (task) => {
      if (typeof task !== "function") return task;
      known ??= new WeakMap();
      let standIn = known.get(task);
      if (standIn !== undefined) return standIn;
      try {
        standIn = stand({ task(...values) { return watch(run, apply(task, this, values)); } }.task, task);
      } catch {
        // A proxy that minds.
        standIn = task;
      }
      known.set(task, standIn);
      return standIn;
    };
  }

  // The parameters of a watched script, by letter as the watcher puts them in, and what a run gives for them.
  const NAMES = Array.from("asicdm", (letter) => NAME + letter);
  const valuesFor = (run) => [
    awaited, awaited, itemsAwaited, callbackOf(run),
    (value, site) => (typeof value === "object" ? watch(run, value, site) : value), (value, site) => watchItems(run, value, site),
  ];

  const unhandled = (run) => run.rejected.find(({ promise }) => !handled.has(promise));

  // The author's column for one of the text that V8 runs.
  function columnOf(watch, line, column) {
    const inserted = watch?.columns[line] ?? [];
    let before = 0;
    for (let i = 0; i < inserted.length; i += 2) {
      const at = inserted[i];
      if (column < at + before) break;
      if (column < at + before + inserted[i + 1]) return at;
      before += inserted[i + 1];
    }
    return column - before;
  }

  return { readWatch, watch, NAMES, valuesFor, unhandled, columnOf };
})
