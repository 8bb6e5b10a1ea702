// Loads each GGUF file with llama.cpp and decodes a few tokens; prints one line of JSON per file.
//
//   node llama_check.mjs URL_OF_NODE_LLAMA_CPP TOKENS FILE…

const [library, wanted, ...paths] = process.argv.slice(2);
const {getLlama, LlamaLogLevel} = await import(library);

async function decode(llama, path) {
    const started = Date.now();
    const model = await llama.loadModel({modelPath: path, gpuLayers: 0});
    const context = await model.createContext({contextSize: 128, batchSize: 32});
    const prompt = model.tokenize("the light of the world");
    const tokens = [];
    const options = {temperature: 0, yieldEogToken: true};
    for await (const token of context.getSequence().evaluate(prompt, options)) {
        tokens.push(token);
        if (tokens.length === Number(wanted)) break;
    }
    const answer = {
        type: model.typeDescription,
        tensor_bytes: model.size,
        tokens,
        milliseconds: Date.now() - started
    };
    await context.dispose();
    await model.dispose();
    return answer;
}

const llama = await getLlama({
    gpu: false, build: "never", progressLogs: false, logLevel: LlamaLogLevel.error
});
for (const path of paths) {
    let answer;
    try {
        answer = await decode(llama, path);
    } catch (error) {
        answer = {error: String(error?.message ?? error)};
    }
    console.log(JSON.stringify({path, ...answer}));
}
process.exit(0); // the library's worker threads would keep the process alive
