// Positions in a script to positions in what its author wrote; the value is what Python talks to.
import { TraceMap, originalPositionFor } from "@jridgewell/trace-mapping";

let map = "";
let place = "";
let traced = "";

globalThis.__tracer = {
  set map(text) { map = text; },
  set place(text) { place = text; },
  get traced() { return traced; },
  trace() {
    traced = "";
    const { line, column } = JSON.parse(place);
    const original = originalPositionFor(new TraceMap(map), { line, column: column - 1 });
    if (original.source !== null) {
      traced = JSON.stringify([original.source, original.line, original.column + 1]);
    }
  },
};
