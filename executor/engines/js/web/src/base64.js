// Base64 is V8's own; these two speak of characters where it speaks of bytes.
import { DOMException } from "./exceptions.js";
import { domString, needs } from "./webidl.js";

const invalid = (message) => new DOMException(message, "InvalidCharacterError");

export function bytesToBinary(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) {
    text += String.fromCharCode.apply(null, bytes.subarray(i, i + 8192));
  }
  return text;
}

export function atob(data) {
  needs(1, arguments.length, "atob");
  const text = domString(data);
  let bytes;
  try {
    bytes = Uint8Array.fromBase64(text);
  } catch {
    throw invalid("atob: the string is not base64");
  }
  return bytesToBinary(bytes);
}

export function btoa(data) {
  needs(1, arguments.length, "btoa");
  const text = domString(data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) {
    const unit = text.charCodeAt(i);
    if (unit > 255) throw invalid("btoa: the string has characters above U+00FF");
    bytes[i] = unit;
  }
  return bytes.toBase64();
}
