// What a rule uses of its world, read from its source: main({files}) prints one JSON answer per file.
//
// Nothing of the rule runs. What cannot be told from the text is said to be unknown, never guessed:
// an alias or a property that is computed is null, and a use of `Device` that is no plain call makes
// the whole file `dynamic`.
import { parse } from "acorn";
import { fullAncestor } from "acorn-walk";
import { Constants } from "./constants.js";

const OPTIONS = { ecmaVersion: "latest", locations: true, allowHashBang: true };
const GLOBALS = ["Device", "Deno", "fetch"];
const CALLS = {
  getDeviceStatus: "reads", setDeviceStatus: "writes", commitDevice: "commits",
  listReadableDevices: "lists", listWritableDevices: "lists",
};

function parsed(source) {
  try {
    return parse(source, { ...OPTIONS, sourceType: "script" });
  } catch {
    return parse(source, { ...OPTIONS, sourceType: "module" });
  }
}

class Uses {
  constructor(tree) {
    this.constants = new Constants(tree);
    this.found = { reads: [], writes: [], commits: [], lists: [], env: [], fetches: [], dynamic: false, dynamicEnv: false };
    // Local names of functions that were taken out of Device: `const { getDeviceStatus } = Device`.
    this.taken = new Map();
    fullAncestor(tree, (node, _, above) => { this.destructured(node, above); });
    // The name of a pattern is no use of what it names.
    fullAncestor(tree, (node, _, above, type) => { if (type === "Identifier") this.visit(node, above); });
  }

  destructured(node, above) {
    if (node.type !== "VariableDeclarator" || node.id.type !== "ObjectPattern") return;
    if (!this.isGlobal(node.init, "Device")) return;
    for (const property of node.id.properties) {
      const name = property.type === "Property" && !property.computed ? property.key.name : undefined;
      if (name in CALLS && property.value.type === "Identifier" && this.constants.isOnce(property.value.name)) {
        this.taken.set(property.value.name, name);
      } else {
        this.found.dynamic = true;
      }
    }
  }

  isGlobal(node, name) {
    return node?.type === "Identifier" && node.name === name && !this.constants.isDeclared(name);
  }

  visit(node, above) {
    const parent = above.at(-2);
    if (this.isGlobal(node, "Device")) this.device(node, parent, above.at(-3));
    else if (this.isGlobal(node, "Deno")) this.deno(node, parent, above);
    else if (this.isGlobal(node, "fetch")) this.fetch(node, parent);
    else if (GLOBALS.includes(node.name)) this.everything(); // Declared somewhere: which one is meant?
    else if (["globalThis", "self"].includes(node.name) && !this.constants.isDeclared(node.name)) {
      const names = parent?.type === "MemberExpression" && parent.object === node ? this.member(parent) : null;
      if (names === null || names.some((name) => GLOBALS.includes(name))) this.everything();
    } else if (this.taken.has(node.name)) {
      if (parent?.type === "CallExpression" && parent.callee === node) this.call(this.taken.get(node.name), parent);
      else this.found.dynamic = true;
    }
  }

  everything() {
    this.found.dynamic = true;
    this.found.dynamicEnv = true;
  }

  // The names that a member expression may have; null where that cannot be told.
  member(node) {
    return node.computed ? this.constants.values(node.property) : [node.property.name];
  }

  device(node, parent, grand) {
    if (parent?.type === "VariableDeclarator" && parent.init === node && parent.id.type === "ObjectPattern") return;
    const names = parent?.type === "MemberExpression" && parent.object === node ? this.member(parent) : null;
    if (names === null || grand?.type !== "CallExpression" || grand.callee !== parent) {
      this.found.dynamic = true;
      return;
    }
    for (const name of names) this.call(name, grand);
  }

  call(name, node) {
    const kind = Object.hasOwn(CALLS, name) ? CALLS[name] : undefined;
    if (kind === undefined) return; // It is no function, and the run will say so.
    const { line, column } = node.loc.start;
    const at = { line, column: column + 1 };
    if (kind === "lists") {
      this.found.lists.push({ ...at, name });
      return;
    }
    const spread = node.arguments.some((argument) => argument.type === "SpreadElement");
    const [alias, property, value] = spread ? [] : node.arguments;
    const strings = (given) => (given === undefined ? [null] : this.constants.strings(given));
    const values = kind === "writes" && value !== undefined ? this.constants.values(value) : null;
    for (const a of strings(alias)) {
      for (const p of kind === "commits" ? [null] : strings(property)) {
        this.found[kind].push({ ...at, alias: a, property: p, values });
      }
    }
  }

  deno(node, parent, above) {
    if (parent?.type !== "MemberExpression" || parent.object !== node) {
      this.found.dynamicEnv = true;
      return;
    }
    if (!this.member(parent)?.includes("env")) return;
    const grand = above.at(-3);
    const { line, column } = parent.loc.start;
    const env = (name) => this.found.env.push({ line, column: column + 1, name });
    if (grand?.type === "MemberExpression" && grand.object === parent) {
      const names = this.member(grand);
      if (names === null) this.found.dynamicEnv = true;
      else names.filter((name) => typeof name === "string").forEach(env);
    } else if (grand?.type === "VariableDeclarator" && grand.init === parent && grand.id.type === "ObjectPattern") {
      for (const property of grand.id.properties) {
        if (property.type === "Property" && !property.computed) env(property.key.name ?? String(property.key.value));
        else this.found.dynamicEnv = true;
      }
    } else {
      this.found.dynamicEnv = true;
    }
  }

  fetch(node, parent) {
    const called = parent?.type === "CallExpression" && parent.callee === node;
    const { line, column } = node.loc.start;
    const urls = called && parent.arguments.length > 0 ? this.constants.strings(parent.arguments[0]) : [null];
    for (const url of urls) this.found.fetches.push({ line, column: column + 1, url });
  }
}

function told({ source }) {
  try {
    return new Uses(parsed(source)).found;
  } catch (error) {
    // What does not parse is the engine's to tell, in the words that production has.
    return { unread: String(error.message).slice(0, 200) };
  }
}

export function main({ files }) {
  for (const file of files) console.log(JSON.stringify(told(file)));
}
