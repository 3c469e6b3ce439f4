// The old East Asian encodings of several bytes a character, for TextDecoder.
export { createMultibyteDecoder } from "@exodus/bytes/multi-byte.js";
