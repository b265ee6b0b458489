import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { status } from "@grpc/grpc-js";
import { decode, encode } from "fast-png";
import { expect, it, onTestFinished } from "vitest";

import { run } from "../examples/digits.js";
import { DataType, ImageFormat, type Images } from "../src/stubs.js";
import { failure, serve, served } from "./fakeServer.js";

function pixels(count: number): Images {
  const dataType = DataType.DATA_TYPE_FLOAT32;
  const data = Buffer.alloc(4 * count * 28 * 28);
  return {
    form: { $case: "tensor", value: { dataType, shape: [BigInt(count), 1n, 28n, 28n], data } },
  };
}

it("runs", async () => {
  const folder = mkdtempSync(join(tmpdir(), "example-"));
  onTestFinished(() => {
    rmSync(folder, { recursive: true });
  });
  const png = Buffer.from(
    encode({ width: 28, height: 28, channels: 1, data: new Uint8Array(28 * 28) }),
  );
  const address = await serve({
    sample: ({ request }) => ({
      images:
        request.outputFormat === ImageFormat.IMAGE_FORMAT_PNG
          ? { form: { $case: "encoded", value: { files: [png] } } }
          : pixels(request.count),
      seed: request.seed,
      ...served,
    }),
    reconstruct: ({ request }) => {
      expect(request.images?.form).toEqual({ $case: "encoded", value: { files: [png] } });
      return { images: pixels(1), squaredError: [2.5], ...served };
    },
    encode: () => {
      const violations = [{ field: "images.tensor.shape", description: "too tall" }];
      throw Object.assign(new Error(), failure(status.INVALID_ARGUMENT, "wrong", { violations }));
    },
  });
  const text = (await run(address, "mnist-vae", folder)).join("\n");
  for (const part of [
    "8 digits",
    "seed 7",
    "squared error 2.500",
    "images.tensor.shape: too tall",
  ]) {
    expect(text).toContain(part);
  }
  expect(decode(readFileSync(join(folder, "samples.png")))).toMatchObject({
    width: 252,
    height: 28,
  });
  expect(decode(readFileSync(join(folder, "reconstructed.png"))).width).toBe(28);
});
