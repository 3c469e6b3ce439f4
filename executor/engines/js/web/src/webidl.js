// What the classes here share of Web IDL. Only the parts that scripts can tell apart.

export const { defineProperty, defineProperties, getOwnPropertyDescriptor } = Object;

export const isObject = (value) =>
  (typeof value === "object" && value !== null) || typeof value === "function";

export function needs(count, given, where) {
  if (given < count) {
    throw new TypeError(`${where} needs ${count} argument${count === 1 ? "" : "s"}, but only ${given} present`);
  }
}

export function dictionary(value, where) {
  if (value === undefined || value === null) return {};
  if (!isObject(value)) throw new TypeError(`${where}: the options are not an object`);
  return value;
}

// DOMString; a Symbol throws as it should.
export const domString = (value) => `${value}`;
export const usvString = (value) => `${value}`.toWellFormed();

export function byteString(value, where) {
  const text = `${value}`;
  for (let i = 0; i < text.length; i += 1) {
    if (text.charCodeAt(i) > 255) {
      throw new TypeError(`${where}: character ${i} of "${text.slice(0, 50)}" is not a byte`);
    }
  }
  return text;
}

// Attributes and methods of an interface are enumerable; a class makes them otherwise.
export function expose(Class, name) {
  // The bundler shortens it.
  defineProperty(Class, "name", { value: name, configurable: true });
  for (const [object, own] of [[Class, ["prototype", "name", "length"]], [Class.prototype, ["constructor"]]]) {
    for (const key of Object.getOwnPropertyNames(object)) {
      if (own.includes(key)) continue;
      const descriptor = getOwnPropertyDescriptor(object, key);
      if (descriptor.configurable) defineProperty(object, key, { enumerable: true });
    }
  }
  defineProperty(Class.prototype, Symbol.toStringTag, { value: name, configurable: true });
}

export function constants(Class, table) {
  for (const [key, value] of Object.entries(table)) {
    const descriptor = { value, enumerable: true, writable: false, configurable: false };
    defineProperty(Class, key, descriptor);
    defineProperty(Class.prototype, key, descriptor);
  }
}

const { apply } = Reflect;
const prototypeOf = Object.getPrototypeOf(Uint8Array.prototype);
const viewBuffer = getOwnPropertyDescriptor(prototypeOf, "buffer").get;
const viewOffset = getOwnPropertyDescriptor(prototypeOf, "byteOffset").get;
const viewLength = getOwnPropertyDescriptor(prototypeOf, "byteLength").get;
const bufferLength = getOwnPropertyDescriptor(ArrayBuffer.prototype, "byteLength").get;
const dataView = ["buffer", "byteOffset", "byteLength"].map(
  (key) => getOwnPropertyDescriptor(DataView.prototype, key).get,
);
const viewTag = getOwnPropertyDescriptor(prototypeOf, Symbol.toStringTag).get;

export const typedArrayName = (value) => (isObject(value) ? apply(viewTag, value, []) : undefined);

export function isArrayBuffer(value) {
  if (!isObject(value)) return false;
  try {
    apply(bufferLength, value, []);
    return true;
  } catch {
    return false;
  }
}

export const isBufferSource = (value) => ArrayBuffer.isView(value) || isArrayBuffer(value);

// The bytes of a buffer or a view, not copied. A detached one has none.
export function bytesOf(source) {
  if (!ArrayBuffer.isView(source)) {
    return source.detached ? new Uint8Array() : new Uint8Array(source);
  }
  const [buffer, offset, length] = typedArrayName(source) === undefined
    ? dataView.map((get) => apply(get, source, []))
    : [viewBuffer, viewOffset, viewLength].map((get) => apply(get, source, []));
  return buffer.detached ? new Uint8Array() : new Uint8Array(buffer, offset, length);
}

export const copyOf = (source) => new Uint8Array(bytesOf(source));

export function concatenated(chunks) {
  const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}
