// Bundles one rule, its modules and what it imports from npm into one plain script. Runs in Deno, with
// leave to read the repository and nothing else.
//
// Standard input: {"root": folder, "entry": file}; standard output: {"code"} or
// {"refused": [{message, file, line, column}]}. The same sources give the same bytes.
import { existsSync, readFileSync } from "node:fs";
import { isBuiltin, stripTypeScriptTypes } from "node:module";
import { dirname, join, relative, sep } from "node:path";
import commonjs from "@rollup/plugin-commonjs";
import json from "@rollup/plugin-json";
import nodeResolve from "@rollup/plugin-node-resolve";
import { rollup } from "@rollup/browser";

const TYPED = /\.[cm]?ts$/;
const ENDINGS = [".mjs", ".js", ".ts", ".mts", ".json"];
const { root, entry } = JSON.parse(readFileSync(0, "utf8"));
const named = (path) => relative(root, path).split(sep).join("/");

// Whether `name` is in the node_modules of the importer's folder or one above it, up to the root.
function isInstalled(name, importer) {
  for (let folder = dirname(importer); ; folder = dirname(folder)) {
    if (existsSync(join(folder, "node_modules", name))) return true;
    if (folder === root || folder === dirname(folder)) return false;
  }
}

const files = {
  name: "files",
  resolveId(specifier, importer) {
    const refuse = (message) => this.error({ message, importer });
    if (isBuiltin(specifier)) {
      refuse(`"${specifier}" is a part of Node or Deno, which rules do not have; use the Web APIs`);
    }
    if (/^(https?|jsr|npm):/.test(specifier)) {
      refuse(`"${specifier}" is not in this repository; install the package with npm and import it by name`);
    }
    const name = specifier.match(/^(?:@[^/]+\/)?[^./\0#][^/]*/)?.[0];
    if (importer !== undefined && name !== undefined && !isInstalled(name, importer)) {
      refuse(`"${name}" is not installed; npm install ${name}, or correct the name`);
    }
  },
  load(id) {
    // Rollup without a platform reads no files by itself.
    return id.startsWith("\0") ? undefined : readFileSync(id, "utf8");
  },
  transform(code, id) {
    if (!TYPED.test(id)) return undefined;
    let text;
    try {
      text = stripTypeScriptTypes(code, { mode: "transform", sourceMap: true });
    } catch ({ message }) {
      const [, problem, line, column] = message.match(/^([^\n]*)[^]*:(\d+):(\d+)\s*$/) ?? [message, message, 1, 1];
      this.error({ message: problem, loc: { file: id, line: Number(line), column: Number(column) - 1 } });
    }
    const at = text.lastIndexOf("//# sourceMappingURL=");
    const map = JSON.parse(atob(text.slice(text.indexOf(",", at) + 1)));
    return { code: text.slice(0, at), map: { ...map, sources: [id] } };
  },
  resolveImportMeta: (property) => (property === null ? "({})" : "undefined"),
};

function refusal(error) {
  const { code, message, loc, importer, id, watchFiles } = error;
  if (code === "INVALID_TLA_FORMAT") {
    return { message: "await is not available outside of functions; await inside main()", file: named(id ?? entry), line: 0, column: 0 };
  }
  const file = loc?.file ?? importer ?? id ?? watchFiles?.at(-1) ?? entry;
  const text = message.replace(/^\[plugin [^\]]*\] /, "").replace(/^\S+ \(\d+:\d+\): /, "");
  return {
    message: text.replaceAll(`${root}${sep}`, "").replaceAll(`${root.slice(1)}${sep}`, "").replace(/\.$/, ""),
    file: named(file.split("?")[0].replace(/^\0/, "")),
    line: loc?.line ?? 0,
    column: loc === undefined ? 0 : loc.column + 1,
  };
}

async function bundled() {
  const bundle = await rollup({
    input: entry,
    onLog() {},
    plugins: [
      files,
      nodeResolve({ browser: true, preferBuiltins: false, extensions: ENDINGS, exportConditions: ["production"] }),
      json(),
      commonjs({ extensions: [".js", ".cjs"] }),
    ],
  });
  const { output: [chunk] } = await bundle.generate({
    format: "iife",
    banner: `// Built by scriptops build from ${named(entry)}: change that one, not this.`,
    name: "exports",
    exports: "named",
    esModule: false,
    indent: false,
    strict: false,
    inlineDynamicImports: true,
    generatedCode: { preset: "es2015", symbols: true },
    sourcemap: "hidden",
    sourcemapExcludeSources: true,
    sourcemapPathTransform: (source) => named(source.startsWith("/") ? source : `/${source}`),
  });
  const main = ["main", "default"].find((exported) => chunk.exports.includes(exported));
  if (main === undefined) {
    const message = "exports no function main; write `export function main(event) { ... }`";
    return { refused: [{ message, file: named(entry), line: 0, column: 0 }] };
  }
  const bytes = new TextEncoder().encode(JSON.stringify({ ...chunk.map, file: undefined }));
  const map = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return {
    code: `${chunk.code}const main = exports.${main};\n`
      + `//# sourceMappingURL=data:application/json;base64,${map}\n`,
  };
}

const answer = await bundled().catch((error) => ({ refused: [refusal(error)] }));
console.log(JSON.stringify(answer));
