// What an expression may be, as far as the text alone says: constants, and choices between a few.
import { full, fullAncestor } from "acorn-walk";

const MOST = 32;
const DEPTH = 16;

function names(pattern, add) {
  switch (pattern?.type) {
    case "Identifier": add(pattern.name); break;
    case "ObjectPattern": pattern.properties.forEach((it) => names(it.value ?? it.argument, add)); break;
    case "ArrayPattern": pattern.elements.forEach((it) => names(it, add)); break;
    case "AssignmentPattern": names(pattern.left, add); break;
    case "RestElement": names(pattern.argument, add); break;
  }
}

// Whether what a name stands for is looked at here and cannot be changed or handed on.
function isOnlyRead(node, above) {
  const [grand, parent] = above.slice(-3, -1);
  if (parent?.type === "ForOfStatement") return parent.right === node;
  if (parent?.type !== "MemberExpression" || parent.object !== node) return false;
  switch (grand?.type) {
    case "CallExpression": return grand.callee !== parent;
    case "AssignmentExpression": return grand.left !== parent;
    case "MemberExpression": return grand.object !== parent; // It may be changed further down.
    case "UpdateExpression": case "ForOfStatement": case "ForInStatement": return false;
    case "UnaryExpression": return grand.operator !== "delete";
    default: return true;
  }
}

export class Constants {
  // A name that is declared twice, in any two scopes, is none that we follow.
  #declared = new Map();
  #inits = new Map();
  #elements = new Map();
  #changed = new Set();

  constructor(tree) {
    const declare = (pattern) => names(pattern, (name) => this.#declared.set(name, (this.#declared.get(name) ?? 0) + 1));
    full(tree, (node) => {
      switch (node.type) {
        case "VariableDeclaration":
          for (const { id, init } of node.declarations) {
            declare(id);
            if (node.kind === "const" && id.type === "Identifier" && init !== null) this.#inits.set(id.name, init);
          }
          break;
        case "ForOfStatement":
          if (node.left.type === "VariableDeclaration" && node.left.kind === "const") {
            const [{ id }] = node.left.declarations;
            if (id.type === "Identifier") this.#elements.set(id.name, node.right);
          }
          break;
        case "FunctionDeclaration": case "FunctionExpression": case "ArrowFunctionExpression":
          if (node.id) declare(node.id);
          node.params.forEach(declare);
          break;
        case "ClassDeclaration": case "ClassExpression": if (node.id) declare(node.id); break;
        case "CatchClause": declare(node.param); break;
        case "ImportSpecifier": case "ImportDefaultSpecifier": case "ImportNamespaceSpecifier": declare(node.local); break;
      }
    });
    fullAncestor(tree, (node, _, above, type) => {
      if (type === "Identifier" && !isOnlyRead(node, above)) this.#changed.add(node.name);
    });
  }

  isDeclared(name) { return this.#declared.has(name); }

  isOnce(name) { return this.#declared.get(name) === 1; }

  // Strings that it may be, or [null] where that cannot be told.
  strings(node) {
    const found = this.values(node);
    return found?.every((it) => typeof it === "string") ? found : [null];
  }

  // Scalars that it may be, or null.
  values(node, depth = DEPTH) {
    if (depth === 0) return null;
    const of = (it) => this.values(it, depth - 1);
    switch (node.type) {
      case "Literal":
        return ["string", "number", "boolean"].includes(typeof node.value) ? [node.value] : null;
      case "TemplateLiteral":
        return node.expressions.reduce(
          (left, expression, index) => product(left, product(of(expression), [node.quasis[index + 1].value.cooked])),
          [node.quasis[0].value.cooked],
        );
      case "Identifier":
        if (!this.isOnce(node.name)) return null;
        if (this.#inits.has(node.name)) return of(this.#inits.get(node.name));
        return this.#elements.has(node.name) ? this.#union(this.#items(this.#elements.get(node.name)), depth) : null;
      case "ConditionalExpression": return this.#union([node.consequent, node.alternate], depth);
      case "LogicalExpression": return this.#union([node.left, node.right], depth);
      case "MemberExpression": {
        const items = this.#members(node);
        return items && this.#union(items, depth);
      }
      case "BinaryExpression":
        if (["<", ">", "<=", ">=", "==", "!=", "===", "!==", "in", "instanceof"].includes(node.operator)) return [true, false];
        return node.operator === "+" ? product(of(node.left), of(node.right)) : null;
      case "UnaryExpression":
        if (node.operator === "!") return [true, false];
        return node.operator === "-" ? of(node.argument)?.map((it) => -it) ?? null : null;
      default: return null;
    }
  }

  #union(nodes, depth) {
    if (nodes === null) return null;
    const found = new Set();
    for (const node of nodes) {
      const values = node && this.values(node, depth - 1);
      if (!values) return null;
      values.forEach((it) => found.add(it));
    }
    return found.size <= MOST ? [...found] : null;
  }

  // The object or list that a name was given once and for all.
  #whole(node) {
    let found = node;
    if (found.type === "Identifier" && this.isOnce(found.name) && !this.#changed.has(found.name)) {
      found = this.#inits.get(found.name) ?? found;
    }
    const isFrozen = found.type === "CallExpression" && found.callee.type === "MemberExpression"
      && found.callee.object.name === "Object" && found.callee.property.name === "freeze";
    return isFrozen ? found.arguments[0] : found;
  }

  #items(node) {
    const whole = this.#whole(node);
    return whole?.type === "ArrayExpression" ? whole.elements : null;
  }

  #members(node) {
    const whole = this.#whole(node.object);
    if (whole?.type === "ArrayExpression") return node.computed ? whole.elements : null;
    if (whole?.type !== "ObjectExpression") return null;
    if (whole.properties.some((it) => it.type !== "Property" || it.computed || it.kind !== "init")) return null;
    const names = node.computed ? this.values(node.property) : [node.property.name];
    const key = (it) => it.key.name ?? String(it.key.value);
    if (names === null) return whole.properties.map((it) => it.value);
    const found = names.map((name) => whole.properties.findLast((it) => key(it) === String(name))?.value);
    return found.includes(undefined) ? null : found;
  }
}

function product(left, right) {
  if (left === null || right === null || left.length * right.length > MOST) return null;
  return left.flatMap((a) => right.map((b) => (typeof a === "number" && typeof b === "number" ? a + b : `${a}${b}`)));
}
