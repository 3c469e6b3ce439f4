// Which names a script calls to be given a promise. By name, not by what it means: two functions of one
// name are one here. Where such a function may come under another name, or under none, it is loose, and
// then any call may give one.

// What the platform gives, of whichever object.
const METHODS = [
  "commitDevice", "then", "catch", "finally", "json", "text", "bytes", "blob", "arrayBuffer", "formData",
  "fromAsync",
];
// What these hold gives one, too.
const HOLDERS = ["Promise", "subtle"];
const GLOBALS = /^(?:globalThis|self|Device|crypto)$/;
// They call back, and look at what comes of it; not those that a script makes itself.
const CALLERS = /^(?:then|catch|finally|setTimeout|setInterval|queueMicrotask)$/;
const CRYPTO = /^(?:digest|sign|verify|encrypt|decrypt|importKey|exportKey|generateKey)$/;
// These give one that nobody has to look at, or none.
const HARMLESS = /^(?:resolve|withResolvers)$/;
const FUNCTIONS = /^(?:FunctionExpression|ArrowFunctionExpression)$/;
// What a function is asked for to be called by, or made another.
const CALLS = /^(?:call|apply|bind|constructor)$/;
// They give the values of an object without its names.
const LISTS = /^(?:values|entries|get|getOwnPropertyDescriptors?)$/;

// What arrays, texts, maps and the like have, and gives no promise that was not there.
const GIVES_NONE = new RegExp(`^(?:${[
  "push|pop|shift|unshift|slice|splice|concat|join|reverse|toReversed|includes|indexOf|lastIndexOf|at|with|fill|flat",
  "keys|values|entries|has|get|set|add|delete|clear|forEach|map|flatMap|filter|some|every|find\\w*|reduce\\w*|sort|toSorted",
  "trim\\w*|to\\w*Case|to\\w*String|toFixed|toPrecision|split|startsWith|endsWith|pad\\w+|char\\w+|codePointAt",
  "substring|repeat|replace|replaceAll|match|matchAll|test|exec|get(?:UTC)?(?:Time|Date|Day|Hours|Minutes|Seconds|Month|FullYear)",
].join("|")})$`);

// Of a call that gives a promise whatever the script says; of one whose name only a run knows.
const ALWAYS = Symbol("always");
const COMPUTED = Symbol("computed");

const nameOf = ({ type, name, value }) => (type === "Literal" ? String(value) : name);

// What a property, a variable or a parameter is known by.
function target(node) {
  if (node.type !== "MemberExpression") return node.type === "Identifier" ? node.name : undefined;
  return node.computed && node.property.type !== "Literal" ? COMPUTED : nameOf(node.property);
}

// A name that a property is asked for by.
class Property {
  constructor(name) { this.name = name; }
}
function asked(node) {
  const name = target(node);
  return node.type === "MemberExpression" ? new Property(name) : name;
}

// Whether what stands as `key` of `parent` is only asked whether, or what, it is.
const isAsked = ({ type }, key) => type === "UnaryExpression" || type === "BinaryExpression"
  || type === "ExpressionStatement" || key === "test";

export class Names {
  // Of methods and variables, and of methods alone: whoever calls a variable `text` means no promise.
  #promising = new Set(["fetch", ...HOLDERS, ALWAYS]);
  #methods = new Set(METHODS);
  // Names of functions that are not asynchronous, and of what they return.
  #returning = [];
  #named = new Map();
  // Names of variables by how often they are bound; of those bound to a function that is not
  // asynchronous; of the properties that the script makes.
  #bound = new Map();
  #plain = new Set();
  #own = new Set();
  // Names that stand for a value, where it may get another name.
  #mentioned = [];
  #loose = false;

  // What stands for the value of a call, to be asked about when all is known.
  of(node) {
    const { type, callee, tag } = node.type === "ChainExpression" ? node.expression : node;
    if (type === "NewExpression") return callee.name === "Promise" ? ALWAYS : undefined;
    if (tag !== undefined) return asked(tag);
    if (FUNCTIONS.test(callee.type)) return callee.async && !callee.generator ? ALWAYS : undefined;
    const name = target(callee);
    if (name === COMPUTED) return ALWAYS;
    const of = callee.object;
    if (of?.name === "Promise") return HARMLESS.test(name) ? undefined : ALWAYS;
    if (CRYPTO.test(String(name)) && (of?.name ?? of?.property?.name) === "subtle") return ALWAYS;
    return asked(callee);
  }

  // What a function that is no call is known by.
  known(node) { return asked(node); }

  // Whether what is known so gives a promise.
  has(name) {
    if (!(name instanceof Property)) return this.#promising.has(name);
    return this.#promising.has(name.name) || this.#methods.has(name.name);
  }

  // Whether a function that gives promises may come under any name; known when all is settled.
  get areLoose() { return this.#loose; }

  // Whether a call may then give a promise that was not there.
  mayGive(node) {
    if (!this.#loose) return false;
    const { name, type, property, computed } = node.callee ?? {};
    if (name !== undefined) return !(this.#plain.has(name) && this.#bound.get(name) === 1);
    return type !== "MemberExpression" || computed || !GIVES_NONE.test(property.name) || this.#own.has(property.name);
  }

  // A pattern that names are bound by.
  binds(node) {
    switch (node?.type) {
      case "Identifier": this.#bound.set(node.name, (this.#bound.get(node.name) ?? 0) + 1); break;
      case "ObjectPattern": node.properties.forEach((it) => this.binds(it.value ?? it)); break;
      case "ArrayPattern": node.elements.forEach((it) => this.binds(it)); break;
      case "AssignmentPattern": this.binds(node.left); break;
      case "RestElement": this.binds(node.argument); break;
      case "MemberExpression": this.#own.add(target(node)); break;
      default:
    }
  }

  // The script makes a property.
  makes(key) { this.#own.add(nameOf(key)); }

  // A function, and what it is known by where it stands; false when by nothing.
  made(node, parent, key) {
    const names = node.id ? [node.id.name] : [];
    let isNamed = node.type === "FunctionDeclaration";
    const known = (by) => {
      names.push(by);
      isNamed = by !== undefined && by !== COMPUTED;
    };
    switch (parent?.type) {
      case "VariableDeclarator": if (key === "init") known(target(parent.id)); break;
      case "AssignmentExpression":
      case "AssignmentPattern": if (key === "right") known(target(parent.left)); break;
      case "Property":
      case "MethodDefinition":
      case "PropertyDefinition":
        if (key === "value") {
          // It may be called by a computed name, too.
          names.push(COMPUTED);
          known(parent.computed && parent.key.type !== "Literal" ? undefined : nameOf(parent.key));
          // Nobody calls it: it is read.
          if (parent.kind === "get") isNamed = false;
        }
        break;
      default:
    }
    if (names.some((name) => CALLERS.test(String(name)))) this.#loose = true;
    if (node.async && node.generator) for (const name of ["next", "return", "throw"]) this.#methods.add(name);
    else if (node.async) {
      for (const name of names) this.#promising.add(name);
      // Where it is called, or given to somebody, that is seen to where it stands.
      if (!isNamed && !/^(?:Call|New)Expression$/.test(parent.type) && !isAsked(parent, key)) this.#loose = true;
    } else {
      this.#named.set(node, isNamed ? names : []);
      if (!node.generator) for (const name of names) this.#plain.add(name);
      if (node.expression) this.gives(node, node.body);
    }
    return isNamed;
  }

  // What a function returns that is not asynchronous.
  gives(node, value) {
    switch (value.type) {
      case "CallExpression":
      case "ChainExpression":
      case "NewExpression":
      case "TaggedTemplateExpression":
        if (value.type === "ChainExpression" && value.expression.type !== "CallExpression") break;
        this.#returning.push({ names: this.#named.get(node), gives: this.of(value) });
        break;
      case "LogicalExpression": [value.left, value.right].forEach((it) => this.gives(node, it)); break;
      case "ConditionalExpression": [value.consequent, value.alternate].forEach((it) => this.gives(node, it)); break;
      case "SequenceExpression": this.gives(node, value.expressions.at(-1)); break;
      default:
    }
  }

  // A name that stands for a value, at the top of `above`; `isSeenTo` when all that is done with it is known.
  mentions(node, key, above, isSeenTo) {
    let name = target(node);
    let at = above.length - 2;
    if (above[at]?.type === "ChainExpression") {
      at -= 1;
      key = undefined;
    }
    const parent = above[at];
    if (/^(?:params|id|label|param|property)$/.test(key) && !parent.computed) return;
    if (name === "Promise" && key === "object" && above[at - 1].callee === parent) return;
    if (name === COMPUTED && GLOBALS.test(node.object.name)) name = "Promise";
    switch (parent.type) {
      case "CallExpression":
      case "NewExpression": if (key === "callee" || isSeenTo) return; break;
      case "TaggedTemplateExpression": if (key === "tag") return; break;
      case "MemberExpression":
        // Of a value only what it is called by; of names that hold promises' makers, all.
        if (key !== "object") break;
        if (name === "subtle" && above[at - 1].callee === parent) return;
        if (!HOLDERS.includes(name) && !CALLS.test(String(target(parent))) && target(parent) !== COMPUTED) return;
        break;
      case "VariableDeclarator": if (key === "id" || target(parent.id) === name) return; break;
      case "AssignmentPattern":
      case "AssignmentExpression": {
        const left = target(parent.left);
        // Of a module, what the linker gives out.
        if (key === "left" || (parent.operator !== undefined && left === "default")) return;
        if (left === name) {
          if (parent.left.type === "MemberExpression") this.#aliased(name);
          return;
        }
        break;
      }
      case "Property":
        if (key === "key" && !parent.computed) return;
        if (!parent.computed && nameOf(parent.key) === name) {
          if (above[at - 1].type !== "ObjectPattern") this.#aliased(name);
          return;
        }
        break;
      case "MethodDefinition":
      case "PropertyDefinition": if (key === "key" && !parent.computed) return; break;
      default: if (isAsked(parent, key)) return;
    }
    this.#mentioned.push(node.type === "MemberExpression" ? new Property(name) : name);
  }

  // A property is taken out of an object by a pattern.
  taken({ key, value, computed }) {
    const name = computed && key.type !== "Literal" ? COMPUTED : nameOf(key);
    const by = value.type === "AssignmentPattern" ? value.left : value;
    if (by.type !== "Identifier" || by.name !== name) this.#mentioned.push(new Property(name));
  }

  // The values of an object are listed.
  lists(method, of) {
    if (/^(?:Object|Reflect)$/.test(of) && LISTS.test(method)) this.#mentioned.push(COMPUTED);
  }

  // What is known by `name` is a property now: it may be called by a computed name, too.
  #aliased(name) { this.#returning.push({ names: [COMPUTED], gives: name }); }

  // All functions are known: so are those that pass on what another gives.
  settle() {
    this.#promising.delete(undefined);
    for (let before = -1; before !== this.#promising.size;) {
      before = this.#promising.size;
      for (const { names, gives } of this.#returning) {
        if (this.has(gives)) for (const name of names) if (name !== undefined) this.#promising.add(name);
      }
    }
    this.#loose ||= this.#mentioned.some((name) => this.has(name));
  }
}
