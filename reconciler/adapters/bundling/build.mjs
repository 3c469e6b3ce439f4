// `npm ci && npm run build`: bundles src/bundle.js and what it imports into bundle.js, and puts the
// licences of all that is in it into LICENSES.txt. The same sources and lock file give the same bytes.
import { createHash } from "node:crypto";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { isBuiltin } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));

const { outputFiles: [{ text }], metafile } = await build({
  absWorkingDir: here,
  entryPoints: ["src/bundle.js"],
  bundle: true,
  write: false,
  metafile: true,
  minify: true,
  format: "esm",
  target: "es2024",
  platform: "node",
  mainFields: ["module", "main"],
  conditions: ["module", "import"],
  alias: { rollup: "@rollup/browser" },
  // Deno knows Node's modules by their long names only.
  plugins: [{
    name: "builtin",
    setup({ onResolve }) {
      onResolve({ filter: /^[a-z]/ }, ({ path }) =>
        (isBuiltin(path) ? { path: path.replace(/^(node:)?/, "node:"), external: true } : undefined));
    },
  }],
  // Packages in CommonJS ask for Node's modules by calling require.
  banner: { js: 'import { createRequire } from "node:module";\nconst require = createRequire("file:///");' },
  loader: { ".wasm": "binary" },
  inject: ["src/parser.js"],
  legalComments: "inline",
  logLevel: "error",
});

const used = new Set();
for (const input of Object.keys(metafile.inputs)) {
  const found = input.match(/^.*node_modules\/((?:@[^/]+\/)?[^/]+)\//);
  if (found) used.add(found[1]);
}
const parts = [];
for (const name of [...used].sort()) {
  const folder = join(here, "node_modules", name);
  const { version, license, author } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
  const terms = file === undefined ? `By ${author.name ?? author}.` : await readFile(join(folder, file), "utf8");
  parts.push(`${name} ${version} (${license})\n\n${terms.trim()}\n`);
}
const licences = `What is inside bundle.js, and on which terms.\n\n${parts.join(`\n${"-".repeat(72)}\n\n`)}`;

const outputs = { "bundle.js": text, "LICENSES.txt": licences };
for (const [name, content] of Object.entries(outputs)) await writeFile(join(here, name), content);
const sums = Object.entries(outputs)
  .map(([name, content]) => `${createHash("sha256").update(content).digest("hex")}  ${name}\n`);
await writeFile(join(here, "SHA256SUMS"), sums.join(""));
