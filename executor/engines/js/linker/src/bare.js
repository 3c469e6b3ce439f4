// What rollup expects of its surroundings and a bare V8 does not have. Imported first.
//
// Its parser is WebAssembly inside this bundle: it is compiled here and now, because a promise of
// V8's own compilation would be settled by a task that nobody runs.
import encoding from "fast-text-encoding";
import parser from "../node_modules/@rollup/browser/dist/es/bindings_wasm_bg.wasm";

const { Instance, Module } = WebAssembly;
const { TextDecoder, TextEncoder } = encoding;

globalThis.TextEncoder = TextEncoder;
// The bytes come from the parser, so the option `fatal`, which is asked for, has nothing to do.
globalThis.TextDecoder = class {
  #decoder = new TextDecoder();
  decode(bytes = new Uint8Array()) { return this.#decoder.decode(bytes); }
};
globalThis.URL = class {};
globalThis.fetch = () => parser;
globalThis.performance ??= { now: () => 0 };
WebAssembly.instantiate = async (bytes, imports) => {
  const module = new Module(bytes);
  return { module, instance: new Instance(module, imports) };
};
