// `npm ci && npm run build`: bundles src/uses.js and what it imports into uses.js, and puts the
// licences of all that is in it into LICENSES.txt. The same sources and lock file give the same bytes.
import { createHash } from "node:crypto";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));

const { outputFiles: [{ text }], metafile } = await build({
  absWorkingDir: here,
  entryPoints: ["src/uses.js"],
  bundle: true,
  write: false,
  metafile: true,
  minify: true,
  format: "iife",
  globalName: "uses",
  target: "es2022",
  platform: "neutral",
  mainFields: ["module", "main"],
  legalComments: "inline",
  logLevel: "error",
  footer: { js: "function main(event) { return uses.main(event); }" },
});

const used = new Set();
for (const input of Object.keys(metafile.inputs)) {
  const found = input.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//);
  if (found) used.add(found[1]);
}
const parts = [];
for (const name of [...used].sort()) {
  const folder = join(here, "node_modules", name);
  const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
  parts.push(`${name} ${version} (${license})\n\n${(await readFile(join(folder, file), "utf8")).trim()}\n`);
}
const outputs = {
  "uses.js": text,
  "LICENSES.txt": `What is inside uses.js, and on which terms.\n\n${parts.join(`\n${"-".repeat(72)}\n\n`)}`,
};
for (const [name, content] of Object.entries(outputs)) await writeFile(join(here, name), content);
const sums = Object.entries(outputs)
  .map(([name, content]) => `${createHash("sha256").update(content).digest("hex")}  ${name}\n`);
await writeFile(join(here, "SHA256SUMS"), sums.join(""));
