// Finds where a script drops what may be a promise, or keeps what is one, and puts a call of the host
// around it; the value of this bundle is what Python talks to.
//
// The script is text here: nothing of it runs. Lines stay lines; `columns` leads back to the author's.
import { parse } from "acorn";
import { walk } from "estree-walker";
import { Names } from "./names.js";

// Known to give no promise, where the name means what the host made.
const PLAIN = {
  __proto__: null,
  console: /./,
  Math: /./,
  JSON: /./,
  Object: /./,
  Number: /./,
  String: /./,
  Date: /./,
  State: /^(?:get|set|delete|keys)$/,
  Device: /^(?:listReadableDevices|listWritableDevices|getDeviceStatus|setDeviceStatus)$/,
};
// Known to give a promise that nobody else has.
const FRESH = { __proto__: null, Device: /^commitDevice$/ };
// The host calls back and drops what comes of it.
const CALLS_BACK = new Set(["setTimeout", "setInterval", "queueMicrotask"]);
const DROPS_RESULTS = { __proto__: null, forEach: 0, addEventListener: 1 };
// What these are given or call back, they look at themselves.
const LOOKS_AT = /^(?:all|allSettled|any|race)$/;
const HANDLES = /^(?:then|catch|finally)$/;
// They call back with each item, or event, and know nothing of promises.
const FOR_EACH_ITEM = /^(?:forEach|map|flatMap|filter|some|every|find\w*|reduce\w*|sort|toSorted|from|groupBy|replace|replaceAll)$/;
const NO_CALLBACK = /^(?:Literal|TemplateLiteral|ArrayExpression|ObjectExpression|SpreadElement|ClassExpression)$|Function/;
const LISTENS = /^(?:add|remove)EventListener$/;
const MAPS = /^(?:map|flatMap|from)$/;
const FUNCTIONS = /^(?:FunctionDeclaration|FunctionExpression|ArrowFunctionExpression)$/;

const methodOf = (node) =>
  (node.type === "CallExpression" && node.callee.type === "MemberExpression" && !node.callee.computed
    ? node.callee.property.name : undefined);

const isAsync = ({ type, async, generator }) => FUNCTIONS.test(type) && async && !generator;
// Whether a call gives an array of promises, going by its name and its callback.
const mapsToPromises = (node) => MAPS.test(methodOf(node) ?? "") && node.arguments.some(isAsync);

// The global of `table` that a call is a method of.
function globalOf(node, table) {
  const method = methodOf(node);
  if (method === undefined || node.callee.object.type !== "Identifier") return undefined;
  const { name } = node.callee.object;
  return table[name]?.test(method) ? name : undefined;
}

// An identifier can be spelled with escapes.
const unescaped = (source) => source.replace(/\\u(?:\{([0-9a-fA-F]+)\}|([0-9a-fA-F]{4}))/g, (_, long, short) =>
  String.fromCodePoint(Math.min(parseInt(long ?? short, 16), 0x10ffff)));

// Begins the names of what is put in; the host knows it too. Code cannot be made from strings: a
// script in whose text it does not stand cannot say it.
const NAME = "$ops_";
const GAP = `/*${NAME}*/`;
const says = (source) => (source.includes("\\u") ? source + unescaped(source) : source).includes(NAME);

// Where what is put in begins and ends, and as what: the letter is that of a function of the host.
//
// d: the value is dropped, or a promise is kept. a: it is awaited; s: so is a sequence, i: so are its
// items. c: a callback, whose values are dropped, or kept by who knows whom. m: the items are promises.
function placesIn(tree) {
  const places = [];
  const said = new Set();
  const functions = [];
  const names = new Names();
  // The nodes above, and those that stand in a place.
  const above = [];
  const placed = new Set();
  // Inside of an optional chain: who begins it may end it early.
  const linked = new Set();
  const calledBack = new Set();
  const callbacks = new Set();
  // Places that count when the name in them turns out to be that of what gives a promise, or any may.
  const perhaps = [];
  let callsBack = false;

  // Unless `global` is the host's, and known to make it needless.
  function put(letter, node, global) {
    const { start, end } = node;
    placed.add(node);
    places.push({ letter, start, end, global });
  }

  function awaited(node) {
    put(node.type === "SequenceExpression" ? "s" : "a", node, globalOf(node, FRESH));
  }

  // Its items are awaited, one after the other.
  function itemsAwaited(node) {
    if (node.type === "SequenceExpression") itemsAwaited(node.expressions.at(-1));
    else if (node.type !== "SpreadElement") put("i", node);
  }

  // `node` is evaluated, and nobody keeps its value.
  function drop(node) {
    switch (node.type) {
      case "CallExpression":
        // A constructor's `super()` gives the instance, which its maker has.
        if (node.callee.type !== "Super") put(mapsToPromises(node) ? "m" : "d", node, globalOf(node, PLAIN));
        break;
      case "NewExpression":
      case "TaggedTemplateExpression": put("d", node); break;
      case "ChainExpression": if (node.expression.type === "CallExpression") put("d", node); break;
      // `void` does this wherever it stands, and what `delete` has is a place and no value.
      case "UnaryExpression": if (!/^(?:void|delete)$/.test(node.operator)) drop(node.argument); break;
      case "LogicalExpression": drop(node.left); drop(node.right); break;
      case "ConditionalExpression": drop(node.consequent); drop(node.alternate); break;
      case "SequenceExpression": drop(node.expressions.at(-1)); break;
      default:
    }
  }

  function called(node) {
    const method = methodOf(node);
    if (method === "values" || method === "entries" || method?.startsWith("get")) {
      names.lists(method, node.callee.object.name);
    }
    const callback = method in DROPS_RESULTS ? node.arguments[DROPS_RESULTS[method]] : undefined;
    if (callback === undefined) return;
    const isFunction = FUNCTIONS.test(callback.type);
    if (isFunction && callback.expression && !callback.async) drop(callback.body);
    else if (isFunction && callback.async) put("c", callback);
  }

  // Whether all that is done with a function that is an argument is known.
  const isSeenTo = (node, callback) => {
    if (!/^(?:Call|New)Expression$/.test(node.type)) return false;
    const method = methodOf(node);
    return placed.has(callback) || HANDLES.test(method ?? "") || CALLS_BACK.has(node.callee.name)
      || node.callee.name === "Promise" || FOR_EACH_ITEM.test(method ?? "") || LISTENS.test(method ?? "")
      || globalOf(node, PLAIN) !== undefined;
  };

  // What may be a function, and is called back.
  function givenAs(callback) {
    if (callback.type === "SequenceExpression") givenAs(callback.expressions.at(-1));
    else if (!NO_CALLBACK.test(callback.type)) {
      callbacks.add(callback);
      perhaps.push({ letter: "c", node: callback, name: names.known(callback) });
    }
  }

  // What is called back by somebody, and whether that one looks at what comes of it.
  function given(node) {
    const method = methodOf(node) ?? "";
    const isLookedAt = HANDLES.test(method) || CALLS_BACK.has(node.callee.name)
      || (mapsToPromises(node) && !linked.has(node));
    // It is known again when it is taken away: one function has one that stands for it.
    const asks = FOR_EACH_ITEM.test(method) || LISTENS.test(method) || node.callee.name === "Promise";
    for (const callback of node.arguments) {
      if (FUNCTIONS.test(callback.type)) calledBack.add(callback);
      if (isLookedAt || placed.has(callback)) continue;
      if (isAsync(callback)) put("c", callback);
      else if (asks) givenAs(callback);
    }
  }

  // Whether what stands at `depth` is given to one that looks at every promise in it.
  function isLookedAtBy(depth) {
    const parent = above[depth - 1];
    if (parent?.type === "ArrayExpression") return isLookedAtBy(depth - 1);
    return parent?.type === "CallExpression" && parent.callee.object?.name === "Promise"
      && LOOKS_AT.test(methodOf(parent) ?? "") && parent.callee !== above[depth];
  }

  // Whether somebody looks at the value of the node on top: "seen", or "returned" to whoever calls, or "kept".
  function fate() {
    for (let depth = above.length - 1; depth > 0; depth -= 1) {
      const node = above[depth];
      const parent = above[depth - 1];
      if (placed.has(node) || isLookedAtBy(depth)) return "seen";
      switch (parent.type) {
        case "LogicalExpression": break;
        case "ChainExpression": break;
        case "ConditionalExpression": if (node === parent.test) return "kept"; break;
        case "SequenceExpression": if (node !== parent.expressions.at(-1)) return "seen"; break;
        case "AwaitExpression": return "seen";
        case "ReturnStatement": return handedOut(functions.at(-1));
        case "ArrowFunctionExpression": return node === parent.body ? handedOut(parent) : "kept";
        case "MemberExpression":
          return node === parent.object && above[depth - 2].callee === parent && HANDLES.test(methodOf(above[depth - 2]))
            ? "seen" : "kept";
        default: return "kept";
      }
    }
    return "seen";
  }

  // Of a value that `node` returns; at the top level that is nobody's.
  function handedOut(node) {
    if (node === undefined || calledBack.has(node) || (node.generator && !node.async)) return "kept";
    return node.async ? "seen" : "returned";
  }

  // A call whose value is kept.
  function kept(node) {
    if (linked.has(node)) return;
    if (mapsToPromises(node)) {
      if (!placed.has(node) && !isLookedAtBy(above.length - 1)) put("m", node);
      return;
    }
    const found = callbacks.has(node) ? "seen" : fate();
    if (found === "seen") return;
    perhaps.push({ letter: "d", node, name: found === "kept" ? names.of(node) : undefined, global: globalOf(node, PLAIN) });
  }

  function chain(node) {
    let link = node.expression;
    while (link.type === "CallExpression" || link.type === "MemberExpression") {
      linked.add(link);
      link = link.callee ?? link.object;
    }
    if (node.expression.type === "CallExpression") kept(node);
  }

  walk(tree, {
    enter(node, parent, key) {
      above.push(node);
      if (FUNCTIONS.test(node.type)) {
        functions.push(node);
        if (!names.made(node, parent, key)) calledBack.add(node);
        if (node.type === "FunctionDeclaration") names.binds(node.id);
        node.params.forEach((it) => names.binds(it));
      }
      switch (node.type) {
        case "ExpressionStatement": drop(node.expression); break;
        case "ForStatement":
          if (node.init !== null) drop(node.init);
          if (node.update !== null) drop(node.update);
          break;
        case "SequenceExpression": node.expressions.slice(0, -1).forEach(drop); break;
        case "UnaryExpression": if (node.operator === "void") drop(node.argument); break;
        case "AwaitExpression": awaited(node.argument); break;
        case "YieldExpression":
        case "ReturnStatement": {
          // An asynchronous generator awaits these by itself.
          const { async, generator } = functions.at(-1) ?? {};
          if (node.argument === null) break;
          if (generator && async) {
            if (node.delegate) itemsAwaited(node.argument);
            else awaited(node.argument);
          } else if (!async && !generator && functions.length > 0) names.gives(functions.at(-1), node.argument);
          break;
        }
        case "ForOfStatement":
          names.binds(node.left);
          if (node.await) itemsAwaited(node.right);
          break;
        case "ChainExpression": chain(node); break;
        case "NewExpression":
          given(node);
          kept(node);
          break;
        case "CallExpression":
          called(node);
          given(node);
          if (methodOf(node) === "fromAsync" && node.arguments.length > 0) itemsAwaited(node.arguments[0]);
          kept(node);
          break;
        case "TaggedTemplateExpression": kept(node); break;
        case "VariableDeclarator":
        case "ClassDeclaration": names.binds(node.id); break;
        case "AssignmentExpression":
        case "ForInStatement": names.binds(node.left); break;
        case "CatchClause": names.binds(node.param); break;
        case "Property":
        case "MethodDefinition":
        case "PropertyDefinition": names.makes(node.key); break;
        case "ObjectPattern":
          for (const property of node.properties) if (property.type === "Property") names.taken(property);
          break;
        case "MemberExpression": names.mentions(node, key, above, isSeenTo(parent, node)); break;
        case "Identifier":
          names.mentions(node, key, above, isSeenTo(parent, node));
          if (CALLS_BACK.has(node.name)) callsBack = true;
          if (parent.type !== "MemberExpression" || (key === "property" && parent.computed)) said.add(node.name);
          break;
        default:
      }
    },
    leave(node) {
      above.pop();
      if (FUNCTIONS.test(node.type)) functions.pop();
    },
  });
  names.settle();
  for (const { letter, node, name, global } of perhaps) {
    if (names.has(name) || (letter === "c" ? names.areLoose : names.mayGive(node))) put(letter, node, global);
  }
  // A script that says the name in another way may have made it mean something else.
  const needed = places.filter(({ global }) => global === undefined || said.has(global));
  return callsBack || needed.some(({ letter }) => /[dmc]/.test(letter)) ? needed : [];
}

// What to put in where, from the front to the back.
function insertionsOf(places) {
  const insertions = places.toSorted((a, b) => a.start - b.start).flatMap(({ letter, start, end }, site) => [
    // Of those at one place, the outer one opens first and closes last.
    { at: start, closes: false, length: end - start, text: `${NAME}${letter}(${letter === "s" ? "(" : ""}` },
    {
      at: end, closes: true, length: end - start,
      text: `${letter === "s" ? ")" : ""},${/[dm]/.test(letter) ? `${site},` : ""}${NAME}${letter})`,
    },
  ]);
  return insertions.sort((a, b) =>
    a.at - b.at || b.closes - a.closes || (a.closes ? a.length - b.length : b.length - a.length));
}

// Line and column from 1 of offsets, which are asked about from the front to the back.
function locator(source) {
  const ends = /\r\n|[\n\r\u2028\u2029]/g;
  let line = 1;
  let start = 0;
  let end = ends.exec(source);
  return (offset) => {
    for (; end !== null && ends.lastIndex <= offset; end = ends.exec(source)) {
      line += 1;
      start = ends.lastIndex;
    }
    return [line, offset - start + 1];
  };
}

// Undefined when there is nothing to watch.
function watchedFrom(source) {
  if (says(source)) return undefined;
  const options = { ecmaVersion: "latest", sourceType: "script", allowReturnOutsideFunction: true };
  const places = placesIn(parse(source, options));
  if (places.length === 0) return undefined;
  const locate = locator(source);
  // By line: column and length of each insertion, one after the other.
  const columns = {};
  const sites = places.map(({ start }) => start).sort((a, b) => a - b).map(locator(source));
  let code = "";
  let from = 0;
  for (const { at, closes, text: put } of insertionsOf(places)) {
    const [line, column] = locate(at);
    // Behind a word, as in `of(0, f)()`, where nothing else was put in.
    const text = !closes && from < at && /[\p{ID_Continue}$]/u.test(source[at - 1]) ? GAP + put : put;
    (columns[line] ??= []).push(column, text.length);
    code += source.slice(from, at) + text;
    from = at;
  }
  return { code: code + source.slice(from), watch: JSON.stringify({ columns, sites }) };
}

let source = "";
let watched = "";

globalThis.__watcher = {
  set source(text) { source = text; },
  get watched() { return watched; },
  // Empty also for what is no script: V8 has the say in that.
  watch() {
    watched = "";
    try {
      const found = watchedFrom(source);
      if (found !== undefined) watched = JSON.stringify(found);
    } catch {
      // What this parser does not know is run as it is.
    }
    source = "";
  },
};
