// The second script of every isolate; its value makes the one object that Python talks to.
//
// Python sets a property of it and reads another, strings only. Runs are started in the first
// crossing; their microtasks run when it ends; their completions are read in the second.
((harden, config) => {
  "use strict";

  const { SUCCEEDED, FAILED, OUTPUT_TOO_LARGE, DENIED, LOAD_FAILED } = config.outcomes;
  const { WARN } = config.levels;
  const { FLOOD_FACTOR, VALUE_CHARACTERS, PROPERTY_CHARACTERS, MESSAGE_CHARACTERS } = config.caps;
  const NO_MAIN = "the script has no function main; declare `function main(event) { ... }`";
  const UNSETTLED = "main() never finished: it awaits a promise that nothing settles";

  // Kept from before the hardening, which takes these away from everyone else.
  const hostEval = eval;
  const HostFunction = Function;
  const HostDate = Date;
  const dateText = Date.prototype.toString;
  const { apply, construct } = Reflect;
  const { freeze, hasOwn, keys, setPrototypeOf, defineProperty } = Object;
  const { parse, stringify } = JSON;
  const { isArray } = Array;
  const wellFormed = Function.prototype.call.bind(String.prototype.toWellFormed);
  const isFinite = Number.isFinite;

  class Denied extends Error {
    #ours = true;
    static { defineProperty(Denied.prototype, "name", { value: "Denied", configurable: true }); }
    static made(error) { return typeof error === "object" && error !== null && #ours in error; }
  }

  // ---- what a run printed

  function shown(value) {
    switch (typeof value) {
      case "string": return value;
      case "function": return "[Function]";
      case "object": break;
      default: return String(value);
    }
    if (value === null) return "null";
    try {
      if (value instanceof Error) return `${value.name}: ${value.message}`;
      return String(stringify(value));
    } catch {
      return "[object that JSON cannot express]";
    }
  }

  function utf8Bytes(text) {
    let bytes = text.length;
    for (let i = 0; i < text.length; i += 1) {
      const unit = text.charCodeAt(i);
      // A surrogate pair is 4 bytes in 2 units, any other unit above 0x7ff is 3.
      if (unit > 0x7f) bytes += unit > 0x7ff && (unit < 0xd800 || unit > 0xdfff) ? 2 : 1;
    }
    return bytes;
  }

  // The longest prefix of at most `limit` bytes that splits no character.
  function utf8Prefix(text, limit) {
    let bytes = 0;
    let end = 0;
    for (const character of text) {
      bytes += utf8Bytes(character);
      if (bytes > limit) break;
      end += character.length;
    }
    return text.slice(0, end);
  }

  function warn(run, text) { run.logs.push([WARN, text]); }

  function print(run, level, values) {
    if (run.over) return;
    const text = wellFormed(values.map(shown).join(" "));
    const flood = FLOOD_FACTOR * run.output;
    const bytes = 1 + (text.length > flood ? text.length : utf8Bytes(text));
    run.printed += bytes;
    if (run.printed > flood) {
      run.flooded = true;
      throw new RangeError(`the script printed more than ${flood} bytes`);
    }
    if (run.printed <= run.output) {
      run.logs.push([level, text]);
    } else if (!run.truncated) {
      run.truncated = true;
      const rest = utf8Prefix(text, run.output - (run.printed - bytes));
      if (rest !== "") run.logs.push([level, rest]);
    }
  }

  // ---- the ops; config.surface says which of them exist for a script

  const known = (list, alias, verb) => {
    if (typeof alias !== "string") throw new TypeError("a device alias is a string");
    if (!list(alias)) throw new Denied(`device ${wellFormed(alias).slice(0, PROPERTY_CHARACTERS)} is not ${verb} for this script`);
  };

  function stagedValue(value) {
    switch (typeof value) {
      case "boolean": return value;
      case "number":
        if (isFinite(value)) return value;
        throw new TypeError(`a device value must be a finite number, not ${value}`);
      case "string":
        if (value.length <= VALUE_CHARACTERS) return wellFormed(value);
        throw new RangeError(`a device value has at most ${VALUE_CHARACTERS} characters`);
      default:
        throw new TypeError(`a device value is a number, a boolean or a string, not ${value === null ? "null" : typeof value}`);
    }
  }

  function commit(run, alias, qos, options) {
    known((name) => run.write.includes(name), alias, "writable");
    if (qos !== 0 && qos !== 1 && qos !== 2) throw new TypeError("qos is 0, 1 or 2");
    const values = run.staged.get(alias);
    if (values === undefined) return;
    run.staged.delete(alias);
    const force = typeof options === "object" && options !== null && options.force === true;
    for (const [property, value] of values) run.writes.push([alias, property, value, qos, force]);
  }

  const OPS = {
    Device: {
      listReadableDevices: (run) => () => keys(run.read),
      listWritableDevices: (run) => () => run.write.slice(),
      getDeviceStatus: (run) => (alias, property) => {
        known((name) => hasOwn(run.read, name), alias, "readable");
        const properties = run.read[alias];
        return hasOwn(properties, property) ? properties[property] : undefined;
      },
      setDeviceStatus: (run) => (alias, property, value) => {
        if (run.over) throw new Error("the run is over");
        known((name) => run.write.includes(name), alias, "writable");
        if (typeof property !== "string" || property === "" || property.length > PROPERTY_CHARACTERS) {
          throw new TypeError(`a property name is a string of 1 to ${PROPERTY_CHARACTERS} characters`);
        }
        const accepted = stagedValue(value);
        run.sets += 1;
        if (run.sets > run.limit) throw new Denied(`a run may stage at most ${run.limit} writes`);
        let values = run.staged.get(alias);
        if (values === undefined) run.staged.set(alias, values = new Map());
        values.set(wellFormed(property), accepted);
      },
      commitDevice: (run) => async (alias, qos = 0, options = undefined) => {
        if (run.over) throw new Error("the run is over");
        try {
          commit(run, alias, qos, options);
        } catch (error) {
          // The script may not look at the promise; the log says it in any case.
          warn(run, `commitDevice: ${error.message}`);
          throw error;
        }
      },
    },
    console: {
      debug: (run) => (...values) => print(run, config.levels.DEBUG, values),
      log: (run) => (...values) => print(run, config.levels.INFO, values),
      info: (run) => (...values) => print(run, config.levels.INFO, values),
      warn: (run) => (...values) => print(run, config.levels.WARN, values),
      error: (run) => (...values) => print(run, config.levels.ERROR, values),
    },
  };

  const makers = (global) =>
    config.surface.filter((op) => op.global === global).map((op) => [op.name, OPS[global][op.name]]);
  const DEVICE = makers("Device");
  const CONSOLE = makers("console");

  function surface(table, run) {
    const object = {};
    for (let i = 0; i < table.length; i += 1) object[table[i][0]] = table[i][1](run);
    return object;
  }

  // ---- the clock, the randomness and the environment of one run

  function dateAt(now) {
    function Date(...parts) {
      if (new.target === undefined) return apply(dateText, new HostDate(now), []);
      return construct(HostDate, parts.length === 0 ? [now] : parts, new.target);
    }
    Date.prototype = HostDate.prototype;
    Date.now = () => now;
    return setPrototypeOf(Date, SharedDate);
  }

  // Mulberry32: 32 bits of state, good enough for jitter and sampling, and not a secret.
  function randomFrom(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
  }

  const ENV = {
    __proto__: null,
    get(name) { return hasOwn(this, name) ? this[name] : undefined; },
  };
  let SharedDate;
  const then = Promise.prototype.then;
  const settled = Promise.resolve();
  const queueMicrotask = (task) => {
    if (typeof task !== "function") throw new TypeError("queueMicrotask needs a function");
    apply(then, settled, [() => { task(); }]);
  };

  // The names a script finds as globals, in the order in which `globals` gives their values.
  // __TimerManager is a class of mini-racer that would otherwise be in scope, and assignable.
  const NAMES = "Device, Deno, console, Date, Math, performance, queueMicrotask, globalThis, __TimerManager";

  function instantiate(factory, run, activation) {
    const { now, seed, env } = activation;
    const Device = surface(DEVICE, run);
    const console = surface(CONSOLE, run);
    const Deno = { env: freeze(setPrototypeOf(env, ENV)) };
    const Date = dateAt(now);
    const ownMath = { __proto__: Math, random: randomFrom(seed) };
    const performance = { now: () => 0, timeOrigin: now };
    const own = {
      __proto__: globalThis, Device, Deno, console, Date, Math: ownMath, performance, queueMicrotask,
      globalThis: undefined,
    };
    own.globalThis = own;
    return factory(
      Device, Deno, console, Date, ownMath, performance, queueMicrotask, own, undefined,
    )();
  }

  function newRun(activation, limits) {
    return {
      outcome: 0, message: "", logs: [], writes: [], read: activation.read,
      write: activation.write, staged: new Map(), sets: 0, printed: 0, flooded: false,
      truncated: false, over: false, limit: limits.writes, output: limits.output,
    };
  }

  // ---- errors, told safely: everything about a thrown value may be a trap

  function placed(stack, file) {
    const at = stack.indexOf(`${file}:`);
    if (at < 0) return "";
    const [line, column] = stack.slice(at + file.length + 1).split(/[^0-9]/, 2).map(Number);
    if (!(line > 0)) return "";
    return ` (${file}:${line}:${line === 1 ? column - PREFIX.length : column})`;
  }

  function told(error, file) {
    if ((typeof error !== "object" && typeof error !== "function") || error === null) {
      return `the script threw ${typeof error === "string" ? stringify(error) : String(error)}`;
    }
    const { name, message, stack } = error;
    const text = typeof message === "string" ? message : "";
    const what = typeof name === "string" && name !== "" ? name : "Error";
    if (text === "" && typeof stack !== "string") return "the script threw an object that is not an Error";
    return `${what}${text === "" ? "" : `: ${text}`}`.slice(0, MESSAGE_CHARACTERS)
      + (typeof stack === "string" ? placed(stack, file) : "");
  }

  function message(error, file) {
    try {
      return wellFormed(told(error, file)).slice(0, MESSAGE_CHARACTERS + file.length + 32);
    } catch {
      return "the script threw something that cannot be described";
    }
  }

  // ---- scripts

  const PREFIX = `(function (${NAMES}) { return function () { "use strict"; `;
  let source = "";
  let file = "";
  let factory;

  // A source that is not a whole function body by itself is refused here, with an error that V8
  // itself reports: such text could end our wrapper early and go on outside of it.
  function parseAlone() { HostFunction(`"use strict";\n${source}`); }

  function compiled() {
    return hostEval(
      `${PREFIX}${source}\n;return typeof main === "undefined" ? undefined : main; }; })\n//# sourceURL=${file}`,
    );
  }

  // ---- runs

  let runs = [];

  async function drive(run, activation) {
    try {
      const main = instantiate(factory, run, activation);
      if (typeof main === "function") {
        await main(activation.event);
        run.outcome = SUCCEEDED;
      } else {
        run.outcome = LOAD_FAILED;
        run.message = NO_MAIN;
      }
    } catch (error) {
      run.outcome = Denied.made(error) ? DENIED : FAILED;
      run.message = message(error, file);
    }
  }

  const isRecord = (value) => typeof value === "object" && value !== null && !isArray(value);

  function isActivation(value) {
    return isRecord(value) && isRecord(value.env) && isRecord(value.read) && isArray(value.write)
      && typeof value.now === "number" && typeof value.seed === "number";
  }

  function start(batch) {
    const { count, activations, ...limits } = parse(batch);
    if (activations.length !== count || !activations.every(isActivation)) {
      throw new TypeError("an activation is not what was agreed");
    }
    runs = activations.map((activation) => newRun(activation, limits));
    for (let i = 0; i < count; i += 1) drive(runs[i], activations[i]);
  }

  function completion(run) {
    run.over = true;
    if (run.flooded) {
      run.outcome = OUTPUT_TOO_LARGE;
      run.message = `the script printed more than ${FLOOD_FACTOR * run.output} bytes`;
    } else if (run.outcome === 0) {
      run.outcome = FAILED;
      run.message = UNSETTLED;
    }
    if (run.truncated) warn(run, `output over ${run.output} bytes was dropped`);
    if (run.outcome !== SUCCEEDED) return [run.outcome, run.message, run.logs, []];
    for (const [alias, values] of run.staged) {
      for (const property of values.keys()) {
        warn(run, `${alias}.${property} was set but not committed, so it was dropped; call Device.commitDevice`);
      }
    }
    return [SUCCEEDED, "", run.logs, run.writes];
  }

  // An exception of an accessor would end the process inside mini-racer, so accessors never throw;
  // the methods may, and V8's own report of a SyntaxError is wanted there.
  const engine = {
    set source(text) { source = text; },
    set file(text) { file = text; },
    compile() {
      parseAlone();
      factory = compiled();
      source = "";
    },
    check() {
      parseAlone();
      const nothing = { now: 0, seed: 0, event: null, env: {}, read: {}, write: [] };
      const run = newRun(nothing, { writes: 1, output: 1 });
      let main;
      try {
        main = instantiate(compiled(), run, nothing);
      } catch {
        // Without its real environment a good script may throw here; its runs will tell.
        return "";
      } finally {
        run.over = true;
        source = "";
      }
      return typeof main === "function" ? "" : NO_MAIN;
    },
    set batch(text) {
      try {
        start(text);
      } catch {
        runs = undefined;
      }
    },
    // Empty when the batch could not be read.
    get completions() {
      if (runs === undefined) return "";
      const done = runs.map(completion);
      runs = [];
      return stringify(done);
    },
  };

  harden([Denied, ENV, queueMicrotask]);
  SharedDate = globalThis.Date;
  return engine;
})
