// Which file of a package an import means: exactly the one it names.
import { Refused } from "./judge.js";

const GUESSES = [".js", ".mjs", "/index.js", ".json"];

function joined(folder, specifier) {
  const path = folder === "" ? [] : folder.split("/");
  for (const part of specifier.split("/")) {
    if (part === "..") {
      if (path.pop() === undefined) return undefined;
    } else if (part !== "." && part !== "") {
      path.push(part);
    }
  }
  return path.join("/");
}

export function resolve(specifier, importer, files, name) {
  const what = `import ${JSON.stringify(specifier)} in ${name(importer)}`;
  if (!/^\.\.?\//.test(specifier)) {
    const near = specifier.replace(/^\/+/, "");
    throw new Refused(
      `${what} is not a file of this package; `
      + (files.has(near) ? `write "./${near}"` : "bundle what comes from npm or the web with `scriptops build`"),
    );
  }
  const path = joined(importer.split("/").slice(0, -1).join("/"), specifier);
  if (path === undefined) throw new Refused(`${what} leads out of the package`);
  if (files.has(path)) {
    if (/\.(js|mjs|json)$/.test(path)) return path;
    throw new Refused(`${what} is no module: modules end in .js or .mjs, data in .json`);
  }
  if (files.size === 1) {
    throw new Refused(
      `${what} leads to another file, and this artifact is a single one; put the files into one zip, `
      + "or bundle them with `scriptops build`",
    );
  }
  const near = GUESSES.find((ending) => files.has(path + ending));
  throw new Refused(
    `${what} leads to ${path}, which is not in the package`
    + (near === undefined ? "" : `; write "${specifier}${near}"`),
  );
}
