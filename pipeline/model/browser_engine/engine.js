// Bergamot's WebAssembly, driven as a page drives it; the same code runs in Node (serve.mjs) and in a browser.

const GEMM = {
  int8_prepare_a: "int8PrepareAFallback",
  int8_prepare_b: "int8PrepareBFallback",
  int8_prepare_b_from_transposed: "int8PrepareBFromTransposedFallback",
  int8_prepare_b_from_quantized_transposed: "int8PrepareBFromQuantizedTransposedFallback",
  int8_prepare_bias: "int8PrepareBiasFallback",
  int8_multiply_and_add_bias: "int8MultiplyAndAddBiasFallback",
  int8_select_columns_of_b: "int8SelectColumnsOfBFallback",
};

/** Start the engine: `wasm` are its bytes, `loadGlue` runs bergamot-translator-worker.js in the global scope. */
export function startEngine(wasm, loadGlue) {
  return new Promise((resolve, reject) => {
    const engine = {
      // Errors of the engine end in abort(), with Marian's message on stderr.
      print: (line) => engine.messages.push(line),
      printErr: (line) => engine.messages.push(line),
      messages: [],
      onAbort: reject,
      instantiateWasm(imports, accept) {
        const gemm = Object.entries(GEMM).map(([name, own]) => [name, (...args) => engine.asm[own](...args)]);
        WebAssembly.instantiate(wasm, { ...imports, wasm_gemm: Object.fromEntries(gemm) })
          .then((result) => accept(result.instance))
          .catch(reject);
        return {};
      },
      onRuntimeInitialized: () => resolve(engine),
    };
    globalThis.Module = engine;
    loadGlue();
  });
}

/**
 * A model that translates. `files` has `model`, `vocabs` (one, or source and target), perhaps `shortlist` (all bytes),
 * and `options` (YAML).
 */
export function loadModel(engine, files) {
  const memory = (bytes, alignment) => {
    const aligned = new engine.AlignedMemory(bytes.length, alignment);
    aligned.getByteArrayView().set(bytes);
    return aligned;
  };
  return explained(engine, () => {
    const vocabs = new engine.AlignedMemoryList();
    for (const vocab of files.vocabs) vocabs.push_back(memory(vocab, 64));
    const shortlist = memory(files.shortlist ?? new Uint8Array(0), 64);
    const service = new engine.BlockingService({ cacheSize: 0 });
    const model = new engine.TranslationModel(files.options, memory(files.model, 256), shortlist, vocabs, null);
    return {
      /** Translate texts together; those of HTML keep their tags. */
      translate: (texts, html = false) => explained(engine, () => translate(engine, service, model, texts, html)),
      delete() {
        model.delete();
        service.delete();
      },
    };
  });
}

function translate(engine, service, model, texts, html) {
  const sources = new engine.VectorString();
  const options = new engine.VectorResponseOptions();
  for (const text of texts) {
    sources.push_back(text);
    options.push_back({ qualityScores: false, alignment: false, html });
  }
  const answers = service.translate(model, sources, options);
  const translations = texts.map((_, index) => answers.get(index).getTranslatedText());
  for (const object of [sources, options, answers]) object.delete();
  return translations;
}

/** What `work` returns; its errors tell what the engine wrote. */
function explained(engine, work) {
  engine.messages.length = 0;
  try {
    return work();
  } catch (error) {
    throw new Error([...engine.messages, String(error)].join("\n"));
  }
}
