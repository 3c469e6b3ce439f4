// What a test file in JavaScript finds: test, given, script, assert. It is put before the file in one
// line, so that the lines of the file stay its author's: each statement here ends in ; or }, and
// comments have lines of their own.
const {test, given, script, assert, main} = (() => {
  const cases = [];
  const file = { given: undefined, script: undefined };
  const problems = [];

  // The line of the nearest caller outside of this one.
  const lineOf = (error) => {
    const text = String(error?.stack ?? "");
    const found = [...text.slice(text.indexOf("\n    at ")).matchAll(/\.test\.js:(\d+):\d+/g)];
    return found.map((it) => Number(it[1])).find((line) => line > 1) ?? 1;
  };
  const here = () => lineOf(new Error("here"));
  const wrong = (message) => problems.push({ line: here(), message });
  const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
  const shown = (value) => JSON.stringify(value) ?? String(value);

  const test = (name, parts = {}, check = undefined) => {
    if (typeof name !== "string") {
      wrong(`a test begins with its name: test("is on when ...", { given, when, then }), not ${shown(name)}`);
    } else if (typeof parts === "function") {
      wrong(`test(${shown(name)}): what it is given stands before the check: test(name, { given, when, then }, (run) => ...)`);
    } else if (!isObject(parts)) {
      wrong(`test(${shown(name)}): { given, when, then } is due, not ${shown(parts)}`);
    } else if (check !== undefined && typeof check !== "function") {
      wrong(`test(${shown(name)}): the check is a function, (run) => ..., not ${shown(check)}`);
    } else {
      cases.push({ line: here(), parts: { name, ...parts }, check });
    }
  };
  const given = (world) => {
    if (!isObject(world)) wrong(`given() takes an object such as { devices: { sensor: { open: true } } }, not ${shown(world)}`);
    else if (file.given !== undefined) wrong("given() stands twice; say all in one");
    else file.given = { line: here(), value: world };
  };
  const script = (name) => { file.script = { line: here(), value: name }; };

  const fail = (message, parts) => { throw Object.assign(new Error(message), { isAssertion: true, ...parts }); };
  const assert = (value, message = "the assertion does not hold") => { if (!value) fail(message); };
  const plain = (value) => {
    if (Array.isArray(value)) return value.map(plain);
    if (!isObject(value)) return value === undefined ? null : value;
    return Object.fromEntries(Object.keys(value).sort().map((key) => [key, plain(value[key])]));
  };
  assert.equal = (came, wanted, message = "not as expected") => {
    const [a, b] = [shown(plain(came)), shown(plain(wanted))];
    if (a !== b) fail(message, { came: a, wanted: b });
  };
  assert.match = (came, pattern, message = `it does not match ${pattern}`) => {
    if (!pattern.test(String(came))) fail(message, { came: shown(came), wanted: String(pattern) });
  };

  const judged = async ([number, run]) => {
    try {
      await cases[number].check(run);
      return null;
    } catch (error) {
      const told = error?.isAssertion ? error.message : `the check threw ${error}`;
      return { message: told, line: lineOf(error), came: error?.came, wanted: error?.wanted };
    }
  };
  const main = async (event) => {
    const found = [];
    if (event.runs === undefined) {
      for (const { line, parts, check } of cases) found.push({ line, parts, check: check !== undefined });
      console.log(JSON.stringify({ ...file, problems, cases: found }));
    } else {
      for (const run of event.runs) found.push(await judged(run));
      console.log(JSON.stringify(found));
    }
  };
  return { test, given, script, assert, main };
})();
