// `npm ci && npm run build`: bundles src/ and what it imports into web.js, idna.js,
// encodings.js and aes.js, and puts the licences of all that is in them into licenses.txt. The same sources
// and lock file give the same bytes.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const read = (...path) => readFileSync(join(here, ...path), "utf-8");

// tests/executor/test_javascript_web_bundle.py computes the same.
function digest() {
  const hash = createHash("sha256");
  const sources = readdirSync(join(here, "src")).sort().map((name) => `src/${name}`);
  for (const name of ["build.mjs", "package-lock.json", "package.json", ...sources]) {
    hash.update(`${name}\0${read(name)}\0`);
  }
  return hash.digest("hex");
}

const swapped = {
  name: "swapped",
  setup({ onLoad, onResolve }) {
    const resolve = (filter, from, path) => onResolve({ filter }, ({ importer }) =>
      (importer.includes(from) ? { path: join(here, path) } : undefined));
    // The tables of IDNA are more than half of everything and rarely needed: a file of their own.
    resolve(/^tr46$/, "whatwg-url", "src/idna.js");
    resolve(/^\.\/encoding$/, "whatwg-url", "src/encoding.js");
    // Old encodings in URLs: only for those of old pages, which rules do not have.
    resolve(/^@exodus\/bytes\/encoding\.js$/, "whatwg-url", "src/encoding.js");
    onResolve({ filter: /^@exodus\/bytes\/fallback\// }, ({ path }) =>
      ({ path: join(here, "node_modules", path) }));
    onLoad({ filter: /(?:mappingTable|encodings)\.json$/ }, ({ path }) => {
      const table = JSON.stringify(JSON.parse(readFileSync(path, "utf-8")));
      return { contents: `module.exports = JSON.parse(${JSON.stringify(table)});`, loader: "js" };
    });
  },
};

// A function of what it finds as `globalThis`, where packages look for native things, and of what
// loads the other file. The parentheses make V8 compile it at once and not parse it twice.
async function bundle(entry, file) {
  const { metafile, outputFiles } = await build({
    absWorkingDir: here,
    entryPoints: [entry],
    bundle: true,
    minify: true,
    format: "cjs",
    target: "esnext",
    charset: "ascii",
    legalComments: "none",
    // Neither browser nor Node: packages bring what they would otherwise take from there.
    platform: "neutral",
    mainFields: ["module", "main"],
    plugins: [swapped],
    // Taken away by the hardening; one package looks at its prototype.
    define: { SharedArrayBuffer: "Nothing" },
    metafile: true,
    write: false,
  });
  const nothing = "class Nothing { get byteLength() { throw TypeError(); } get growable() { throw TypeError(); } }";
  writeFileSync(join(here, file), [
    "// Made by build.mjs, not by hand: make web. Licences: licenses.txt.",
    `// sources sha256:${digest()}`,
    `((globalThis, load, module) => { ${nothing} ${outputFiles[0].text.trim()}`,
    "return module.exports; })",
    "",
  ].join("\n"));
  return Object.keys(metafile.inputs);
}

const inputs = [
  ...await bundle("src/index.js", "web.js"),
  ...await bundle("tr46", "idna.js"),
  ...await bundle("src/encodings.js", "encodings.js"),
  ...await bundle("src/aes.js", "aes.js"),
];
const packages = [...new Set(inputs
  .map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1])
  .filter((name) => name !== undefined))].sort();
const licenses = packages.map((name) => {
  const folder = join("node_modules", name);
  const file = readdirSync(join(here, folder)).find((each) => /^licen[cs]e/i.test(each));
  const { version, license } = JSON.parse(read(folder, "package.json"));
  return `${name} ${version} (${license})\n${"-".repeat(72)}\n${read(folder, file).trim()}\n`;
});

writeFileSync(join(here, "licenses.txt"), `web.js, idna.js, encodings.js and aes.js contain parts of these packages.\n\n${licenses.join("\n\n")}`);
