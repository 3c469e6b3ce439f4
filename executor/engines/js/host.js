// The second script of every isolate; its value makes the one object that Python talks to.
//
// Python sets a property of it and reads another, strings only. Runs are started in the first
// crossing; their microtasks run when it ends; their completions are read in the second. Where a
// run has set timers, each further crossing lets one of them fire.
((harden, config, promisesOf, timeOf, globalsOf) => {
  "use strict";

  const { WAITING, SUCCEEDED, FAILED, OUT_OF_MEMORY, OUTPUT_TOO_LARGE, DENIED, LOAD_FAILED } = config.outcomes;
  const { WARN } = config.levels;
  const {
    FLOOD_FACTOR, LOG_LINES, VALUE_CHARACTERS, PROPERTY_CHARACTERS, MESSAGE_CHARACTERS, KEY_CHARACTERS,
    REQUEST_CHARACTERS, JSON_DEPTH, TIME_MS,
  } = config.caps;
  const NO_MAIN = "the script has no function main; declare `function main(event) { ... }`";
  const UNHANDLED = "unhandled rejection: ";
  const UNSETTLED = "main() never finished: it awaits a promise that nothing settles";

  // Kept from before the hardening, which takes these away from everyone else.
  const hostEval = eval;
  const HostFunction = Function;
  const { hasOwn, keys, defineProperty } = Object;
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
      if (value instanceof Error) return `${value.name}: ${value.message}${globals.advice(value)}`;
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

  // Ours are not counted as output, and a script can provoke as many as it likes, in its own words.
  const WARNINGS = 100;
  function warn(run, text) {
    run.warned += 1;
    if (run.warned < WARNINGS) run.logs.push([WARN, wellFormed(text.slice(0, MESSAGE_CHARACTERS))]);
    else if (run.warned === WARNINGS) run.logs.push([WARN, "further warnings were dropped"]);
  }

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
    const isFull = run.logs.length >= LOG_LINES;
    if (run.printed <= run.output && !isFull) {
      run.logs.push([level, text]);
    } else if (run.truncated === "") {
      run.truncated = isFull ? `${LOG_LINES} lines` : `${run.output} bytes`;
      const rest = isFull ? "" : utf8Prefix(text, run.output - (run.printed - bytes));
      if (rest !== "") run.logs.push([level, rest]);
    }
  }

  // ---- the ops; config.surface says which of them exist for a script

  const known = (list, alias, verb) => {
    if (typeof alias !== "string") throw new TypeError("a device alias is a string");
    if (!list(alias)) throw new Denied(`device ${wellFormed(alias.slice(0, PROPERTY_CHARACTERS))} is not ${verb} for this script`);
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

  // A promise of what was reached, where that is waited for.
  function commit(run, alias, qos, options) {
    known((name) => run.write.includes(name), alias, "writable");
    if (qos !== 0 && qos !== 1 && qos !== 2) throw new TypeError("qos is 0, 1 or 2");
    const { force, timeout } = typeof options === "object" && options !== null ? options : {};
    if (timeout !== undefined && !(typeof timeout === "number" && timeout > 0 && timeout <= TIME_MS)) {
      throw new TypeError(`timeout is a number of milliseconds, at most ${TIME_MS}`);
    }
    const values = run.staged.get(alias);
    run.staged.delete(alias);
    for (const [property, value] of values ?? []) {
      run.writes.push([alias, property, value, qos, force === true]);
    }
    if (qos === 0) return undefined;
    // What waits to be written to this device goes along, so that the order stays.
    const writes = run.writes.filter((write) => write[0] === alias && !write[5]);
    if (writes.length === 0) return { reached: qos };
    const op = { op: "commit", alias, qos, writes, ms: timeout === undefined ? 0 : Math.ceil(timeout) };
    const n = run.asked;
    run.asked += 1;
    const reply = run.replies.find((it) => it.n === n);
    if (reply === undefined) return wanted(run, { ...op, n });
    for (const write of writes) write[5] = true;
    return new Promise((resolve, reject) => {
      time.set(run, () => {
        const { ok, reached, code, message } = reply;
        if (ok === true) resolve(code === undefined ? { reached } : { reached, code, message });
        else if (code === "Denied") reject(new Denied(`commitDevice ${alias}: ${message}`));
        else reject(defineProperty(new Error(`commitDevice ${alias}: ${message}`), "code", { value: code }));
      }, reply.ms, [], false);
    });
  }

  // `op` is wanted from the world: its promise stays pending in this pass of the run.
  function wanted(run, op) {
    // As if its timer had been set: what comes after has the same numbers then as now.
    run.timerId += 1;
    run.wanted.push(op);
    return new Promise(() => {});
  }

  // ---- what a run wants from the world

  // Ask for the request `op`: plain JSON, `{ op: "fetch", ... }`. A promise of the reply, an object with `n`,
  // `ok` and, when not ok, `code` and `message`; it rejects, with Denied, only when the place is not
  // one that the script may ask.
  //
  // The first time the reply is not there: the promise stays pending, and when the run has nothing
  // else to do it ends as waiting for it. Then it is run again from its activation, which has the
  // reply; as a run does the same again, the n-th op it asks for is the n-th it asked for before.
  // A reply comes as much later, in the run's own time, as the world took for it.
  // Throws Denied when the run may not ask, or has asked often enough.
  function ask(run, op) {
    if (run.over) throw new Error("the run is over");
    if (!(run.fetches > 0)) throw new Denied("this script may not fetch; its manifest grants it places with spec.network.allow");
    if (!(run.fetched < run.fetches)) throw new Denied(`a run may fetch at most ${run.fetches} times; spec.limits.fetches says so`);
    const n = run.asked;
    run.asked += 1;
    run.fetched += 1;
    const reply = run.replies.find((known) => known.n === n);
    if (reply !== undefined) {
      return new Promise((resolve, reject) => {
        const settle = () => {
          if (reply.code === "Denied") reject(new Denied(`${op.op} ${String(op.url).slice(0, PROPERTY_CHARACTERS)}: ${reply.message}`));
          else resolve(reply);
        };
        time.set(run, settle, reply.ms, [], false);
      });
    }
    // What is sent is this text, whatever the objects in it would say when they are asked again.
    const text = portable(stringify({ ...op, n }), "a request");
    const { length } = text;
    if (length > REQUEST_CHARACTERS) {
      throw new Denied(`a request of ${length} characters is too large; at most ${REQUEST_CHARACTERS} are sent`);
    }
    return wanted(run, parse(text));
  }

  // ---- what a script remembers from run to run, as JSON text by key

  // Taken out of the activation when it is first asked for: most runs never do.
  function remembered(run) {
    if (run.state === undefined) {
      run.state = new Map();
      for (const key of keys(run.before)) put(run, key, stringify(run.before[key]));
    }
    return run.state;
  }

  // What `key` with `text` adds to the JSON of the whole: quotes and escapes, colon and comma.
  const entryBytes = (key, text) => utf8Bytes(stringify(key)) + utf8Bytes(text) + 2;

  function put(run, key, text) {
    run.stateBytes += entryBytes(key, text);
    run.state.set(key, text);
  }

  function forget(run, key) {
    const text = remembered(run).get(key);
    if (text === undefined) return false;
    run.stateBytes -= entryBytes(key, text);
    return run.state.delete(key);
  }

  function stateKey(key) {
    if (typeof key === "string" && key !== "" && key.length <= KEY_CHARACTERS) return wellFormed(key);
    throw new TypeError(`a state key is a string of 1 to ${KEY_CHARACTERS} characters`);
  }

  function stateText(value) {
    let text;
    try {
      text = stringify(value);
    } catch (error) {
      throw new TypeError("a state value must be what JSON can express", { cause: error });
    }
    if (text === undefined) throw new TypeError(`a state value must be what JSON can express, not ${typeof value}`);
    return portable(text, "a state value");
  }

  // What the other side could not read, though V8 writes it: half a character, or a tower.
  const LONE = /(?<!\\)(?:\\\\)*\\ud[89a-f][0-9a-f]{2}/i;
  function portable(text, what) {
    if (LONE.test(text)) throw new TypeError(`${what} has text that is not well-formed`);
    let depth = 0;
    let inText = false;
    for (let i = 0; i < text.length; i += 1) {
      const character = text[i];
      if (inText) {
        if (character === "\\") i += 1;
        else if (character === '"') inText = false;
      } else if (character === '"') inText = true;
      else if (character === "[" || character === "{") {
        depth += 1;
        if (depth > JSON_DEPTH) throw new RangeError(`${what} is nested more than ${JSON_DEPTH} deep`);
      } else if (character === "]" || character === "}") depth -= 1;
    }
    return text;
  }

  function stateOf(run) {
    if (run.state === undefined) return null;
    const object = { __proto__: null };
    for (const [key, text] of run.state) object[key] = parse(text);
    return object;
  }

  const OPS = {
    State: {
      get: (run) => (key) => {
        const text = remembered(run).get(stateKey(key));
        return text === undefined ? undefined : parse(text);
      },
      set: (run) => (key, value) => {
        if (run.over) throw new Error("the run is over");
        const name = stateKey(key);
        const text = stateText(value);
        const before = remembered(run).get(name);
        const freed = before === undefined ? 0 : entryBytes(name, before);
        const bytes = run.stateBytes - freed + entryBytes(name, text);
        if (bytes > run.stateLimit) {
          throw new Denied(`the state would be ${bytes} bytes; at most ${run.stateLimit} are kept, as spec.limits.state says`);
        }
        run.stateBytes = bytes;
        run.state.set(name, text);
      },
      delete: (run) => (key) => {
        if (run.over) throw new Error("the run is over");
        return forget(run, stateKey(key));
      },
      keys: (run) => () => [...remembered(run).keys()],
    },
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
          return await commit(run, alias, qos, options);
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
  const TABLES = { Device: makers("Device"), console: makers("console"), State: makers("State") };

  function surface(name, run) {
    const table = TABLES[name];
    const object = {};
    for (let i = 0; i < table.length; i += 1) object[table[i][0]] = table[i][1](run);
    return object;
  }

  // ---- the globals of one run

  // Heaps that are full end the process; buffers that cannot be had are an error like any other.
  function starved(error) {
    try {
      return error instanceof RangeError && error.message === "Array buffer allocation failed";
    } catch {
      return false;
    }
  }

  // The run has failed: something of it threw, and nothing of it will catch that.
  function fault(run, error, dropped) {
    if (run.over || run.faulted) return;
    run.faulted = true;
    run.outcome = Denied.made(error) ? DENIED : starved(error) ? OUT_OF_MEMORY : FAILED;
    run.message = message(error, run.script, dropped);
  }

  const bundles = { __proto__: null };
  let hardenMore;
  const promises = promisesOf();
  const { watch } = promises;
  const time = timeOf(config.caps, fault, watch);
  const globals = globalsOf({
    bundle: (name) => bundles[name], harden: (roots) => hardenMore(roots), fault, watch, ask, time, surface,
  });

  function newRun(activation, limits, script) {
    return {
      script, outcome: 0, message: "", logs: [], writes: [], read: activation.read,
      write: activation.write, staged: new Map(), sets: 0, printed: 0, flooded: false,
      truncated: "", warned: 0, over: false, limit: limits.writes, output: limits.output,
      replies: activation.replies ?? [], wanted: [], asked: 0, fetched: 0, fetches: limits.fetches,
      before: activation.state ?? {}, state: undefined, stateBytes: 2, stateLimit: limits.state,
      id: activation.run ?? "", env: activation.env, now: activation.now, seed: activation.seed,
      faulted: false, rejected: [], made: {}, done: undefined, elapsed: 0, timers: [], timersSet: 0, timerId: 0,
      timerLevel: 0, firing: undefined,
    };
  }

  // ---- errors, told safely: everything about a thrown value may be a trap

  function placed(stack, { file, prefix, watch }) {
    // Behind the message, which may look like a place itself.
    const at = stack.indexOf(`${file}:`, stack.indexOf("\n    at "));
    if (at < 0) return "";
    const [line, column] = stack.slice(at + file.length + 1).split(/[^0-9]/, 2).map(Number);
    if (!(line > 0)) return "";
    return ` (${file}:${line}:${promises.columnOf(watch, line, line === 1 ? column - prefix.length : column)})`;
  }

  function told(error, script, threw) {
    if ((typeof error !== "object" && typeof error !== "function") || error === null) {
      return [`${threw} ${typeof error === "string" ? stringify(error) : String(error)}`, ""];
    }
    const { name, message, stack } = error;
    const text = typeof message === "string" ? message : "";
    const what = typeof name === "string" && name !== "" ? name : "Error";
    if (text === "" && typeof stack !== "string") {
      const shown = stringify(error);
      const as = shown === undefined || shown === "{}" ? "" : `: ${shown}`;
      return [`${threw} an object that is not an Error${as}`, ""];
    }
    const known = `${what}${text === "" ? "" : `: ${text}`}${globals.advice(error)}`;
    return [known, typeof stack === "string" ? placed(stack, script) : ""];
  }

  // `dropped`, when that was it, is the rejected promise that nobody handled.
  function message(error, script, dropped) {
    const [before, threw] = dropped === undefined ? ["", "the script threw"] : [UNHANDLED, "rejected with"];
    let text;
    let place = "";
    try {
      [text, place] = told(error, script, threw);
    } catch {
      text = `${threw} something that cannot be described`;
    }
    const site = script.watch?.sites[dropped?.site];
    if (place === "" && site !== undefined) place = ` (${script.file}:${site.join(":")})`;
    return wellFormed(`${before}${text}`.slice(0, MESSAGE_CHARACTERS)) + place;
  }

  // ---- scripts

  let source = "";
  let file = "";
  let watched = "";
  let name = "";
  // What is ready to be run, by name.
  const scripts = new Map();

  // A source that is not a whole function body by itself is refused here, with an error that V8
  // itself reports: such text could end our wrapper early and go on outside of it.
  function parseAlone() { HostFunction(`"use strict";\n${source}`); }

  function compiled() {
    const names = globals.mentioned(source);
    const watch = promises.readWatch(watched);
    const ours = watch === undefined ? [] : promises.NAMES;
    const prefix = `(function (${[...names, ...ours].join(", ")}) { return function () { "use strict"; `;
    const scope = hostEval(
      `${prefix}${source}\n;return typeof main === "undefined" ? undefined : main; }; })\n//# sourceURL=${file}`,
    );
    const given = (run) => names.map((name) => globals.made(run, name));
    const instantiate = watch === undefined
      ? (run) => scope(...given(run))()
      : (run) => scope(...given(run), ...promises.valuesFor(run))();
    return { file, prefix, watch, instantiate };
  }

  // ---- runs

  let runs = [];

  async function drive(run, activation) {
    try {
      const main = run.script.instantiate(run);
      if (typeof main === "function") {
        await main(activation.event);
        if (!run.faulted) run.outcome = SUCCEEDED;
      } else {
        run.outcome = LOAD_FAILED;
        run.message = NO_MAIN;
      }
    } catch (error) {
      fault(run, error);
    }
  }

  const isRecord = (value) => typeof value === "object" && value !== null && !isArray(value);

  function isActivation(value) {
    return isRecord(value) && isRecord(value.env) && isRecord(value.read) && isArray(value.write)
      && typeof value.now === "number" && typeof value.seed === "number"
      && (value.state === undefined || isRecord(value.state))
      && (value.replies === undefined || (isArray(value.replies) && value.replies.every(isRecord)));
  }

  function start(batch) {
    const { count, activations, of = [["", count]], ...limits } = parse(batch);
    if (activations.length !== count || !activations.every(isActivation)) {
      throw new TypeError("an activation is not what was agreed");
    }
    runs = [];
    for (const [named, times] of of) {
      const script = scripts.get(named);
      if (script === undefined) throw new TypeError("a script is not there");
      const end = runs.length + times;
      while (runs.length < end) runs.push(newRun(activations[runs.length], limits, script));
    }
    if (runs.length !== count) throw new TypeError("there are not as many activations as runs");
    for (let i = 0; i < count; i += 1) drive(runs[i], activations[i]);
  }

  function completion(run) {
    const waits = run.outcome === 0 && run.wanted.length > 0 && !run.flooded;
    const dropped = waits || run.rejected.length === 0 ? undefined : promises.unhandled(run);
    if (dropped !== undefined) fault(run, dropped.reason, dropped);
    run.over = true;
    if (waits) return [WAITING, "", run.logs, [], null, run.wanted];
    if (run.flooded) {
      run.outcome = OUTPUT_TOO_LARGE;
      run.message = `the script printed more than ${FLOOD_FACTOR * run.output} bytes`;
    } else if (run.outcome === 0) {
      run.outcome = FAILED;
      run.message = UNSETTLED;
    }
    for (const { op, url, alias } of run.wanted) {
      if (op === "commit") warn(run, `commitDevice ${alias} was not awaited, so it is written and not waited for`);
      else warn(run, `${op} ${String(url).slice(0, PROPERTY_CHARACTERS)} was not awaited, so it was not sent`);
    }
    if (run.truncated !== "") warn(run, `output over ${run.truncated} was dropped`);
    if (run.outcome !== SUCCEEDED) return [run.outcome, run.message, run.logs, [], stateOf(run), []];
    for (const [alias, values] of run.staged) {
      for (const property of values.keys()) {
        warn(run, `${alias}.${property} was set but not committed, so it was dropped; call Device.commitDevice`);
      }
    }
    return [SUCCEEDED, "", run.logs, run.writes, stateOf(run), []];
  }

  // False when the run is done with: it has ended, waits for the world, or for nothing at all.
  function goesOn(run) {
    if (run.done !== undefined) return false;
    if (run.outcome === 0 && !run.flooded && run.wanted.length === 0 && time.advance(run)) return true;
    run.done = completion(run);
    return false;
  }

  // An exception of an accessor would end the process inside mini-racer, so accessors never throw;
  // the methods may, and V8's own report of a SyntaxError is wanted there.
  const engine = {
    set source(text) { source = text; },
    set file(text) { file = text; },
    set watched(text) { watched = text; },
    set name(text) { name = text; },
    set web(text) { bundles.web = text; },
    set idna(text) { bundles.idna = text; },
    set encodings(text) { bundles.encodings = text; },
    set aes(text) { bundles.aes = text; },
    compile() {
      parseAlone();
      scripts.set(name, compiled());
      source = "";
    },
    check() {
      parseAlone();
      const nothing = { now: 0, seed: 0, event: null, env: {}, read: {}, write: [] };
      const script = compiled();
      const run = newRun(nothing, { writes: 1, output: 1, fetches: 0, state: 2 }, script);
      let main;
      try {
        main = script.instantiate(run);
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
    set dropped(text) { scripts.delete(text); },
    // Empty when the batch could not be read; "more" while runs have timers left to wait for.
    get completions() {
      if (runs === undefined) return "";
      let more = false;
      for (const run of runs) if (goesOn(run)) more = true;
      if (more) return "more";
      const done = runs.map((run) => run.done);
      runs = [];
      return stringify(done);
    },
  };

  hardenMore = harden([Denied, ...globals.seenByGuests]);
  return engine;
})
