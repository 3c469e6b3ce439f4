import { byteString, defineProperty, expose, isObject, needs } from "./webidl.js";

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const EDGES = /^[\t\n\r ]+|[\t\n\r ]+$/g;
const FORBIDDEN = /[\0\r\n]/;

export const normalized = (value) => value.replace(EDGES, "");

function nameOf(value, where) {
  const name = byteString(value, where);
  if (!TOKEN.test(name)) throw new TypeError(`${where}: "${name}" is not a header name`);
  return name;
}

function valueOf(value, where) {
  const text = normalized(byteString(value, where));
  if (FORBIDDEN.test(text)) throw new TypeError(`${where}: a header value holds no NUL, CR or LF`);
  return text;
}

let listOf;
let makeImmutable;

export class Headers {
  // [name as given, value], in the order they came.
  #list = [];
  #immutable = false;

  constructor(init = undefined) {
    if (init !== undefined) this.#fill(init);
  }

  #fill(init) {
    if (!isObject(init)) throw new TypeError("Headers: the argument is neither a sequence nor a record");
    const iterator = init[Symbol.iterator];
    if (iterator !== undefined && iterator !== null) {
      if (typeof iterator !== "function") throw new TypeError("Headers: the argument cannot be iterated");
      for (const pair of init) {
        if (!isObject(pair)) throw new TypeError("Headers: an item is not a sequence");
        const parts = [...pair];
        if (parts.length !== 2) throw new TypeError("Headers: an item is not a name and a value");
        this.append(parts[0], parts[1]);
      }
      return;
    }
    const record = new Map();
    for (const key of Reflect.ownKeys(init)) {
      const descriptor = Reflect.getOwnPropertyDescriptor(init, key);
      if (descriptor === undefined || !descriptor.enumerable) continue;
      record.set(byteString(key, "Headers"), byteString(init[key], "Headers"));
    }
    for (const [name, value] of record) this.append(name, value);
  }

  #change(where) {
    if (this.#immutable) throw new TypeError(`${where}: these headers cannot be changed`);
  }

  append(name, value) {
    needs(2, arguments.length, "Headers.append");
    const text = valueOf(value, "Headers.append");
    const key = nameOf(name, "Headers.append");
    this.#change("Headers.append");
    // One name keeps the spelling it came with first.
    const lower = key.toLowerCase();
    const known = this.#list.find(([present]) => present.toLowerCase() === lower);
    this.#list.push([known === undefined ? key : known[0], text]);
  }

  delete(name) {
    needs(1, arguments.length, "Headers.delete");
    const lower = nameOf(name, "Headers.delete").toLowerCase();
    this.#change("Headers.delete");
    this.#list = this.#list.filter(([present]) => present.toLowerCase() !== lower);
  }

  get(name) {
    needs(1, arguments.length, "Headers.get");
    const values = this.#values(nameOf(name, "Headers.get").toLowerCase());
    return values.length === 0 ? null : values.join(", ");
  }

  has(name) {
    needs(1, arguments.length, "Headers.has");
    return this.#values(nameOf(name, "Headers.has").toLowerCase()).length > 0;
  }

  set(name, value) {
    needs(2, arguments.length, "Headers.set");
    const text = valueOf(value, "Headers.set");
    const key = nameOf(name, "Headers.set");
    this.#change("Headers.set");
    const lower = key.toLowerCase();
    const at = this.#list.findIndex(([present]) => present.toLowerCase() === lower);
    if (at < 0) {
      this.#list.push([key, text]);
      return;
    }
    this.#list[at][1] = text;
    this.#list = this.#list.filter(([present], i) => i <= at || present.toLowerCase() !== lower);
  }

  getSetCookie() { return this.#values("set-cookie"); }

  forEach(callback, thisArg = undefined) {
    needs(1, arguments.length, "Headers.forEach");
    if (typeof callback !== "function") throw new TypeError("Headers.forEach: the argument is not a function");
    for (let i = 0; i < this.#sorted().length; i += 1) {
      const [name, value] = this.#sorted()[i];
      Reflect.apply(callback, thisArg, [value, name, this]);
    }
  }

  entries() { return new HeadersIterator(() => this.#sorted(), (pair) => [...pair]); }
  keys() { return new HeadersIterator(() => this.#sorted(), ([name]) => name); }
  values() { return new HeadersIterator(() => this.#sorted(), ([, value]) => value); }

  #values(lower) {
    const found = [];
    for (const [name, value] of this.#list) if (name.toLowerCase() === lower) found.push(value);
    return found;
  }

  #sorted() {
    const names = [...new Set(this.#list.map(([name]) => name.toLowerCase()))].sort();
    return names.flatMap((name) => (name === "set-cookie"
      ? this.#values(name).map((value) => [name, value])
      : [[name, this.#values(name).join(", ")]]));
  }

  static {
    listOf = (headers) => headers.#list.map((pair) => [...pair]);
    makeImmutable = (headers) => { headers.#immutable = true; return headers; };
    expose(Headers, "Headers");
    defineProperty(Headers.prototype, Symbol.iterator, {
      value: Headers.prototype.entries, writable: true, enumerable: false, configurable: true,
    });
  }
}

export { listOf, makeImmutable };

const iteratorPrototype = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]()));

// Looks at the headers anew for each step, as Web IDL says.
class Steps {
  #read;
  #pick;
  #at = 0;

  constructor(read, pick) {
    this.#read = read;
    this.#pick = pick;
  }

  next() {
    const items = this.#read();
    if (this.#at >= items.length) return { value: undefined, done: true };
    const value = this.#pick(items[this.#at]);
    this.#at += 1;
    return { value, done: false };
  }
}

// An iterator class of its own for each interface; its constructor is not to be found.
export function iteratorClass(name) {
  class Iterator extends Steps {}
  const { prototype } = Iterator;
  delete prototype.constructor;
  Object.setPrototypeOf(prototype, iteratorPrototype);
  defineProperty(prototype, "next", {
    value: { next() { return Reflect.apply(Steps.prototype.next, this, []); } }.next,
    writable: true, enumerable: true, configurable: true,
  });
  defineProperty(prototype, Symbol.toStringTag, { value: `${name} Iterator`, configurable: true });
  return Iterator;
}

const HeadersIterator = iteratorClass("Headers");
