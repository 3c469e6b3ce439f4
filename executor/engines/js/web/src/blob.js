import { cloneable } from "./clone.js";
import { utf8Decode, utf8Encode } from "./encoding.js";
import { bytesOf, concatenated, copyOf, dictionary, domString, expose, isBufferSource, isObject, needs, usvString } from "./webidl.js";

let bytesOfBlob;
let isBlob;
let isFile;

const PRINTABLE = /^[\x20-\x7e]*$/;
const typeOf = (value) => {
  const type = domString(value);
  return PRINTABLE.test(type) ? type.toLowerCase() : "";
};

// Taken as they come: the iterator may look at what was done with the one before.
function converted(parts) {
  const items = [];
  if (parts === undefined) return items;
  if (!isObject(parts)) throw new TypeError("Blob: the parts are not iterable");
  for (const part of parts) items.push(isBufferSource(part) || isBlob(part) ? part : usvString(part));
  return items;
}

function joined(items, endings) {
  const chunks = items.map((item) => {
    if (typeof item === "string") return utf8Encode(endings === "native" ? item.replace(/\r\n|\r/g, "\n") : item);
    return isBlob(item) ? bytesOfBlob(item) : bytesOf(item);
  });
  return concatenated(chunks);
}

export class Blob {
  #bytes;
  #type;

  constructor(parts = undefined, options = undefined) {
    const items = converted(parts);
    const { endings = "transparent", type = "" } = dictionary(options, "Blob");
    const ending = domString(endings);
    if (ending !== "transparent" && ending !== "native") {
      throw new TypeError(`Blob: endings is "transparent" or "native", not "${ending}"`);
    }
    this.#bytes = joined(items, ending);
    this.#type = typeOf(type);
  }

  get size() { return this.#bytes.length; }
  get type() { return this.#type; }

  slice(start = 0, end = this.size, type = "") {
    const { size } = this;
    const place = (value) => {
      const at = Math.trunc(Math.min(Math.max(Number(value) || 0, -(2 ** 53)), 2 ** 53));
      return at < 0 ? Math.max(size + at, 0) : Math.min(at, size);
    };
    const from = place(start);
    const blob = new Blob([], { type });
    blob.#bytes = this.#bytes.slice(from, Math.max(place(end), from));
    return blob;
  }

  async text() { return utf8Decode(this.#bytes); }
  async arrayBuffer() { return copyOf(this.#bytes).buffer; }
  async bytes() { return copyOf(this.#bytes); }
  stream() {
    this.#bytes;
    throw new TypeError("Blob.stream is not available to rules: bodies come whole; use text(), json() or bytes()");
  }

  static {
    isBlob = (value) => isObject(value) && #bytes in value;
    bytesOfBlob = (blob) => blob.#bytes;
    expose(Blob, "Blob");
  }
}

export class File extends Blob {
  #name;
  #lastModified;

  constructor(parts, name, options = undefined) {
    needs(2, arguments.length, "File");
    super(parts, options);
    this.#name = usvString(name);
    // There is no clock here that runs share; who wants a date gives one.
    this.#lastModified = Math.trunc(Number(dictionary(options, "File").lastModified ?? 0)) || 0;
  }

  get name() { return this.#name; }
  get lastModified() { return this.#lastModified; }

  static {
    isFile = (value) => isObject(value) && #name in value;
    expose(File, "File");
  }
}
cloneable(
  (value) => isBlob(value),
  (value) => (isFile(value)
    ? new File([value], value.name, { type: value.type, lastModified: value.lastModified })
    : new Blob([value], { type: value.type })),
);

export { bytesOfBlob, isBlob, isFile };
