// What no linked module may hold, and where it stands.
import { walk } from "estree-walker";

export class Refused extends Error {}

const FUNCTIONS = new Set([
  "FunctionDeclaration", "FunctionExpression", "ArrowFunctionExpression",
]);
const isAwait = (node) =>
  node.type === "AwaitExpression" || (node.type === "ForOfStatement" && node.await)
  || (node.type === "VariableDeclaration" && node.kind === "await using");

function at(code, position) {
  const before = code.slice(0, position).split(/\r\n|[\n\r\u2028\u2029]/);
  return `${before.length}:${before.at(-1).length + 1}`;
}

export function judge(ast, code, file) {
  let depth = 0;
  walk(ast, {
    enter(node) {
      if (node.type === "ImportExpression") {
        throw new Refused(
          "import() is not available: a rule is one script; write `import ... from`, which is "
          + `linked before it runs, or bundle it with \`scriptops build\` (${file}:${at(code, node.start)})`,
        );
      }
      if (depth === 0 && isAwait(node)) {
        throw new Refused(
          "await is not available outside of functions: modules are evaluated anew in every run; "
          + `await inside main() (${file}:${at(code, node.start)})`,
        );
      }
      if (FUNCTIONS.has(node.type)) depth += 1;
    },
    leave(node) { if (FUNCTIONS.has(node.type)) depth -= 1; },
  });
}
