// Writes link.js, trace.js, watch.js, LICENSES.txt and SHA256SUMS beside this file; with --check only compares.
//
// What comes out follows from package-lock.json alone: no dates, no paths, no environment.
import { createHash } from "node:crypto";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const ENTRIES = { "link.js": "__linker", "trace.js": "__tracer", "watch.js": "__watcher" };

async function bundled(name, value, used) {
  const { outputFiles: [file], metafile } = await build({
    absWorkingDir: here,
    entryPoints: [`src/${name}`],
    bundle: true,
    write: false,
    metafile: true,
    minify: true,
    format: "iife",
    target: "es2024",
    platform: "neutral",
    mainFields: ["module", "main"],
    loader: { ".wasm": "binary" },
    legalComments: "inline",
    logLevel: "error",
    logOverride: { "empty-import-meta": "silent" },
    footer: { js: `${value};` },
  });
  for (const input of Object.keys(metafile.inputs)) {
    const found = input.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//);
    if (found) used.add(found[1]);
  }
  return file.text;
}

async function licences(packages) {
  const parts = [];
  for (const name of [...packages].sort()) {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
    if (file === undefined) throw new Error(`${name} has no licence file`);
    parts.push(`${name} ${version} (${license})\n\n${(await readFile(join(folder, file), "utf8")).trim()}\n`);
  }
  return `What is inside link.js, trace.js and watch.js, and on which terms.\n\n${parts.join(`\n${"-".repeat(72)}\n\n`)}`;
}

const outputs = {};
const used = new Set();
for (const [name, value] of Object.entries(ENTRIES)) outputs[name] = await bundled(name, value, used);
outputs["LICENSES.txt"] = await licences(used);
outputs.SHA256SUMS = Object.entries(outputs)
  .map(([name, text]) => `${createHash("sha256").update(text).digest("hex")}  ${name}\n`)
  .join("");

const stale = [];
for (const [name, text] of Object.entries(outputs)) {
  const path = join(here, name);
  if (process.argv.includes("--check")) {
    if ((await readFile(path, "utf8").catch(() => "")) !== text) stale.push(name);
  } else {
    await writeFile(path, text);
  }
}
if (stale.length > 0) {
  console.error(`${stale.join(", ")} not current: make bundles`);
  process.exit(1);
}
