// The reference: the rule of `bench_runs` in Deno Workers, as fast as postMessage lets it go.
//
// Each line of stdin is JSON: {do: "warm", window, count, text} sends `count` messages to one Worker
// with at most `window` of them unanswered, as JSON text or as an object; {do: "fresh", count} starts
// a Worker for each message and ends it with the answer. The answer is {seconds: [...]} of each.
const RULE = `
const limit = Number("20");
self.onmessage = ({ data }) => {
  const text = typeof data === "string";
  const run = text ? JSON.parse(data) : data;
  const writes = [];
  if (run.read.sensor.temperature > limit) writes.push(["switch", "state", "ON"]);
  const answer = { id: run.id, writes };
  self.postMessage(text ? JSON.stringify(answer) : answer);
};
`;
const URL_OF_RULE = URL.createObjectURL(new Blob([RULE], { type: "text/javascript" }));
const made = () => new Worker(URL_OF_RULE, { type: "module" });
const message = (id) => ({ id, read: { sensor: { temperature: 25.5 } } });

function warm(worker, { window, count, text }) {
  const encode = text ? JSON.stringify : (value) => value;
  const decode = text ? JSON.parse : (value) => value;
  return new Promise((resolve) => {
    let sent = 0;
    let received = 0;
    worker.onmessage = ({ data }) => {
      if (decode(data).writes.length !== 1) throw new Error("the rule did not write");
      received += 1;
      if (sent < count) worker.postMessage(encode(message(sent++)));
      if (received === count) resolve({ seconds: [] });
    };
    while (sent < Math.min(window, count)) worker.postMessage(encode(message(sent++)));
  });
}

function one() {
  const began = performance.now();
  return new Promise((resolve) => {
    const worker = made();
    worker.onmessage = ({ data }) => {
      if (data.writes.length !== 1) throw new Error("the rule did not write");
      worker.terminate();
      resolve((performance.now() - began) / 1000);
    };
    worker.postMessage(message(0));
  });
}

async function fresh({ count }) {
  const seconds = [];
  for (let i = 0; i < count; i += 1) seconds.push(await one());
  return { seconds };
}

const kept = made();
let rest = "";
for await (const part of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + part).split("\n");
  rest = lines.pop();
  for (const line of lines) {
    const task = JSON.parse(line);
    const answer = task.do === "warm" ? await warm(kept, task) : await fresh(task);
    console.log(JSON.stringify(answer));
  }
}
kept.terminate();
