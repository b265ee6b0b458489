/**
 * Benchmark of single-image reconstruct through the client: the median latency with one call in
 * flight, then calls per second with 32 in flight. Prints one line of JSON.
 *
 *     npm run bench -- --address 127.0.0.1:50051 --model mnist-vae --seconds 5
 */

import { parseArgs } from "node:util";

import { Client, float32 } from "../src/index.js";

const IN_FLIGHT = 32;
const WARM_UP_CALLS = 200;

type Call = () => Promise<unknown>;

/** Returns the median latency with one call in flight, in microseconds. */
async function oneByOne(call: Call, seconds: number): Promise<number> {
  const times: number[] = [];
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end) {
    const start = performance.now();
    await call();
    times.push((performance.now() - start) * 1000);
  }
  times.sort((a, b) => a - b);
  return times[times.length >> 1] ?? NaN;
}

/** Returns the calls per second with 32 in flight. */
async function together(call: Call, seconds: number): Promise<number> {
  const start = performance.now();
  const end = start + seconds * 1000;
  let calls = 0;
  const caller = async () => {
    while (performance.now() < end) {
      await call();
      calls++;
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, caller));
  return calls / ((performance.now() - start) / 1000);
}

const { values } = parseArgs({
  options: {
    address: { type: "string", default: "127.0.0.1:50051" },
    model: { type: "string", default: "mnist-vae" },
    seconds: { type: "string", default: "5" },
  },
});
const seconds = Number(values.seconds);
if (!(seconds > 0)) throw new Error(`--seconds ${values.seconds}; expected a positive number`);
const client = new Client(values.address, { model: values.model });
try {
  const { channels, height, width } = (await client.model()).image;
  const size = channels * height * width;
  const ramp = Float32Array.from({ length: size }, (_, i) => i / size);
  const image = float32(ramp, [1, channels, height, width]);
  const call = () => client.reconstruct(image);
  for (let i = 0; i < WARM_UP_CALLS; i++) await call();
  const p50_us = await oneByOne(call, seconds);
  const calls_per_s = await together(call, seconds);
  console.log(JSON.stringify({ language: "typescript", p50_us, calls_per_s }));
} finally {
  client.close();
}
