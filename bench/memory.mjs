// Loads each GGUF file with llama.cpp at a context, with flash attention, its own default; prints one line of JSON per file with the
// buffers that llama.cpp says it allocated, in bytes by kind.
//
//   node memory.mjs URL_OF_NODE_LLAMA_CPP CONTEXT FILE…

const [library, context, ...paths] = process.argv.slice(2);
const {getLlama, LlamaLogLevel} = await import(library);
const MIB = 1024 * 1024;
// "llama_kv_cache:        CPU KV buffer size =     2.00 MiB"
const BUFFER = /\b(model|KV|compute|output|RS)\s+buffer size\s*=\s*([\d.]+) MiB/;

let buffers = {};
const llama = await getLlama({
    gpu: false, build: "never", progressLogs: false, logLevel: LlamaLogLevel.debug,
    logger: (level, message) => {
        for (const line of message.split("\n")) {
            const found = BUFFER.exec(line);
            if (found) buffers[found[1]] = (buffers[found[1]] ?? 0) + Number(found[2]) * MIB;
        }
    }
});
for (const path of paths) {
    buffers = {};
    const model = await llama.loadModel({modelPath: path, gpuLayers: 0});
    const size = Math.min(Number(context), model.trainContextSize);
    const made = await model.createContext({contextSize: size, batchSize: 512, flashAttention: true});
    for (let tries = 0; tries < 100 && !buffers.compute; tries++) {
        await new Promise((resolve) => setTimeout(resolve, 20)); // its words arrive later
    }
    console.log(JSON.stringify({path, context: size, buffers}));
    await made.dispose();
    await model.dispose();
}
process.exit(0); // the library's worker threads would keep the process alive
