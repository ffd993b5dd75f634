// What is typed goes to the worker sentence by sentence, and its answers into the other field.

const pair = document.getElementById("pair").dataset;
const source = document.getElementById("source");
const target = document.getElementById("target");
const state = document.getElementById("state");
const PAUSE = 120; // milliseconds without a key before it translates
const sentences = new Intl.Segmenter(pair.src, { granularity: "sentence" });
const words = new Intl.Segmenter(pair.src, { granularity: "word" });
const count = (text) => [...words.segment(text)].filter((word) => word.isWordLike).length;

for (const [id, language] of [["source-label", pair.src], ["target-label", pair.trg]]) {
  try {
    document.getElementById(id).textContent = new Intl.DisplayNames("en", { type: "language" }).of(language);
  } catch {
    // A code that the browser does not know stays as it is.
  }
}

const worker = new Worker("/try/worker.js");
const total = { words: 0, seconds: 0 };
let number = 0;
let pieces = []; // of the text that is being translated: {text} to translate, or {space}
let busy = false;
let again = false;
let timer;

/** Sentences, and the white space around them, which stays as it is. */
function split(text) {
  return [...sentences.segment(text)].flatMap(({ segment }) =>
    segment.split(/(\s*\n\s*)/).flatMap((part) => {
      const [, before, middle, after] = /^(\s*)([^]*?)(\s*)$/.exec(part);
      return [{ space: before }, ...(middle ? [{ text: middle }] : []), { space: after }];
    }),
  );
}

function translate() {
  if (busy) {
    again = true;
    return;
  }
  pieces = split(source.value);
  const texts = pieces.filter((piece) => piece.text).map((piece) => piece.text);
  if (!texts.length) {
    target.textContent = "";
    return;
  }
  busy = true;
  number += 1;
  state.textContent = "translating";
  worker.postMessage({ number, texts });
}

worker.onmessage = ({ data }) => {
  if (data.ready) {
    state.textContent = "ready";
    state.dataset.ready = "true";
    return;
  }
  busy = false;
  if (data.error) {
    state.textContent = data.error;
    state.className = "reason";
    return;
  }
  const answers = data.answers.values();
  target.textContent = pieces.map((piece) => (piece.text ? answers.next().value : piece.space)).join("");
  state.textContent = "ready";
  if (data.fresh.length) {
    total.words += data.fresh.reduce((sum, text) => sum + count(text), 0);
    total.seconds += data.seconds;
    document.getElementById("speed").textContent = Math.round(total.words / Math.max(total.seconds, 1e-3)).toLocaleString("en");
    document.getElementById("time").textContent = (1000 * data.seconds).toFixed(0);
    document.getElementById("words").textContent = total.words.toLocaleString("en");
  }
  if (again) {
    again = false;
    translate();
  }
};
worker.onerror = (event) => {
  state.textContent = event.message || "the engine's worker could not be loaded";
  state.className = "reason";
};
source.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(translate, PAUSE);
});
if (source.value) translate();
