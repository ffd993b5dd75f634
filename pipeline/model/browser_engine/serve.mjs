// node serve.mjs WORKER_FOLDER: answers requests on stdin, a line of JSON each, by one line on stdout, until stdin ends.
//
//   {"load": {"model": PATH, "vocabs": [PATH, ...], "shortlist": PATH or null, "options": YAML}}   {}
//   {"translate": [TEXT, ...], "html": BOOLEAN}                                       {"translations": [TEXT, ...]}
//   {"peakMemory": true}                                                               {"bytes": NUMBER}
//
// Or {"error": TEXT}, and the process ends: after an error the engine's memory is in no known state.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { runInThisContext } from "node:vm";
import { loadModel, startEngine } from "./engine.js";

const [worker] = process.argv.slice(2);
const bytes = (path) => new Uint8Array(readFileSync(path));
let model;

async function start() {
  globalThis.require = createRequire(import.meta.url); // the engine's own script is none of Node's modules
  globalThis.__dirname = worker;
  const script = join(worker, "bergamot-translator-worker.js");
  return startEngine(bytes(join(worker, "bergamot-translator-worker.wasm")), () =>
    runInThisContext(readFileSync(script, "utf8"), { filename: script }),
  );
}

function load(engine, files) {
  model?.delete();
  model = loadModel(engine, {
    model: bytes(files.model),
    vocabs: files.vocabs.map(bytes),
    shortlist: files.shortlist ? bytes(files.shortlist) : undefined,
    options: files.options,
  });
  model.translate(["."]); // the engine reads its files when it translates first
  return {};
}

function peakMemory() {
  // Linux hands getrusage's peak on from the process that executed this one; VmHWM is this one's own.
  if (process.platform !== "linux") return { bytes: process.resourceUsage().maxRSS * 1024 };
  return { bytes: Number(/^VmHWM:\s*(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))[1]) * 1024 };
}

function answer(engine, request) {
  if (request.load) return load(engine, request.load);
  if (request.translate) return { translations: model.translate(request.translate, request.html) };
  if (request.peakMemory) return peakMemory();
  throw new Error(`no such request: ${Object.keys(request)}`);
}

// Ctrl-C is meant for who asks: stdin then ends.
process.on("SIGINT", () => {});
const write = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
try {
  const engine = await start();
  for await (const line of createInterface({ input: process.stdin })) write(answer(engine, JSON.parse(line)));
} catch (error) {
  process.exitCode = 1;
  write({ error: error?.message ?? String(error) });
  process.stdin.destroy();
}
