/**
 * Example: samples eight digits into a PNG file, reconstructs one, and prints the error of an invalid
 * request.
 *
 *     npm run example -- --address 127.0.0.1:50051
 */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

import { encode as encodePng } from "fast-png";

import { Client, float32, LatentserveError, toBytes, type Tensor } from "../src/index.js";

/** Runs the example; returns the lines to print. */
export async function run(address: string, model: string, folder: string): Promise<string[]> {
  const client = new Client(address, { model });
  try {
    const lines: string[] = [];
    const sampled = await client.sample(8, { seed: 7n });
    const samples = join(folder, "samples.png");
    writeFileSync(samples, row(sampled.images));
    const { name, version } = sampled.servedBy;
    lines.push(`${samples}: 8 digits of ${name}:${version}, seed ${String(sampled.seed)}`);

    // Any PNG or JPEG file of the model's size works; this one was sampled above.
    const file = (await client.sample(1, { seed: 7n, format: "png" })).images;
    const reconstruction = await client.reconstruct(file);
    const reconstructed = join(folder, "reconstructed.png");
    writeFileSync(reconstructed, row(reconstruction.images));
    lines.push(
      `${reconstructed}: squared error ${reconstruction.squaredError[0]?.toFixed(3) ?? "?"}`,
    );

    try {
      await client.encode(float32(new Float32Array(32 * 28), [1, 1, 32, 28]));
      throw new Error("the server accepted an image that is too tall");
    } catch (error) {
      if (!(error instanceof LatentserveError)) throw error;
      lines.push(`expected error: ${error.message}`);
      for (const { field, description } of error.violations) {
        lines.push(`  ${field}: ${description}`);
      }
    }
    return lines;
  } finally {
    client.close();
  }
}

/** Returns a PNG file of greyscale images side by side. */
function row(images: Tensor): Uint8Array {
  const [count = 0, , height = 0, width = 0] = images.shape;
  const gap = 4;
  const across = count * (width + gap) - gap;
  const pixels = new Uint8Array(across * height);
  const levels = toBytes(images);
  for (let k = 0; k < count; k++) {
    for (let y = 0; y < height; y++) {
      const start = (k * height + y) * width;
      pixels.set(levels.subarray(start, start + width), y * across + k * (width + gap));
    }
  }
  return encodePng({ width: across, height, data: pixels, channels: 1 });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const { values } = parseArgs({
    options: {
      address: { type: "string", default: "127.0.0.1:50051" },
      model: { type: "string", default: "mnist-vae" },
      out: { type: "string", default: "." },
    },
  });
  console.log((await run(values.address, values.model, values.out)).join("\n"));
}
