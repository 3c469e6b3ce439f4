// Rollup looks for its parser, which is WebAssembly, beside itself; here it is inside of the bundle.
import parser from "../node_modules/@rollup/browser/dist/es/bindings_wasm_bg.wasm";

export { parser as __parser };
const { fetch: elsewhere } = globalThis;
globalThis.fetch = (from, ...rest) =>
  (String(from).endsWith("bindings_wasm_bg.wasm") ? parser : elsewhere(from, ...rest));
