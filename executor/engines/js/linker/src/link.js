// Links the modules of one package into one script; the value of this bundle is what Python talks to.
//
// The modules are text here: nothing of them runs. Python sets `wanted`, calls `link`, and reads
// `linked` in the next crossing, when the promises have settled; JSON strings only.
import "./bare.js";
import { rollup } from "@rollup/browser";
import { Refused, judge } from "./judge.js";
import { resolve } from "./resolve.js";

const NO_MAIN = "exports no function main; write `export function main(event) { ... }`";

let wanted = "";
let linked = "";

// `files` and `maps` by path in the package; `name(path)` is what people know a file by.
function inMemory({ files, maps, name }, refuse) {
  const refusing = (hook) => (...given) => {
    try {
      return hook(...given);
    } catch (error) {
      // Said now: rollup writes its own words around what a hook throws.
      if (error instanceof Refused) refuse(error.message);
      throw error;
    }
  };
  const load = (path) => {
    const text = files.get(path);
    if (!path.endsWith(".json")) return maps.has(path) ? { code: text, map: maps.get(path) } : text;
    try {
      JSON.parse(text);
    } catch (error) {
      throw new Refused(`${error.message} (${name(path)})`);
    }
    return `export default JSON.parse(${JSON.stringify(text)});`;
  };
  return {
    name: "package",
    resolveId: refusing((specifier, importer) =>
      (importer === undefined ? specifier : resolve(specifier, importer, files, name))),
    // Judged when its module is parsed.
    resolveDynamicImport: () => false,
    load: refusing(load),
    moduleParsed: refusing(({ id, ast, code }) => judge(ast, code, name(id))),
    // Nothing is known of where a module stands: `import.meta` is an empty object.
    resolveImportMeta: (property) => (property === null ? "({})" : "undefined"),
  };
}

function told({ message = "it cannot be linked", loc, id }, name) {
  const text = message.replace(/^\S+ \(\d+:\d+\): /, "").replace(/ \(Note that you need plugins[^)]*\)/, "").replace(/\.$/, "");
  const file = loc?.file ?? id;
  if (file === undefined) return text;
  return `SyntaxError: ${text} (${name(file)}${loc === undefined ? "" : `:${loc.line}:${loc.column + 1}`})`;
}

async function linkedFrom({ entry, files, maps, prefix }) {
  const name = (path) => prefix + path;
  const given = { files: new Map(files), maps: new Map(maps), name };
  let refused;
  const refuse = (message) => { refused ??= message; };
  try {
    const bundle = await rollup({
      input: entry,
      // What an author wrote runs as it was written; `scriptops build` is what makes it smaller.
      treeshake: false,
      onLog() {},
      plugins: [inMemory(given, refuse)],
    });
    const { output: [chunk] } = await bundle.generate({
      format: "iife",
      name: "exports",
      exports: "named",
      esModule: false,
      indent: false,
      strict: false,
      generatedCode: { preset: "es2015", symbols: true },
      sourcemap: "hidden",
      sourcemapExcludeSources: true,
      sourcemapPathTransform: (source) => (given.files.has(source) ? name(source) : source),
    });
    const isModule = chunk.exports.length > 0 || bundle.watchFiles.length > 1;
    const main = ["main", "default"].find((exported) => chunk.exports.includes(exported));
    if (main === undefined) return { isModule, refused: `${name(entry)} ${NO_MAIN}` };
    return { isModule, code: `${chunk.code}const main = exports.${main};\n`, map: chunk.map.toString() };
  } catch (error) {
    return { isModule: true, refused: refused ?? told(error, name) };
  }
}

globalThis.__linker = {
  set wanted(text) { wanted = text; },
  get linked() { return linked; },
  link() {
    linked = "";
    linkedFrom(JSON.parse(wanted)).then((result) => { linked = JSON.stringify(result); });
  },
};
