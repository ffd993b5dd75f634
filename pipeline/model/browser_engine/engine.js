// Bergamot's WebAssembly, driven as a page drives it; the same code runs in Node (translate.mjs) and in a browser
// (page.html).

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
 * Translate sentences, one at a time, so that none depends on its neighbours.
 * A job has `model`, `vocabs` (one, or source and target), perhaps `shortlist` (all bytes), `options` (YAML) and
 * `sentences`.
 */
export function translate(engine, job) {
  const memory = (bytes, alignment) => {
    const aligned = new engine.AlignedMemory(bytes.length, alignment);
    aligned.getByteArrayView().set(bytes);
    return aligned;
  };
  const vocabs = new engine.AlignedMemoryList();
  for (const vocab of job.vocabs) vocabs.push_back(memory(vocab, 64));
  const shortlist = memory(job.shortlist ?? new Uint8Array(0), 64);
  const service = new engine.BlockingService({ cacheSize: 0 });
  try {
    const model = new engine.TranslationModel(job.options, memory(job.model, 256), shortlist, vocabs, null);
    const translations = job.sentences.map((sentence) => {
      const sources = new engine.VectorString();
      const options = new engine.VectorResponseOptions();
      sources.push_back(sentence);
      options.push_back({ qualityScores: false, alignment: false, html: false });
      const answers = service.translate(model, sources, options);
      const text = answers.get(0).getTranslatedText();
      for (const object of [sources, options, answers]) object.delete();
      return text;
    });
    model.delete();
    return translations;
  } catch (error) {
    throw new Error([String(error), ...engine.messages].join("\n"));
  } finally {
    service.delete();
  }
}
