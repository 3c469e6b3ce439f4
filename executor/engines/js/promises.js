// What becomes of promises that a script drops. Called before the hardening; its value is the host's.
//
// V8 tells only its embedder of rejections that nobody handles. So the places where a script drops a
// value are known by their syntax: there, what was put into its text calls the host. A promise is
// handled when somebody called `then` of it, as `catch` and Promise.all do, or awaited it.
//
// Not promised: to see a promise that is kept, in a variable say, and never looked at.
(() => {
  "use strict";

  const NativePromise = Promise;
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
  const PUT_IN = /\$ops_(?:[acd]\(|s\(\()|,\$ops_[ac]\)|\),\$ops_s\)|,\d+,\$ops_d\)/g;
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

  function awaited(value) {
    if (isObject(value)) handled.add(value);
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

  // By letter, as the watcher puts them in.
  const MAKERS = {
    __proto__: null,
    a: () => awaited,
    s: () => awaited,
    c: callbackOf,
    d: (run) => (value, site) => watch(run, value, site),
  };
  // The parameters of a watched script, and what a run gives for them.
  const NAMES = Object.keys(MAKERS).map((letter) => NAME + letter);
  const valuesFor = (run) => Object.values(MAKERS).map((make) => make(run));

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
