// Which names a script calls to be given a promise. By name, not by what it means: two functions of one
// name are one here, and a function under another name is none.

// What the platform gives, of whichever object.
const PLATFORM = [
  "fetch", "commitDevice", "then", "catch", "finally", "json", "text", "bytes", "blob", "arrayBuffer",
  "formData", "fromAsync",
];
const CRYPTO = /^(?:digest|sign|verify|encrypt|decrypt|importKey|exportKey|generateKey)$/;
// These give one that nobody has to look at, or none.
const HARMLESS = /^(?:resolve|withResolvers)$/;
const FUNCTIONS = /^(?:FunctionExpression|ArrowFunctionExpression)$/;

// Of a call that gives a promise whatever the script says; of one whose name only a run knows.
const ALWAYS = Symbol("always");
const COMPUTED = Symbol("computed");

const nameOf = ({ type, name, value }) => (type === "Literal" ? String(value) : name);

// What a property, a variable or a parameter is known by.
function target(node) {
  if (node.type !== "MemberExpression") return node.type === "Identifier" ? node.name : undefined;
  return node.computed && node.property.type !== "Literal" ? COMPUTED : nameOf(node.property);
}

export class Names {
  #promising = new Set(PLATFORM).add(ALWAYS);
  // Names of functions that are not asynchronous, and of what they return.
  #returning = [];
  #named = new Map();

  // What stands for the value of a call, to be asked about when all is known.
  of(node) {
    const { type, callee } = node.type === "ChainExpression" ? node.expression : node;
    if (type === "NewExpression") return callee.name === "Promise" ? ALWAYS : undefined;
    if (FUNCTIONS.test(callee.type)) return callee.async && !callee.generator ? ALWAYS : undefined;
    const name = target(callee);
    const of = callee.object;
    if (of?.name === "Promise") return HARMLESS.test(name) ? undefined : ALWAYS;
    if (CRYPTO.test(String(name)) && (of?.name ?? of?.property?.name) === "subtle") return ALWAYS;
    return name;
  }

  has(name) { return this.#promising.has(name); }

  // A function, and what it is known by where it stands.
  made(node, parent, key) {
    const names = node.id ? [node.id.name] : [];
    switch (parent?.type) {
      case "VariableDeclarator": if (key === "init") names.push(target(parent.id)); break;
      case "AssignmentExpression":
      case "AssignmentPattern": if (key === "right") names.push(target(parent.left)); break;
      case "Property":
      case "MethodDefinition":
      case "PropertyDefinition":
        // It may be called by a computed name, too.
        if (key === "value") names.push(COMPUTED, parent.computed ? undefined : nameOf(parent.key));
        break;
      case "ArrayExpression": names.push(COMPUTED); break;
      default:
    }
    if (node.async) {
      if (!node.generator) for (const name of names) this.#promising.add(name);
    } else {
      this.#named.set(node, names);
      if (node.expression) this.gives(node, node.body);
    }
  }

  // What a function returns that is not asynchronous.
  gives(node, value) {
    switch (value.type) {
      case "CallExpression":
      case "ChainExpression":
      case "NewExpression":
        if (value.type === "ChainExpression" && value.expression.type !== "CallExpression") break;
        this.#returning.push({ names: this.#named.get(node), gives: this.of(value) });
        break;
      case "LogicalExpression": [value.left, value.right].forEach((it) => this.gives(node, it)); break;
      case "ConditionalExpression": [value.consequent, value.alternate].forEach((it) => this.gives(node, it)); break;
      case "SequenceExpression": this.gives(node, value.expressions.at(-1)); break;
      default:
    }
  }

  // All functions are known: so are those that pass on what another gives.
  settle() {
    this.#promising.delete(undefined);
    for (let before = -1; before !== this.#promising.size;) {
      before = this.#promising.size;
      for (const { names, gives } of this.#returning) {
        if (this.has(gives)) for (const name of names) if (name !== undefined) this.#promising.add(name);
      }
    }
  }
}
