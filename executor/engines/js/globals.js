// What a script finds as globals. Called before the hardening, which freezes what is shared.
//
// Two kinds: what belongs to one run is made when its script mentions it, so that a rule which only
// reads and writes devices pays for nothing else; what carries no state of a run (URL, Headers and
// the like) comes from one bundle, is made on first use in an isolate, hardened, and shared.
((host) => {
  "use strict";

  const { bundle, harden, fault, watch, ask, time } = host;
  const hostEval = eval;
  const { apply } = Reflect;
  const { defineProperty, setPrototypeOf, freeze, hasOwn } = Object;
  const then = Promise.prototype.then;
  const settled = Promise.resolve();

  // ---- what has no replacement in a rule, and what to do instead

  const STREAM = "bodies come whole; use text(), json() or bytes()";
  const STORE = "use State.get and State.set, which live from run to run";
  const PROCESS = "use Deno.env for settings and console for output";
  const SOCKET = "use fetch, or let a trigger start the rule";
  const ABSENT = {
    __proto__: null,
    ReadableStream: STREAM, WritableStream: STREAM, TransformStream: STREAM,
    TextDecoderStream: STREAM, TextEncoderStream: STREAM, ByteLengthQueuingStrategy: STREAM,
    CountQueuingStrategy: STREAM, CompressionStream: STREAM, DecompressionStream: STREAM,
    URLPattern: "use URL and a regular expression",
    WebAssembly: "write the rule itself in WebAssembly: scriptType Wasm",
    Worker: "runs are short; start another rule", SharedWorker: "runs are short; start another rule",
    SharedArrayBuffer: "there is one thread; use ArrayBuffer", Atomics: "there is one thread",
    BroadcastChannel: STORE, MessageChannel: "there is one thread; use EventTarget",
    MessagePort: "there is one thread; use EventTarget",
    postMessage: "there is one thread; use EventTarget",
    localStorage: STORE, sessionStorage: STORE, indexedDB: STORE, caches: STORE, Cache: STORE,
    CacheStorage: STORE,
    WebSocket: SOCKET, EventSource: SOCKET, XMLHttpRequest: "use fetch",
    WeakRef: "use a plain reference; a run is short",
    FinalizationRegistry: "use try and finally; a run is short",
    Temporal: "use Date", ErrorEvent: "use try and catch", PromiseRejectionEvent: "use try and catch",
    setImmediate: "use setTimeout", clearImmediate: "use clearTimeout",
    requestAnimationFrame: "use setTimeout", requestIdleCallback: "use setTimeout",
    process: PROCESS, Buffer: "use Uint8Array, with toBase64 and toHex", global: "use globalThis",
    require: "use import, or bundle the rule with scriptops build",
    module: "use export", exports: "use export", __dirname: "a rule has no files",
    __filename: "a rule has no files", importScripts: "use import",
    window: "use globalThis", document: "a rule has no page", location: "a rule has no page",
    alert: "use console", prompt: PROCESS, confirm: PROCESS,
  };

  const NOT_DEFINED = /^([A-Za-z_$][\w$]*) is not defined$/;

  // What to add to the message of an error that a missing global has caused.
  function advice(error) {
    const { name, message } = error;
    if (name !== "ReferenceError" || typeof message !== "string") return "";
    const found = NOT_DEFINED.exec(message);
    const instead = found === null ? undefined : ABSENT[found[1]];
    return instead === undefined ? "" : `; rules have none: ${instead}`;
  }

  // ---- Deno: env, and an answer for the rest

  const FILES = "a rule has no files; use State, or fetch";
  const NETWORK = "use fetch";
  const DENO = { __proto__: null };
  const refusals = {
    [FILES]: "readFile readFileSync readTextFile readTextFileSync writeFile writeFileSync writeTextFile "
      + "writeTextFileSync open openSync create createSync remove removeSync rename renameSync mkdir "
      + "mkdirSync makeTempDir makeTempDirSync makeTempFile makeTempFileSync readDir readDirSync readLink "
      + "readLinkSync realPath realPathSync stat statSync lstat lstatSync copyFile copyFileSync chmod "
      + "chmodSync chown chownSync link linkSync symlink symlinkSync truncate truncateSync utime utimeSync "
      + "umask watchFs cwd chdir",
    [STORE]: "openKv",
    [NETWORK]: "connect connectTls connectQuic startTls listen listenTls listenDatagram resolveDns serve "
      + "serveHttp upgradeWebSocket createHttpClient networkInterfaces",
    [PROCESS]: "run spawn Command exit kill addSignalListener removeSignalListener execPath hostname "
      + "loadavg memoryUsage osRelease osUptime systemMemoryInfo uid gid consoleSize isatty stdin stdout stderr",
    "use executePolicy.cron of the Script": "cron",
    "what a rule may do stands in its manifest": "permissions",
    "test with scriptops test": "test bench",
    "call JavaScript only": "dlopen",
    "use console.log": "inspect",
  };
  for (const [instead, names] of Object.entries(refusals)) {
    for (const name of names.split(" ")) {
      defineProperty(DENO, name, {
        get() { throw new TypeError(`Deno.${name} is not available to rules: ${instead}`); },
      });
    }
  }

  const ENV = {
    __proto__: null,
    get(name) { return hasOwn(this, name) ? this[name] : undefined; },
    has(name) { return hasOwn(this, name); },
    toObject() { return { ...this }; },
  };
  const denoOf = (run) => ({ __proto__: DENO, env: freeze(setPrototypeOf(run.env, ENV)) });

  // ---- randomness: repeatable, hence not a secret

  // Mulberry32: 32 bits of state, good enough for jitter and sampling.
  function randomFrom(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
  }

  // sfc32, from the seed, the clock and the id of the run: two runs of one seed get other UUIDs.
  function wordsFrom(run) {
    let [a, b, c, count] = [run.seed >>> 0, run.now >>> 0, (run.now / 4294967296) >>> 0, 1];
    for (let i = 0; i < run.id.length; i += 1) c = Math.imul(c ^ run.id.charCodeAt(i), 0x01000193);
    const next = () => {
      const word = (a + b + count) >>> 0;
      count = (count + 1) | 0;
      a = b ^ (b >>> 9);
      b = (c + (c << 3)) | 0;
      c = ((c << 21) | (c >>> 11)) + word | 0;
      return word;
    };
    for (let i = 0; i < 15; i += 1) next();
    return next;
  }

  // ---- the bundle

  // Names that every run of an isolate shares, by the group of the bundle that they come with.
  const GROUPS = {
    base: [
      "AbortController", "CustomEvent", "DOMException", "Event", "EventTarget", "TextDecoder",
      "TextEncoder", "atob", "btoa", "structuredClone",
    ],
    url: ["URL", "URLSearchParams"],
    web: ["Blob", "File", "FormData", "Headers", "Request", "Response"],
    crypto: ["Crypto", "CryptoKey", "SubtleCrypto"],
  };
  const SHARED = Object.entries(GROUPS).flatMap(([group, names]) => names.map((name) => [name, group]));

  // Never inside a run, which might have hardly any stack left: see `mentioned`.
  const loaded = { __proto__: null };
  function web(group) {
    if (loaded[group] === undefined) {
      const load = (name) => hostEval(bundle(name))({ __proto__: null }, load, {});
      loaded.bundle ??= load("web").group;
      const table = loaded.bundle[group]();
      // Its properties are accessors, as a bundler writes exports; the values are what is shared.
      harden([table, ...Object.values(table)]);
      loaded[group] = table;
    }
    return loaded[group];
  }

  for (const [name, group] of SHARED) {
    defineProperty(globalThis, name, {
      get: () => web(group).shared[name],
      set(value) {
        if (this === globalThis) throw new TypeError(`Cannot assign to read only property '${name}'`);
        defineProperty(this, name, { value, writable: true, enumerable: true, configurable: true });
      },
      enumerable: false,
      configurable: false,
    });
  }
  defineProperty(globalThis, "navigator", { value: { userAgent: "scriptops", language: "en" } });

  // ---- what belongs to one run

  const queueMicrotaskOf = (run) => function queueMicrotask(task) {
    if (typeof task !== "function") throw new TypeError("queueMicrotask needs a function");
    apply(then, settled, [() => {
      try {
        watch(run, task());
      } catch (error) {
        fault(run, error);
      }
    }]);
  };

  function globalOf(run) {
    const own = {
      __proto__: globalThis,
      Device: made(run, "Device"), State: made(run, "State"), Deno: made(run, "Deno"),
      console: made(run, "console"), Date: made(run, "Date"), Math: made(run, "Math"),
      performance: made(run, "performance"),
      setTimeout: made(run, "setTimeout"), clearTimeout: made(run, "clearTimeout"),
      setInterval: made(run, "setInterval"), clearInterval: made(run, "clearInterval"),
      queueMicrotask: made(run, "queueMicrotask"), reportError: made(run, "reportError"),
      fetch: made(run, "fetch"),
      globalThis: undefined, self: undefined,
    };
    // These two would load the bundle.
    for (const name of ["AbortSignal", "crypto"]) {
      defineProperty(own, name, {
        get: () => made(run, name),
        set: (value) => { run.made[name] = value; },
        enumerable: true,
        configurable: true,
      });
    }
    own.globalThis = own;
    own.self = own;
    return own;
  }

  const MAKERS = {
    __proto__: null,
    Device: (run) => host.surface("Device", run),
    State: (run) => host.surface("State", run),
    console: (run) => host.surface("console", run),
    Deno: denoOf,
    Date: time.dateOf,
    Math: (run) => ({ __proto__: Math, random: randomFrom(run.seed) }),
    performance: time.performanceOf,
    setTimeout: time.setTimeoutOf,
    setInterval: time.setIntervalOf,
    clearTimeout: time.clear,
    clearInterval: time.clear,
    queueMicrotask: queueMicrotaskOf,
    reportError: (run) => function reportError(error) { fault(run, error); },
    crypto: (run) => web("crypto").crypto(wordsFrom(run)),
    AbortSignal: (run) => web("base").abortSignal((task, delay) => time.set(run, task, delay, [], false)),
    fetch: (run) => function fetch(input, init) {
      return web("web").fetch((request) => ask(run, { op: "fetch", ...request }), input, init);
    },
    globalThis: globalOf,
    self: (run) => made(run, "globalThis"),
    // A class of mini-racer that would otherwise be in scope, and assignable.
    __TimerManager: () => undefined,
  };
  const NAMES = Object.keys(MAKERS);
  const words = (names) => new RegExp(`(?<![\\w$])(?:${names.join("|")})(?![\\w$])`);
  // Who names the global object can reach all that it has, by names that are nowhere to be read.
  const EVERYTHING = words(["globalThis", "self"]);
  const NEEDS = Object.entries({
    base: [...GROUPS.base, "AbortSignal"], url: GROUPS.url, web: [...GROUPS.web, "fetch"],
    crypto: [...GROUPS.crypto, "crypto"],
  }).map(([group, names]) => [group, words(names)]);

  function made(run, name) {
    const { made: all } = run;
    if (!hasOwn(all, name)) all[name] = MAKERS[name](run);
    return all[name];
  }

  // An identifier can be spelled with escapes.
  const ESCAPE = /\\u(?:\{([0-9a-fA-F]+)\}|([0-9a-fA-F]{4}))/g;
  const unescaped = (source) => source.replace(ESCAPE, (_, long, short) =>
    String.fromCodePoint(Math.min(parseInt(long ?? short, 16), 0x10ffff)));

  // Which names of a run `source` can mean. Code cannot be made from strings, so a name that does
  // not stand in it is not used. What it needs of the bundle is loaded now and not inside a run.
  function mentioned(source) {
    const text = source.includes("\\u") ? unescaped(source) : source;
    const everything = EVERYTHING.test(text);
    for (const [group, needed] of NEEDS) if (everything || needed.test(text)) web(group);
    return NAMES.filter((name) => text.includes(name));
  }

  return { mentioned, made, advice, seenByGuests: [DENO, ENV] };
})
