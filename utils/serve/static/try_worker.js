// Runs the browser's translation engine, so that the page stays quick while it computes.
// A classic worker: the engine's own script belongs into the global scope, where importScripts puts it.

const ENGINE = "/try/engine/";
const KEPT = 5000; // translated sentences
const translated = new Map();
let model;

const bytes = async (url) => {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${answer.statusText}`);
  return new Uint8Array(await answer.arrayBuffer());
};

async function load() {
  const { startEngine, loadModel } = await import(`${ENGINE}engine.js`);
  const [wasm, files] = await Promise.all([
    bytes(`${ENGINE}worker/bergamot-translator-worker.wasm`),
    fetch("/try/model.json").then((answer) => answer.json()),
  ]);
  const [weights, shortlist, ...vocabs] = await Promise.all([
    bytes(files.model),
    files.shortlist ? bytes(files.shortlist) : undefined,
    ...files.vocabs.map(bytes),
  ]);
  const engine = await startEngine(wasm, () => importScripts(`${ENGINE}worker/bergamot-translator-worker.js`));
  model = loadModel(engine, { model: weights, shortlist, vocabs, options: files.options });
  model.translate(["."]); // it reads its files when it translates first
}

/** Translate texts; those that were translated before are taken from memory, and do not count for the speed. */
function translate(texts) {
  const fresh = [...new Set(texts)].filter((text) => !translated.has(text));
  const started = performance.now();
  if (fresh.length) model.translate(fresh).forEach((answer, index) => translated.set(fresh[index], answer));
  const seconds = (performance.now() - started) / 1000;
  const answers = texts.map((text) => translated.get(text));
  for (const key of translated.keys()) {
    if (translated.size <= KEPT) break;
    translated.delete(key);
  }
  return { answers, fresh, seconds };
}

const loaded = load();
loaded.then(() => postMessage({ ready: true }), (error) => postMessage({ error: String(error?.message ?? error) }));
onmessage = async ({ data }) => {
  try {
    await loaded;
    postMessage({ number: data.number, ...translate(data.texts) });
  } catch (error) {
    postMessage({ number: data.number, error: String(error?.message ?? error) });
  }
};
