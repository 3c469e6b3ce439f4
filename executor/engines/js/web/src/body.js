// Bodies of requests and responses. They come whole: there are no streams, and `body` is null.
import MIMEType from "whatwg-mimetype/lib/mime-type.js";
import { parseUrlencodedString } from "whatwg-url/lib/urlencoded.js";
import { Blob, bytesOfBlob, isBlob } from "./blob.js";
import { utf8Decode, utf8DecodeWithoutBOM, utf8Encode } from "./encoding.js";
import { decodeForm, encodeForm, FormData, isFormData } from "./formdata.js";
import { isURLSearchParams } from "./url.js";
import { copyOf, defineProperty, isBufferSource, usvString } from "./webidl.js";

// The bytes of whatever a body may be made of, and the type that says so.
export function extract(body) {
  if (isBlob(body)) return { bytes: bytesOfBlob(body), type: body.type || null };
  if (isBufferSource(body)) return { bytes: copyOf(body), type: null };
  if (isFormData(body)) {
    const { bytes, boundary } = encodeForm(body);
    return { bytes, type: `multipart/form-data; boundary=${boundary}` };
  }
  if (isURLSearchParams(body)) {
    return { bytes: utf8Encode(body.toString()), type: "application/x-www-form-urlencoded;charset=UTF-8" };
  }
  return { bytes: utf8Encode(usvString(body)), type: "text/plain;charset=UTF-8" };
}

function asForm(bytes, contentType) {
  const type = contentType === null ? null : MIMEType.parse(contentType);
  if (type?.essence === "multipart/form-data") {
    const boundary = type.parameters.get("boundary");
    if (boundary !== undefined) return decodeForm(bytes, boundary);
  } else if (type?.essence === "application/x-www-form-urlencoded") {
    const form = new FormData();
    for (const [name, value] of parseUrlencodedString(utf8DecodeWithoutBOM(bytes))) form.append(name, value);
    return form;
  }
  throw new TypeError("formData: the Content-Type is not that of a form");
}

// A body that can be read once. `bytes` is null where there is no body at all.
export class Body {
  #bytes;
  #used = false;

  constructor(bytes) { this.#bytes = bytes; }

  get used() { return this.#used; }
  get bytes() { return this.#bytes; }

  take(where) {
    if (this.#used) throw new TypeError(`${where}: the body has been read already`);
    if (this.#bytes === null) return new Uint8Array();
    this.#used = true;
    return this.#bytes;
  }

  copy(where) {
    if (this.#used) throw new TypeError(`${where}: the body has been read already`);
    return new Body(this.#bytes);
  }
}

// What Request and Response have in common; `bodyOf` checks that its argument is one.
export function mixIn(Class, bodyOf) {
  const methods = {
    async arrayBuffer() { return copyOf(bodyOf(this).take("arrayBuffer")).buffer; },
    async blob() {
      const type = this.headers.get("content-type");
      const parsed = type === null ? null : MIMEType.parse(type);
      return new Blob([bodyOf(this).take("blob")], { type: parsed === null ? "" : String(parsed) });
    },
    async bytes() { return copyOf(bodyOf(this).take("bytes")); },
    async formData() {
      const { headers } = this;
      return asForm(bodyOf(this).take("formData"), headers.get("content-type"));
    },
    async json() { return JSON.parse(utf8Decode(bodyOf(this).take("json"))); },
    async text() { return utf8Decode(bodyOf(this).take("text")); },
  };
  for (const [key, value] of Object.entries(methods)) {
    defineProperty(Class.prototype, key, { value, writable: true, enumerable: true, configurable: true });
  }
  const attributes = {
    get body() { bodyOf(this); return null; },
    get bodyUsed() { return bodyOf(this).used; },
  };
  for (const key of ["body", "bodyUsed"]) {
    defineProperty(Class.prototype, key, Object.getOwnPropertyDescriptor(attributes, key));
  }
}
