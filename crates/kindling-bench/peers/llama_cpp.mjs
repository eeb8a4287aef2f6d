// Times llama.cpp on the CPU: FILE PROMPT_TOKENS NEW_TOKENS THREADS. The last line is JSON: medians of three repetitions, before which one warms up.
import { getLlama } from "node-llama-cpp";

const [file, nPrompt, nNew, threads] = [process.argv[2], ...process.argv.slice(3).map(Number)];
const llama = await getLlama({ gpu: false, build: "never", maxThreads: threads, logLevel: "error" });
const model = await llama.loadModel({ modelPath: file });
const context = await model.createContext({ threads, batchSize: 512, contextSize: 1024 });
const sequence = context.getSequence();
const [prompts, news] = [[], []];
const middle = values => values.sort((a, b) => a - b)[1];

for (let repetition = 0; repetition < 4; repetition++) {
  await sequence.clearHistory();
  const prompt = Array.from({ length: nPrompt }, (_, i) => (repetition * 104729 + i * 15485863 + 11) % 50256);
  let n = 0;
  let begun = 0;
  const start = performance.now();
  for await (const _ of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    if (n === 0) begun = performance.now();
    n += 1;
    if (n === nNew) break;
  }
  const end = performance.now();
  if (repetition > 0) {
    prompts.push((1000 * nPrompt) / (begun - start));
    news.push((1000 * (n - 1)) / (end - begun));
  }
}
console.log(JSON.stringify({ prompt_tokens_per_s: middle(prompts), new_tokens_per_s: middle(news) }));
process.exit(0);
