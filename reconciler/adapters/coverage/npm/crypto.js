// istanbul makes names from hashes of paths; any hash that spreads will do (FNV-1a, twice).
export function createHash() {
  let text = "";
  return {
    update(part) { text += part; return this; },
    digest() {
      let hex = "";
      for (const basis of [0x811c9dc5, 0x01000193]) {
        let hash = basis;
        for (let i = 0; i < text.length; i += 1) {
          hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193) >>> 0;
        }
        hex += hash.toString(16).padStart(8, "0");
      }
      return hex;
    },
  };
}
