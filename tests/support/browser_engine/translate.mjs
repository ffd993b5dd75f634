// node translate.mjs FOLDER_OF_THE_ENGINE JOBS.json: prints the translations of each job, as JSON.
// The jobs name files where engine.js wants bytes.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { runInThisContext } from "node:vm";
import { startEngine, translate } from "./engine.js";

const [folder, jobs] = process.argv.slice(2);
const worker = join(folder, "node_modules/@browsermt/bergamot-translator/worker");
globalThis.require = createRequire(import.meta.url); // the engine's own script is none of Node's modules
globalThis.__dirname = worker;

const script = join(worker, "bergamot-translator-worker.js");
const engine = await startEngine(readFileSync(join(worker, "bergamot-translator-worker.wasm")), () =>
  runInThisContext(readFileSync(script, "utf8"), { filename: script }),
);
const bytes = (path) => new Uint8Array(readFileSync(path));
const translations = JSON.parse(readFileSync(jobs, "utf8")).map((job) =>
  translate(engine, {
    ...job,
    model: bytes(job.model),
    vocabs: job.vocabs.map(bytes),
    shortlist: job.shortlist ? bytes(job.shortlist) : undefined,
  }),
);
process.stdout.write(JSON.stringify(translations));
