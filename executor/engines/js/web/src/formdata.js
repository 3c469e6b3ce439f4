import { bytesOfBlob, File, isBlob, isFile } from "./blob.js";
import { utf8Decode, utf8Encode } from "./encoding.js";
import { iteratorClass } from "./headers.js";
import { bytesToBinary } from "./base64.js";
import { concatenated, defineProperty, expose, needs, usvString } from "./webidl.js";

const FormDataIterator = iteratorClass("FormData");

let isFormData;
let entriesOf;

function entry(method, given, name, value, filename) {
  needs(2, given, `FormData.${method}`);
  if (!isBlob(value)) {
    if (given > 2) throw new TypeError(`FormData.${method}: a file name is for a Blob`);
    return [usvString(name), usvString(value)];
  }
  if (isFile(value) && filename === undefined) return [usvString(name), value];
  const { type } = value;
  const file = new File([value], filename ?? "blob", { type, lastModified: value.lastModified });
  return [usvString(name), file];
}

export class FormData {
  #entries = [];

  constructor(form = undefined) {
    if (form !== undefined) throw new TypeError("FormData: there are no forms here");
  }

  append(name, value, filename = undefined) {
    this.#entries.push(entry("append", arguments.length, name, value, filename));
  }

  set(name, value, filename = undefined) {
    const next = entry("set", arguments.length, name, value, filename);
    const at = this.#entries.findIndex(([key]) => key === next[0]);
    if (at < 0) {
      this.#entries.push(next);
      return;
    }
    this.#entries[at] = next;
    this.#entries = this.#entries.filter(([key], i) => i <= at || key !== next[0]);
  }

  delete(name) {
    needs(1, arguments.length, "FormData.delete");
    const key = usvString(name);
    this.#entries = this.#entries.filter(([present]) => present !== key);
  }

  get(name) { needs(1, arguments.length, "FormData.get"); return this.#all(name)[0] ?? null; }
  getAll(name) { needs(1, arguments.length, "FormData.getAll"); return this.#all(name); }
  has(name) { needs(1, arguments.length, "FormData.has"); return this.#all(name).length > 0; }

  forEach(callback, thisArg = undefined) {
    if (typeof callback !== "function") throw new TypeError("FormData.forEach: the argument is not a function");
    for (let i = 0; i < this.#entries.length; i += 1) {
      const [name, value] = this.#entries[i];
      Reflect.apply(callback, thisArg, [value, name, this]);
    }
  }

  entries() { return new FormDataIterator(() => this.#entries, (pair) => [...pair]); }
  keys() { return new FormDataIterator(() => this.#entries, ([name]) => name); }
  values() { return new FormDataIterator(() => this.#entries, ([, value]) => value); }

  #all(name) {
    const key = usvString(name);
    return this.#entries.filter(([present]) => present === key).map(([, value]) => value);
  }

  static {
    isFormData = (value) => FormData.prototype.isPrototypeOf(value) && #entries in value;
    entriesOf = (form) => form.#entries;
    expose(FormData, "FormData");
    defineProperty(FormData.prototype, Symbol.iterator, {
      value: FormData.prototype.entries, writable: true, enumerable: false, configurable: true,
    });
  }
}

export { isFormData };

// ---- multipart/form-data

const escaped = (text) => text.replaceAll("\n", "%0A").replaceAll("\r", "%0D").replaceAll('"', "%22");
const withCRLF = (text) => text.replace(/\r\n|\r|\n/g, "\r\n");

// The bytes and their boundary: the first of a row that does not occur in them, so that the same
// form is always the same request.
export function encodeForm(form) {
  const parts = entriesOf(form).map(([name, value]) => {
    const head = `Content-Disposition: form-data; name="${escaped(withCRLF(name))}"`;
    if (typeof value === "string") return [utf8Encode(`${head}\r\n\r\n${withCRLF(value)}`)];
    const type = value.type || "application/octet-stream";
    return [
      utf8Encode(`${head}; filename="${escaped(value.name)}"\r\nContent-Type: ${type}\r\n\r\n`),
      bytesOfBlob(value),
    ];
  });
  const all = bytesToBinary(concatenated(parts.flat()));
  let number = 0;
  while (all.includes(`scriptops-form-${number}-`)) number += 1;
  const boundary = `----scriptops-form-${number}-`;
  const chunks = parts.flatMap((part) => [utf8Encode(`--${boundary}\r\n`), ...part, utf8Encode("\r\n")]);
  return { bytes: concatenated([...chunks, utf8Encode(`--${boundary}--\r\n`)]), boundary };
}

const unescaped = (text) => text.replace(/%0A/gi, "\n").replace(/%0D/gi, "\r").replace(/%22/g, '"');

// Bytes are looked at as characters of one byte each.
export function decodeForm(bytes, boundary) {
  const text = bytesToBinary(bytes);
  const utf8 = (part) => utf8Decode(Uint8Array.from(part, (character) => character.charCodeAt(0)));
  const wrong = () => new TypeError("formData: the body is not multipart/form-data");
  const form = new FormData();
  const delimiter = `--${boundary}`;
  let at = text.indexOf(delimiter);
  if (at !== 0 && !(at > 0 && text.startsWith("\r\n", at - 2))) throw wrong();
  for (;;) {
    at += delimiter.length;
    if (text.startsWith("--", at)) return form;
    if (!text.startsWith("\r\n", at)) throw wrong();
    const bodyAt = text.indexOf("\r\n\r\n", at);
    const end = text.indexOf(`\r\n${delimiter}`, bodyAt + 2);
    if (bodyAt < 0 || end < 0) throw wrong();
    const head = text.slice(at + 2, bodyAt);
    const name = /^content-disposition:\s*form-data;.*?\bname="([^"]*)"/im.exec(head);
    if (name === null) throw wrong();
    const filename = /^content-disposition:.*?\bfilename="([^"]*)"/im.exec(head);
    const type = /^content-type:[ \t]*(.*?)[ \t]*$/im.exec(head);
    const body = text.slice(bodyAt + 4, end);
    const key = utf8(unescaped(name[1]));
    if (filename === null) {
      form.append(key, utf8(body));
    } else {
      const content = Uint8Array.from(body, (character) => character.charCodeAt(0));
      const options = { type: type === null ? "text/plain" : type[1] };
      form.append(key, new File([content], utf8(unescaped(filename[1])), options));
    }
    at = end + 2;
  }
}
