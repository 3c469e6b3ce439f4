// An instrumenter as a script like any other: main({source, file}) prints {code, coverage}.
//
// istanbul finds the statements, functions and branches and counts them. Where it would keep the
// counts in an object of its own, the first hit of each is printed: what a run prints is all that
// leaves it.
import generate from "@babel/generator";
import { parse } from "@babel/parser";
import traverse from "@babel/traverse";
import * as types from "@babel/types";
import programVisitor from "istanbul-lib-instrument/src/visitor.js";

const prelude = (name, mark) => `const ${name} = (() => {
  const tell = console.debug;
  const hits = (kind) => new Proxy({ __proto__: null }, {
    get: (seen, key) => seen[key] ?? 0,
    set: (seen, key, value) => {
      if (seen[key] === undefined) tell(${JSON.stringify(mark)} + kind + key);
      seen[key] = value;
      return true;
    },
  });
  const branches = new Proxy({ __proto__: null }, {
    get: (seen, key) => seen[key] ??= hits("b" + key + "."),
  });
  const counted = { s: hits("s"), f: hits("f"), b: branches };
  return () => counted;
})();
`;

export function main({ source, file, mark }) {
  const tree = parse(source, { sourceType: "unambiguous", errorRecovery: false });
  const visitor = programVisitor(types, file, { coverageGlobalScopeFunc: false });
  let counted;
  traverse(tree, {
    Program: { enter: visitor.enter, exit: (path) => { counted = visitor.exit(path); } },
  });
  const [own] = tree.program.body;
  // "istanbul ignore file": nothing was added.
  if (own?.type !== "FunctionDeclaration" || !own.id.name.startsWith("cov_")) {
    console.log(JSON.stringify({ code: source, coverage: counted.fileCoverage }));
    return;
  }
  // istanbul's own keeper of counts, and the call that makes it.
  tree.program.body.splice(0, 2);
  const code = prelude(own.id.name, mark) + generate(tree, { compact: false }).code;
  console.log(JSON.stringify({ code, coverage: counted.fileCoverage }));
}
