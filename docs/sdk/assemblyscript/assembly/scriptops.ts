// The script API for AssemblyScript. docs/wasm.md says what each function promises.

// @ts-ignore: decorator
@external("scriptops_v1", "device_readable") declare function rawReadable(index: i32, to: usize, room: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "device_writable") declare function rawWritable(index: i32, to: usize, room: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "device_type") declare function rawType(alias: usize, aliasLength: i32, name: usize, nameLength: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "device_number") declare function rawNumber(alias: usize, aliasLength: i32, name: usize, nameLength: i32): f64;
// @ts-ignore: decorator
@external("scriptops_v1", "device_bool") declare function rawBool(alias: usize, aliasLength: i32, name: usize, nameLength: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "device_string") declare function rawString(alias: usize, aliasLength: i32, name: usize, nameLength: i32, to: usize, room: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "device_set_number") declare function rawSetNumber(alias: usize, aliasLength: i32, name: usize, nameLength: i32, value: f64): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "device_set_bool") declare function rawSetBool(alias: usize, aliasLength: i32, name: usize, nameLength: i32, value: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "device_set_string") declare function rawSetString(alias: usize, aliasLength: i32, name: usize, nameLength: i32, value: usize, length: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "device_commit") declare function rawCommit(alias: usize, aliasLength: i32, qos: i32, force: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "env") declare function rawEnv(name: usize, nameLength: i32, to: usize, room: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "event") declare function rawEvent(to: usize, room: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "log") declare function rawLog(level: i32, text: usize, length: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "state_get") declare function rawStateGet(key: usize, keyLength: i32, to: usize, room: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "state_set") declare function rawStateSet(key: usize, keyLength: i32, json: usize, length: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "state_delete") declare function rawStateDelete(key: usize, keyLength: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "state_key") declare function rawStateKey(index: i32, to: usize, room: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "fetch") declare function rawFetch(request: usize, length: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "fetch_reply") declare function rawFetchReply(number: i32, to: usize, room: i32): i32;
// @ts-ignore: decorator
@external("scriptops_v1", "fail") declare function rawFail(text: usize, length: i32): void;

/** The time of the run in milliseconds since 1970; it stands still while the run lasts. */
// @ts-ignore: decorator
@external("scriptops_v1", "now") export declare function now(): f64;

/** A number from 0 up to 1; the same ones when the run is replayed. */
// @ts-ignore: decorator
@external("scriptops_v1", "random") export declare function random(): f64;

export enum Type { Absent = -1, Bool = 1, Number = 2, String = 3 }
export enum Level { Debug = 1, Info = 2, Warn = 3, Error = 4 }

/** Codes that an op is refused with; returned from main, they end the run as the refusal says. */
export enum Code { Done = 0, Absent = -1, Denied = -2, Invalid = -3 }

// Every string crosses as UTF-8; the buffers live as long as the run.
function at(text: ArrayBuffer): usize { return changetype<usize>(text); }

function utf8(text: string): ArrayBuffer { return String.UTF8.encode(text); }

// Where answers go. Longer ones are asked for again with room for all of them.
let room = new ArrayBuffer(256);

function given(needed: i32): string { return String.UTF8.decodeUnsafe(at(room), needed); }

function fits(needed: i32): bool {
  if (needed <= room.byteLength) return true;
  room = new ArrayBuffer(needed);
  return false;
}

export class Device {
  private alias: ArrayBuffer;

  constructor(alias: string) { this.alias = utf8(alias); }

  type(name: string): Type {
    const key = utf8(name);
    return rawType(at(this.alias), this.alias.byteLength, at(key), key.byteLength) as Type;
  }

  /** NaN when it is not known or not a number. */
  number(name: string): f64 {
    const key = utf8(name);
    return rawNumber(at(this.alias), this.alias.byteLength, at(key), key.byteLength);
  }

  /** False when it is not known or not a boolean. */
  bool(name: string): bool {
    const key = utf8(name);
    return rawBool(at(this.alias), this.alias.byteLength, at(key), key.byteLength) == 1;
  }

  /** The value as text, whatever its type; null when it is not known. */
  string(name: string): string | null {
    const key = utf8(name);
    let needed: i32;
    do {
      needed = rawString(at(this.alias), this.alias.byteLength, at(key), key.byteLength, at(room), room.byteLength);
      if (needed < 0) return null;
    } while (!fits(needed));
    return given(needed);
  }

  /** Stages a value; nothing leaves the run before commit(). */
  setNumber(name: string, value: f64): i32 {
    const key = utf8(name);
    return rawSetNumber(at(this.alias), this.alias.byteLength, at(key), key.byteLength, value);
  }

  setBool(name: string, value: bool): i32 {
    const key = utf8(name);
    return rawSetBool(at(this.alias), this.alias.byteLength, at(key), key.byteLength, value);
  }

  setString(name: string, value: string): i32 {
    const key = utf8(name), text = utf8(value);
    return rawSetString(at(this.alias), this.alias.byteLength, at(key), key.byteLength, at(text), text.byteLength);
  }

  /** 0, or with a qos of 1 or 2, after a wait, what was reached; negative is a code. */
  commit(qos: i32 = 0, force: bool = false): i32 {
    return rawCommit(at(this.alias), this.alias.byteLength, qos, force);
  }
}

function listed(ask: (index: i32, to: usize, room: i32) => i32): string[] {
  const names: string[] = [];
  for (;;) {
    const needed = ask(names.length, at(room), room.byteLength);
    if (needed < 0) return names;
    if (fits(needed)) names.push(given(needed));
  }
}

export function readableDevices(): string[] {
  return listed((index: i32, to: usize, room: i32) => rawReadable(index, to, room));
}

export function writableDevices(): string[] {
  return listed((index: i32, to: usize, room: i32) => rawWritable(index, to, room));
}

/** A variable of the Script; null when it is not set. */
export function env(name: string): string | null {
  const key = utf8(name);
  let needed: i32;
  do {
    needed = rawEnv(at(key), key.byteLength, at(room), room.byteLength);
    if (needed < 0) return null;
  } while (!fits(needed));
  return given(needed);
}

/** What started the run, as JSON. */
export function event(): string {
  let needed: i32;
  do {
    needed = rawEvent(at(room), room.byteLength);
  } while (!fits(needed));
  return given(needed);
}

export function log(text: string, level: Level = Level.Info): void {
  const line = utf8(text);
  rawLog(level, at(line), line.byteLength);
}

/** Ends the run as Failed. */
export function fail(reason: string): void {
  const text = utf8(reason);
  rawFail(at(text), text.byteLength);
}

/** What this Script remembers from run to run: JSON by key. */
export namespace State {
  export function get(key: string): string | null {
    const name = utf8(key);
    let needed: i32;
    do {
      needed = rawStateGet(at(name), name.byteLength, at(room), room.byteLength);
      if (needed < 0) return null;
    } while (!fits(needed));
    return given(needed);
  }

  export function set(key: string, json: string): i32 {
    const name = utf8(key), text = utf8(json);
    return rawStateSet(at(name), name.byteLength, at(text), text.byteLength);
  }

  export function remove(key: string): i32 {
    const name = utf8(key);
    return rawStateDelete(at(name), name.byteLength);
  }

  export function keys(): string[] {
    return listed((index: i32, to: usize, room: i32) => rawStateKey(index, to, room));
  }
}

/** Starts a request, a JSON object with a `url`; the number for fetchReply, or a code. */
export function fetchStart(request: string): i32 {
  const text = utf8(request);
  return rawFetch(at(text), text.byteLength);
}

/** The reply as a JSON object; the run may be started anew to get here. */
export function fetchReply(number: i32): string {
  let needed: i32;
  do {
    needed = rawFetchReply(number, at(room), room.byteLength);
    if (needed < 0) return "";
  } while (!fits(needed));
  return given(needed);
}

/** What the compiler calls when an assertion or an allocation fails. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const what = message === null ? "aborted" : message;
  const where = file === null ? "" : ` (${file}:${line}:${column})`;
  fail(what + where);
}
