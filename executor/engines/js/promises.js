// What becomes of promises that a script drops or keeps. Called before the hardening; its value is the host's.
//
// V8 tells only its embedder of rejections that nobody handles. So the places where a script drops a
// value, or keeps a promise, are known by syntax and names: there, what was put into its text calls the
// host. A promise is handled when somebody called `then` of it, as `catch` and Promise.all do, or
// awaited it.
//
// Not promised: to see a promise that is kept, where no name tells that it is one.
(() => {
  "use strict";

  const NativePromise = Promise;
  const NativeSet = Set;
  const forEachOfSet = Set.prototype.forEach;
  const forEachOfArray = Array.prototype.forEach;
  const { isArray } = Array;
  const { prototype } = Promise;
  const nativeThen = prototype.then;
  const nativeText = Function.prototype.toString;
  const isPrototypeOf = Function.prototype.call.bind(Object.prototype.isPrototypeOf);
  const { apply } = Reflect;
  const { defineProperty, getOwnPropertyDescriptor, getPrototypeOf, hasOwn, setPrototypeOf } = Object;

  const handled = new WeakSet();
  // Functions of ours in the place of others, whose text they show.
  const standIns = new WeakMap();
  // What the linker puts into a text: no script that says this name is watched.
  const NAME = "$ops_";
  const PUT_IN = /\$ops_(?:[acdim]\(|s\(\()|,\$ops_[aci]\)|\),\$ops_s\)|,\d+,\$ops_[dm]\)/g;
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

  // What waits for the items of an array, or of a set, asks nobody's `then`.
  function itemsAwaited(value) {
    try {
      if (isArray(value)) apply(forEachOfArray, value, [awaited]);
      else if (value instanceof NativeSet) apply(forEachOfSet, value, [awaited]);
    } catch {
      // A proxy that minds.
    }
    return value;
  }

  function callbackOf(run) {
    return (task) => {
      if (typeof task !== "function") return task;
      try {
        return stand({ task(...values) { return watch(run, apply(task, this, values)); } }.task, task);
      } catch {
        // A proxy that minds.
        return task;
      }
    };
  }

  // The parameters of a watched script, by letter as the watcher puts them in, and what a run gives for them.
  const NAMES = Array.from("asicdm", (letter) => NAME + letter);
  const valuesFor = (run) => [
    awaited, awaited, itemsAwaited, callbackOf(run),
    (value, site) => watch(run, value, site), (value, site) => watchItems(run, value, site),
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
