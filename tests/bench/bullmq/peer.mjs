// The peer of the queue benchmarks: BullMQ on a redis-server with the same settings.
//   node peer.mjs bulk SOCKET JOBS         add in bulks of 1,000, process with concurrency 200
//   node peer.mjs single SOCKET JOBS       the same, each job with a call of its own, 1,000 in flight
//   node peer.mjs latency SOCKET JOBS      add one, wait for its result, add the next
// Prints one JSON object.
import { performance } from "node:perf_hooks";
import { Queue, QueueEvents, Worker } from "bullmq";

const [mode, socket, count] = process.argv.slice(2);
const jobs = Number(count);
const connection = { path: socket, maxRetriesPerRequest: null };

const queue = new Queue("bench", { connection });
await queue.waitUntilReady();

async function throughput(bulks) {
  let done = 0;
  let finish;
  const finished = new Promise((resolve) => { finish = resolve; });
  const worker = new Worker("bench", async () => "", { connection, concurrency: 200 });
  worker.on("completed", () => { if (++done === jobs) finish(); });
  await worker.waitUntilReady();
  const started = performance.now();
  const options = { removeOnComplete: true };
  for (let at = 0; at < jobs; at += 1000) {
    const bulk = [];
    for (let i = at; i < Math.min(at + 1000, jobs); i++)
      bulk.push({ name: "job", data: { prompt: "x".repeat(100) }, opts: options });
    if (bulks) await queue.addBulk(bulk);
    else await Promise.all(bulk.map((job) => queue.add(job.name, job.data, job.opts)));
  }
  await finished;
  const seconds = (performance.now() - started) / 1000;
  await worker.close();
  return { jobs, seconds, per_second: jobs / seconds };
}

async function latency() {
  const events = new QueueEvents("bench", { connection });
  const worker = new Worker("bench", async () => "", { connection, concurrency: 200 });
  await Promise.all([events.waitUntilReady(), worker.waitUntilReady()]);
  const samples = [];
  for (let i = 0; i < jobs; i++) {
    const started = performance.now();
    const job = await queue.add("job", { prompt: "x".repeat(100) }, { removeOnComplete: 100 });
    await job.waitUntilFinished(events);
    samples.push(performance.now() - started);
  }
  samples.sort((a, b) => a - b);
  const at = (q) => samples[Math.min(samples.length - 1, Math.floor(q * samples.length))];
  await worker.close();
  await events.close();
  return { jobs, p50_ms: at(0.5), p99_ms: at(0.99) };
}

const result = await (mode === "latency" ? latency() : throughput(mode === "bulk"));
console.log(JSON.stringify(result));
await queue.close();
process.exit(0);
