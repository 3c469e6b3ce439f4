// The part of Web Cryptography that rules need to talk to services: digests, HMAC, AES-GCM. The
// arithmetic is that of noble. Randomness comes from the run's seed: repeatable, and no secret.
import { hmac } from "@noble/hashes/hmac.js";
import { sha1 } from "@noble/hashes/legacy.js";
import { sha256, sha384, sha512 } from "@noble/hashes/sha2.js";
import { cloneable } from "./clone.js";
import { DOMException } from "./exceptions.js";
import { copyOf, expose, isBufferSource, isObject, needs, typedArrayName } from "./webidl.js";

const MAKE = Symbol("make");
const HASHES = { "SHA-1": sha1, "SHA-256": sha256, "SHA-384": sha384, "SHA-512": sha512 };
const JWK_HMAC = { "SHA-1": "HS1", "SHA-256": "HS256", "SHA-384": "HS384", "SHA-512": "HS512" };
const AES_BITS = [128, 192, 256];
const USAGES = ["encrypt", "decrypt", "sign", "verify", "deriveKey", "deriveBits", "wrapKey", "unwrapKey"];
const USAGES_OF = { HMAC: ["sign", "verify"], "AES-GCM": ["encrypt", "decrypt", "wrapKey", "unwrapKey"] };
const NAMES_FOR = {
  digest: Object.keys(HASHES), sign: ["HMAC"], verify: ["HMAC"], encrypt: ["AES-GCM"],
  decrypt: ["AES-GCM"], importKey: ["HMAC", "AES-GCM"], generateKey: ["HMAC", "AES-GCM"],
};

const failed = (name, message) => new DOMException(message, name);

// ---- arguments

function algorithmFor(operation, given) {
  const dictionary = isObject(given) ? given : { name: given };
  const { name } = dictionary;
  if (name === undefined) throw new TypeError(`${operation}: the algorithm has no name`);
  const wanted = `${name}`.toLowerCase();
  const known = NAMES_FOR[operation].find((each) => each.toLowerCase() === wanted);
  if (known === undefined) {
    throw failed("NotSupportedError", `${operation}: rules have ${NAMES_FOR[operation].join(", ")}, not ${name}`);
  }
  return { dictionary, name: known };
}

function bytes(value, what) {
  if (!isBufferSource(value)) throw new TypeError(`${what} is neither an ArrayBuffer nor a view`);
  return copyOf(value);
}

function integer(value, bits, what) {
  const number = Math.trunc(Number(value));
  if (!(number >= 0 && number < 2 ** bits)) throw new TypeError(`${what} is out of range`);
  return number;
}

function usagesFrom(value) {
  if (!isObject(value) || typeof value[Symbol.iterator] !== "function") {
    throw new TypeError("the key usages are not a sequence");
  }
  const given = new Set([...value].map((usage) => {
    const text = `${usage}`;
    if (!USAGES.includes(text)) throw new TypeError(`"${text}" is not a key usage`);
    return text;
  }));
  return USAGES.filter((usage) => given.has(usage));
}

function allowed(name, usages) {
  const wrong = usages.find((usage) => !USAGES_OF[name].includes(usage));
  if (wrong !== undefined) throw failed("SyntaxError", `a key for ${name} cannot be used to ${wrong}`);
}

const hashFor = (dictionary) => {
  if (dictionary.hash === undefined) throw new TypeError("HMAC: the algorithm has no hash");
  return algorithmFor("digest", dictionary.hash).name;
};

// ---- keys

let partsOf;

class CryptoKey {
  #bytes; #algorithm; #extractable; #usages;

  constructor(token, parts) {
    if (token !== MAKE) throw new TypeError("Illegal constructor");
    this.#bytes = parts.bytes;
    this.#algorithm = parts.algorithm;
    this.#extractable = parts.extractable;
    this.#usages = parts.usages;
  }

  get type() { this.#bytes; return "secret"; }
  get extractable() { return this.#extractable; }
  get algorithm() { return this.#algorithm; }
  get usages() { return this.#usages; }

  static {
    // The name and the hash are kept apart: a script may change the objects it is shown.
    partsOf = (key, what) => {
      if (!isObject(key) || !(#bytes in key)) throw new TypeError(`${what} is not a CryptoKey`);
      return key.#bytes;
    };
    expose(CryptoKey, "CryptoKey");
  }
}

function keyFrom(material, algorithm, extractable, usages) {
  const shownAlgorithm = algorithm.hash === undefined
    ? { name: algorithm.name, length: algorithm.length }
    : { name: algorithm.name, length: algorithm.length, hash: { name: algorithm.hash } };
  const bytes = { material, ...algorithm, extractable, usages: [...usages] };
  return new CryptoKey(MAKE, { bytes, algorithm: shownAlgorithm, extractable, usages });
}

function usable(key, name, usage) {
  const parts = partsOf(key, "the key");
  if (parts.name !== name) throw failed("InvalidAccessError", `the key is for ${parts.name}, not ${name}`);
  if (!parts.usages.includes(usage)) throw failed("InvalidAccessError", `the key may not be used to ${usage}`);
  return parts;
}

cloneable(
  (value) => value instanceof CryptoKey,
  (key) => {
    const { material, usages, extractable, name, length, hash } = partsOf(key, "the key");
    return keyFrom(material, { name, length, hash }, extractable, usages);
  },
);

function fromJwk(jwk, name, hash, extractable, usages) {
  const wrong = (message) => failed("DataError", `importKey: ${message}`);
  if (jwk.kty !== "oct") throw wrong('kty is not "oct"');
  let material;
  try {
    if (/[=+/\s]/.test(jwk.k)) throw wrong("k is not base64url");
    material = Uint8Array.fromBase64(`${jwk.k}`, { alphabet: "base64url" });
  } catch {
    throw wrong("k is not base64url");
  }
  const alg = name === "HMAC" ? JWK_HMAC[hash] : `A${material.length * 8}GCM`;
  if (name === "AES-GCM" && !AES_BITS.includes(material.length * 8)) throw wrong("an AES key has 128, 192 or 256 bits");
  if (jwk.alg !== undefined && jwk.alg !== alg) throw wrong(`alg is not "${alg}"`);
  const use = name === "HMAC" ? "sig" : "enc";
  if (usages.length > 0 && jwk.use !== undefined && jwk.use !== use) throw wrong(`use is not "${use}"`);
  if (jwk.key_ops !== undefined) {
    const ops = [...jwk.key_ops];
    if (new Set(ops).size !== ops.length) throw wrong("key_ops has something twice");
    if (!usages.every((usage) => ops.includes(usage))) throw wrong("key_ops does not allow that usage");
  }
  if (jwk.ext === false && extractable) throw wrong("ext does not allow an extractable key");
  return material;
}

function imported(format, data, { dictionary, name }, extractable, usages) {
  const hash = name === "HMAC" ? hashFor(dictionary) : undefined;
  const given = name === "HMAC" && dictionary.length !== undefined
    ? integer(dictionary.length, 32, "HMAC: the length") : undefined;
  allowed(name, usages);
  const material = format === "raw" ? data : fromJwk(data, name, hash, extractable, usages);
  const bits = material.length * 8;
  if (name === "AES-GCM") {
    if (!AES_BITS.includes(bits)) throw failed("DataError", "importKey: an AES key has 128, 192 or 256 bits");
  } else if (bits === 0 || (given !== undefined && (given > bits || given <= bits - 8))) {
    throw failed("DataError", "importKey: the length is not that of the key");
  }
  if (usages.length === 0) throw failed("SyntaxError", "importKey: a secret key without usages is of no use");
  return keyFrom(material, { name, length: given ?? bits, hash }, extractable, usages);
}

function toJwk({ material, name, hash, usages, extractable }) {
  return {
    kty: "oct", k: material.toBase64({ alphabet: "base64url", omitPadding: true }),
    alg: name === "HMAC" ? JWK_HMAC[hash] : `A${material.length * 8}GCM`,
    key_ops: [...usages], ext: extractable,
  };
}

// ---- AES-GCM

// In a file of its own: its tables take some milliseconds to compute.
let aes;
function gcm(...parts) {
  aes ??= load("aes");
  return aes.gcm(...parts);
}

function gcmOf(dictionary, { material }) {
  if (dictionary.iv === undefined) throw new TypeError("AES-GCM: there is no iv");
  const iv = bytes(dictionary.iv, "AES-GCM: the iv");
  const extra = dictionary.additionalData === undefined
    ? undefined : bytes(dictionary.additionalData, "AES-GCM: additionalData");
  const tagBits = dictionary.tagLength === undefined ? 128 : integer(dictionary.tagLength, 8, "AES-GCM: tagLength");
  if (![32, 64, 96, 104, 112, 120, 128].includes(tagBits)) {
    throw failed("OperationError", "AES-GCM: tagLength is 32, 64, 96, 104, 112, 120 or 128");
  }
  if (iv.length < 8) throw failed("OperationError", "AES-GCM: an iv has at least 8 bytes; 12 are usual");
  return { cipher: () => gcm(material, iv, extra), tagBytes: tagBits / 8 };
}

function encrypted({ cipher, tagBytes }, data) {
  const out = cipher().encrypt(data);
  return out.slice(0, data.length + tagBytes);
}

function decrypted({ cipher, tagBytes }, data) {
  const wrong = () => failed("OperationError", "AES-GCM: the data does not belong to this key, iv and tag");
  const size = data.length - tagBytes;
  if (size < 0) throw wrong();
  // Counter mode is its own inverse; this way short tags need no code of their own.
  const plain = cipher().encrypt(data.subarray(0, size)).slice(0, size);
  const tag = cipher().encrypt(plain).subarray(size, size + tagBytes);
  let difference = 0;
  for (let i = 0; i < tagBytes; i += 1) difference |= tag[i] ^ data[size + i];
  if (difference !== 0) throw wrong();
  return plain;
}

// ---- the interfaces

const unsupported = (what) => failed("NotSupportedError", `crypto.subtle.${what} is not available to rules`);

class SubtleCrypto {
  #fill;

  constructor(token, fill) {
    if (token !== MAKE) throw new TypeError("Illegal constructor");
    this.#fill = fill;
  }

  async digest(algorithm, data) {
    needs(2, arguments.length, "digest");
    this.#fill;
    const { name } = algorithmFor("digest", algorithm);
    return HASHES[name](bytes(data, "digest: the data")).buffer;
  }

  async sign(algorithm, key, data) {
    needs(3, arguments.length, "sign");
    this.#fill;
    const { name } = algorithmFor("sign", algorithm);
    const copy = bytes(data, "sign: the data");
    const { material, hash } = usable(key, name, "sign");
    return hmac(HASHES[hash], material, copy).buffer;
  }

  async verify(algorithm, key, signature, data) {
    needs(4, arguments.length, "verify");
    this.#fill;
    const { name } = algorithmFor("verify", algorithm);
    const given = bytes(signature, "verify: the signature");
    const copy = bytes(data, "verify: the data");
    const { material, hash } = usable(key, name, "verify");
    const right = hmac(HASHES[hash], material, copy);
    let difference = given.length ^ right.length;
    for (let i = 0; i < right.length; i += 1) difference |= right[i] ^ (given[i] ?? 0);
    return difference === 0;
  }

  async encrypt(algorithm, key, data) {
    needs(3, arguments.length, "encrypt");
    this.#fill;
    const { dictionary, name } = algorithmFor("encrypt", algorithm);
    const copy = bytes(data, "encrypt: the data");
    return encrypted(gcmOf(dictionary, usable(key, name, "encrypt")), copy).buffer;
  }

  async decrypt(algorithm, key, data) {
    needs(3, arguments.length, "decrypt");
    this.#fill;
    const { dictionary, name } = algorithmFor("decrypt", algorithm);
    const copy = bytes(data, "decrypt: the data");
    return decrypted(gcmOf(dictionary, usable(key, name, "decrypt")), copy).buffer;
  }

  async generateKey(algorithm, extractable, keyUsages) {
    needs(3, arguments.length, "generateKey");
    const { dictionary, name } = algorithmFor("generateKey", algorithm);
    const usages = usagesFrom(keyUsages);
    const hash = name === "HMAC" ? hashFor(dictionary) : undefined;
    let { length } = dictionary;
    if (length !== undefined) length = integer(length, name === "HMAC" ? 32 : 16, "generateKey: the length");
    else if (name === "HMAC") length = HASHES[hash].blockLen * 8;
    else throw new TypeError("generateKey: there is no length");
    allowed(name, usages);
    if (name === "AES-GCM" && !AES_BITS.includes(length)) {
      throw failed("OperationError", "generateKey: an AES key has 128, 192 or 256 bits");
    }
    if (length === 0 || length > 65_536) throw failed("OperationError", "generateKey: the length is from 1 to 65536");
    if (usages.length === 0) throw failed("SyntaxError", "generateKey: a secret key without usages is of no use");
    const material = this.#fill(new Uint8Array(Math.ceil(length / 8)));
    return keyFrom(material, { name, length, hash }, Boolean(extractable), usages);
  }

  async importKey(format, keyData, algorithm, extractable, keyUsages) {
    needs(5, arguments.length, "importKey");
    this.#fill;
    const kind = `${format}`;
    if (!["raw", "jwk", "pkcs8", "spki"].includes(kind)) throw new TypeError(`importKey: "${kind}" is not a format`);
    const normalized = algorithmFor("importKey", algorithm);
    const usages = usagesFrom(keyUsages);
    if (kind === "jwk") {
      if (!isObject(keyData) || isBufferSource(keyData)) throw new TypeError("importKey: a JWK is an object");
      return imported(kind, keyData, normalized, Boolean(extractable), usages);
    }
    const data = bytes(keyData, "importKey: the key");
    if (kind !== "raw") throw failed("NotSupportedError", `importKey: a secret key is raw or jwk, not ${kind}`);
    return imported(kind, data, normalized, Boolean(extractable), usages);
  }

  async exportKey(format, key) {
    needs(2, arguments.length, "exportKey");
    this.#fill;
    const kind = `${format}`;
    if (!["raw", "jwk", "pkcs8", "spki"].includes(kind)) throw new TypeError(`exportKey: "${kind}" is not a format`);
    const parts = partsOf(key, "the key");
    if (kind !== "raw" && kind !== "jwk") throw failed("NotSupportedError", `exportKey: a secret key is raw or jwk, not ${kind}`);
    if (!parts.extractable) throw failed("InvalidAccessError", "exportKey: the key is not extractable");
    return kind === "jwk" ? toJwk(parts) : parts.material.slice().buffer;
  }

  async deriveKey() { throw unsupported("deriveKey"); }
  async deriveBits() { throw unsupported("deriveBits"); }
  async wrapKey() { throw unsupported("wrapKey"); }
  async unwrapKey() { throw unsupported("unwrapKey"); }

  static { expose(SubtleCrypto, "SubtleCrypto"); }
}

const INTEGERS = new Set([
  "Int8Array", "Uint8Array", "Uint8ClampedArray", "Int16Array", "Uint16Array", "Int32Array",
  "Uint32Array", "BigInt64Array", "BigUint64Array",
]);

class Crypto {
  #subtle;
  #fill;

  constructor(token, fill) {
    if (token !== MAKE) throw new TypeError("Illegal constructor");
    this.#fill = fill;
    this.#subtle = new SubtleCrypto(MAKE, fill);
  }

  get subtle() { return this.#subtle; }

  getRandomValues(array) {
    needs(1, arguments.length, "getRandomValues");
    const fill = this.#fill;
    if (!ArrayBuffer.isView(array)) throw new TypeError("getRandomValues: the argument is not a view");
    if (!INTEGERS.has(typedArrayName(array))) {
      throw failed("TypeMismatchError", "getRandomValues: the argument is not an array of integers");
    }
    if (array.byteLength > 65_536) throw failed("QuotaExceededError", "getRandomValues: at most 65536 bytes at a time");
    fill(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
    return array;
  }

  randomUUID() {
    const random = this.#fill(new Uint8Array(16));
    random[6] = (random[6] & 0x0f) | 0x40;
    random[8] = (random[8] & 0x3f) | 0x80;
    const hex = random.toHex();
    return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
  }

  static { expose(Crypto, "Crypto"); }
}

// The crypto of one run; `words` gives its random 32 bits.
function cryptoOf(words) {
  return new Crypto(MAKE, (array) => {
    for (let i = 0; i < array.length; i += 4) {
      const word = words();
      for (let j = 0; j < 4 && i + j < array.length; j += 1) array[i + j] = word >>> (8 * j);
    }
    return array;
  });
}

cloneable((value) => value instanceof Crypto || value instanceof SubtleCrypto);

export const shared = { Crypto, CryptoKey, SubtleCrypto };
export const also = [];
export { cryptoOf as crypto };
