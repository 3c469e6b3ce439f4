import { setMultibyte, TextDecoder, TextEncoder } from "@exodus/bytes/fallback/encoding.js";

// Tables of the old East Asian encodings are in a file of their own.
let multibyte;
setMultibyte((encoding, loose) => {
  multibyte ??= load("encodings").createMultibyteDecoder;
  return multibyte(encoding, loose);
});

export { TextDecoder, TextEncoder };

const encoder = new TextEncoder();
export const utf8Encode = (text) => encoder.encode(text);
// A decoder has state, so it is one each.
export const utf8Decode = (bytes) => new TextDecoder().decode(bytes);
// The name that whatwg-url has for it.
export const utf8DecodeWithoutBOM = (bytes) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
