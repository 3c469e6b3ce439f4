// structuredClone, as HTML says: StructuredSerialize and StructuredDeserialize in one walk.
import { DOMException, isDOMException } from "./exceptions.js";
import { dictionary, isArrayBuffer, isObject, needs, typedArrayName } from "./webidl.js";

const { apply } = Reflect;
const { hasOwn } = Object;
const tagOf = Object.prototype.toString;
const uncloneable = (what) => new DOMException(`${what} cannot be cloned`, "DataCloneError");

const getter = (Class, key) => Object.getOwnPropertyDescriptor(Class.prototype, key).get;
const BRANDS = {
  __proto__: null,
  Boolean: Boolean.prototype.valueOf, Number: Number.prototype.valueOf,
  String: String.prototype.valueOf, BigInt: BigInt.prototype.valueOf,
  Symbol: Symbol.prototype.valueOf,
  Date: Date.prototype.getTime, RegExp: getter(RegExp, "source"), Map: getter(Map, "size"),
  Set: getter(Set, "size"),
  WeakMap: (value) => apply(WeakMap.prototype.has, value, [{}]),
  WeakSet: (value) => apply(WeakSet.prototype.has, value, [{}]),
};
// Things with internal slots that a tag tells well enough.
const REFUSED = new Set([
  "[object Promise]", "[object Generator]", "[object AsyncGenerator]", "[object Map Iterator]",
  "[object Set Iterator]", "[object Array Iterator]", "[object String Iterator]",
  "[object RegExp String Iterator]",
]);

const BRANDED = /^\[object (Boolean|Number|String|BigInt|Symbol|Date|RegExp|Map|Set|WeakMap|WeakSet)\]$/;

// The kind that has the slots of `value`; a tag may lie.
function brand(value) {
  const tag = apply(tagOf, value, []);
  const kind = BRANDED.exec(tag)?.[1];
  if (kind !== undefined) {
    try {
      if (kind.startsWith("Weak")) BRANDS[kind](value);
      else apply(BRANDS[kind], value, []);
      return kind;
    } catch {
      return "Object";
    }
  }
  return REFUSED.has(tag) ? tag.slice(8, -1) : "Object";
}

const ERRORS = { EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

// Classes of ours: [says whether a value is one, clones it, or undefined where that is refused].
const platform = [];
export function cloneable(is, clone = undefined) { platform.push([is, clone]); }

function hidden(object, key, value) {
  Object.defineProperty(object, key, { value, writable: true, enumerable: false, configurable: true });
}

function define(object, key, value) {
  Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
}

class Walk {
  #seen = new Map();

  clone(value) {
    if (typeof value === "symbol") throw uncloneable(String(value));
    if (!isObject(value)) return value;
    const known = this.#seen.get(value);
    if (known !== undefined) return known;
    if (typeof value === "function") throw uncloneable("a function");
    return this.#object(value);
  }

  #keep(value, copy) {
    this.#seen.set(value, copy);
    return copy;
  }

  #object(value) {
    if (Array.isArray(value)) return this.#properties(value, this.#keep(value, new Array(value.length)));
    if (isArrayBuffer(value)) return this.#keep(value, this.#buffer(value));
    if (ArrayBuffer.isView(value)) return this.#view(value);
    if (isDOMException(value)) {
      const copy = this.#keep(value, new DOMException(value.message, value.name));
      if (typeof value.stack === "string") hidden(copy, "stack", value.stack);
      return copy;
    }
    if (Error.isError(value)) return this.#error(value);
    for (const [is, clone] of platform) {
      if (!is(value)) continue;
      if (clone === undefined) throw uncloneable(`an object of class ${value.constructor?.name}`);
      return this.#keep(value, clone(value));
    }
    return this.#ordinary(value, brand(value));
  }

  #ordinary(value, kind) {
    switch (kind) {
      case "Object": return this.#properties(value, this.#keep(value, {}));
      case "Boolean": case "Number": case "String": case "BigInt":
        return this.#keep(value, Object(apply(BRANDS[kind], value, [])));
      case "Date": {
        const copy = new Date(apply(BRANDS.Date, value, []));
        return this.#keep(value, copy);
      }
      case "RegExp": return this.#keep(value, new RegExp(value.source, value.flags));
      case "Map": {
        const copy = this.#keep(value, new Map());
        const entries = [];
        apply(Map.prototype.forEach, value, [(item, key) => entries.push([key, item])]);
        for (const [key, item] of entries) copy.set(this.clone(key), this.clone(item));
        return copy;
      }
      case "Set": {
        const copy = this.#keep(value, new Set());
        const items = [];
        apply(Set.prototype.forEach, value, [(item) => items.push(item)]);
        for (const item of items) copy.add(this.clone(item));
        return copy;
      }
      default: throw uncloneable(`a ${kind}`);
    }
  }

  #properties(value, copy) {
    for (const key of Object.keys(value)) {
      // A getter may have removed it meanwhile.
      if (hasOwn(value, key)) define(copy, key, this.clone(value[key]));
    }
    return copy;
  }

  #error(value) {
    const name = value.name === undefined ? "Error" : String(value.name);
    const Class = hasOwn(ERRORS, name) ? ERRORS[name] : Error;
    const message = Object.getOwnPropertyDescriptor(value, "message");
    const copy = this.#keep(value, new Class());
    if (message !== undefined && hasOwn(message, "value")) hidden(copy, "message", String(message.value));
    if (hasOwn(value, "cause")) hidden(copy, "cause", this.clone(value.cause));
    if (typeof value.stack === "string") hidden(copy, "stack", value.stack);
    return copy;
  }

  #buffer(value) {
    if (value.detached) throw uncloneable("a detached ArrayBuffer");
    if (!value.resizable) return apply(ArrayBuffer.prototype.slice, value, [0]);
    const copy = new ArrayBuffer(value.byteLength, { maxByteLength: value.maxByteLength });
    new Uint8Array(copy).set(new Uint8Array(value));
    return copy;
  }

  #view(value) {
    const { buffer, byteOffset } = value;
    const name = typedArrayName(value);
    const Class = name === undefined ? DataView : VIEWS[name];
    const auto = buffer.resizable && tracksLength(value);
    const length = name === undefined ? value.byteLength : value.length;
    const copy = this.clone(buffer);
    return this.#keep(value, auto ? new Class(copy, byteOffset) : new Class(copy, byteOffset, length));
  }
}

const VIEWS = {
  Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array,
  Float16Array, Float32Array, Float64Array, BigInt64Array, BigUint64Array,
};

// Nothing says so; but a view of fixed length ends before the buffer could.
function tracksLength(view) {
  return view.byteOffset + view.byteLength === view.buffer.byteLength
    && view.buffer.byteLength !== view.buffer.maxByteLength;
}

function transferable(list) {
  const buffers = new Set();
  for (const item of list) {
    if (!isArrayBuffer(item)) throw uncloneable("what is no ArrayBuffer");
    if (buffers.has(item)) throw uncloneable("the same ArrayBuffer twice");
    if (item.detached) throw uncloneable("a detached ArrayBuffer");
    buffers.add(item);
  }
  return buffers;
}

export function structuredClone(value, options = undefined) {
  needs(1, arguments.length, "structuredClone");
  const { transfer = [] } = dictionary(options, "structuredClone");
  if (!isObject(transfer)) throw new TypeError("structuredClone: transfer is not iterable");
  const buffers = transferable(transfer);
  const clone = new Walk().clone(value);
  // Copied like the others, and taken away: a script cannot tell that from a move.
  for (const buffer of buffers) apply(ArrayBuffer.prototype.transfer, buffer, []);
  return clone;
}
