import { status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";

import { float32, fromGrpc, LatentserveError, uint8 } from "../src/index.js";
import * as pb from "../src/stubs.js";
import { connect, failure, onePixel, open, serve, served } from "./fakeServer.js";

const image = uint8(Uint8Array.of(7), [1, 1, 1, 1]);
const MAX_SEED = 2n ** 64n - 1n;

/** Returns the LatentserveError of a call. */
async function errorOf(call: Promise<unknown>): Promise<LatentserveError> {
  const error: unknown = await call.then(
    () => expect.fail("the call succeeded"),
    (problem: unknown) => problem,
  );
  expect(error).toBeInstanceOf(LatentserveError);
  return error as LatentserveError;
}

describe("requests and replies", () => {
  it("encode", async () => {
    const latents = {
      dataType: pb.DataType.DATA_TYPE_FLOAT32,
      shape: [1n, 1n],
      data: Buffer.from([0, 0, 0x80, 0x3f]),
    };
    const client = await connect(
      {
        encode: ({ request }) => {
          expect(request.model).toEqual({ name: "mnist-vae", version: 0 });
          expect(request.images).toEqual(onePixel(7));
          return {
            latents,
            logVariance: latents,
            seed: request.seed,
            servedBy: { name: "mnist-vae", version: 2, digest: "d", provider: "p" },
            timings: { queueNs: 1n, computeNs: 2n, batchRows: 3 },
          };
        },
      },
      { model: "mnist-vae" },
    );
    const result = await client.encode(image, { seed: MAX_SEED });
    expect(result.latents).toEqual(float32([1], [1, 1]));
    expect(result.logVariance).toEqual(float32([1], [1, 1]));
    expect(result.seed).toBe(MAX_SEED);
    expect(result.servedBy).toEqual({ name: "mnist-vae", version: 2, digest: "d", provider: "p" });
    expect(result.timings).toEqual({ queueNs: 1n, computeNs: 2n, batchRows: 3 });
  });

  it("absent fields are not sent", async () => {
    const client = await connect({
      sample: ({ request }) => {
        expect(request.seed).toBeUndefined();
        expect(request.temperature).toBeUndefined();
        expect(request.outputFormat).toBe(pb.ImageFormat.IMAGE_FORMAT_UINT8);
        return { images: onePixel(1), seed: 9n, ...served };
      },
    });
    const result = await client.sample(1, { format: "uint8" });
    expect(result.seed).toBe(9n);
    expect(result.latents).toBeUndefined();
    expect(result.images.data).toEqual(Uint8Array.of(1));
  });

  it("zero is sent", async () => {
    const client = await connect({
      sample: ({ request }) => {
        expect(request).toMatchObject({ seed: 0n, temperature: 0, offset: 2n ** 62n });
        expect(request.model).toEqual({ name: "mnist-vae", version: 3 });
        return { images: onePixel(1), seed: 0n, ...served };
      },
    });
    const options = { model: "mnist-vae:3", seed: 0, temperature: 0, offset: 2n ** 62n } as const;
    await client.sample(1, { ...options, format: "uint8" });
  });

  it("decode, reconstruct and denoise return their results", async () => {
    const client = await connect({
      decode: ({ request }) => {
        expect(request.latents?.shape).toEqual([1n, 3n]);
        return {
          images: { form: { $case: "encoded", value: { files: [Buffer.of(1, 2)] } } },
          ...served,
        };
      },
      reconstruct: ({ request }) => ({ images: request.images, squaredError: [0.5], ...served }),
      denoise: ({ request }) => ({ images: request.images, ...served }),
    });
    const decoded = await client.decode(float32([1, 2, 3], [1, 3]), { format: "png" });
    expect(decoded.images.map((file) => [...file])).toEqual([[1, 2]]);
    const again = await client.reconstruct(image, { format: "uint8" });
    expect(again.squaredError).toEqual(Float32Array.of(0.5));
    expect(again.images).toEqual(image);
    expect((await client.denoise(image, { format: "uint8" })).images).toEqual(image);
  });

  it("models", async () => {
    const vae = pb.Model.fromPartial({
      name: "mnist-vae",
      version: 2,
      state: 2,
      latent: { dim: 20, hasLogVariance: true },
      operations: [1, 77],
      likelihood: { family: "gaussian", sigma: 0.1 },
      limits: { maxStreamRows: 1n << 60n },
      metrics: [{ name: "a", value: 1, baseline: 0 }, { name: "b" }],
    });
    const client = await connect({
      listModels: () => ({ models: [vae, pb.Model.fromPartial({ state: 3 })], defaultModel: "x" }),
      getModel: ({ request }) => ({ model: pb.Model.fromPartial({ ...request.model }) }),
      reloadModels: (call) => {
        expect(Number(call.getDeadline()) - Date.now()).toBeGreaterThan(60_000);
        return { outcomes: [{ name: call.request.names[0], version: 1, action: 2, reason: "" }] };
      },
    });
    const list = await client.models();
    expect(list.default).toBe("x");
    expect(list.models[0]).toMatchObject({
      state: "ready",
      operations: ["encode", "77"],
      latent: { dim: 20, hasLogVariance: true },
      likelihood: { family: "gaussian", sigma: 0.1 },
      limits: { maxStreamRows: 1n << 60n },
      metrics: [{ baseline: 0 }, { baseline: undefined }],
    });
    expect(list.models[1]).toMatchObject({ state: "refused", likelihood: undefined });
    expect(await client.model("mnist-gan:4")).toMatchObject({ name: "mnist-gan", version: 4 });
    expect(await client.reloadModels(["mnist-gan"])).toEqual([
      { name: "mnist-gan", version: 1, action: "loaded", reason: "" },
    ]);
  });

  it("health", async () => {
    const client = await connect({
      check: ({ request }) => {
        if (request.service) throw Object.assign(new Error(), failure(status.NOT_FOUND, ""));
        return { status: 1 };
      },
      watch: (stream) => {
        stream.write({ status: 1 });
        stream.write({ status: 2 });
      },
    });
    expect(await client.health()).toBe("SERVING");
    const error = await errorOf(client.health("x"));
    expect(error.code).toBe("NOT_FOUND");
    expect(error.details).toBe('unknown service or model "x"');
    const seen: string[] = [];
    for await (const health of client.watchHealth()) {
      seen.push(health);
      if (seen.length === 2) break;
    }
    expect(seen).toEqual(["SERVING", "NOT_SERVING"]);
  });

  it("metadata of the client and of the call is sent", async () => {
    const client = await connect(
      {
        check: ({ metadata }) => {
          expect(metadata.getMap()).toMatchObject({ a: "1", b: "2" });
          return { status: 1 };
        },
      },
      { metadata: { a: "1", b: "1" } },
    );
    await client.health("", { metadata: { b: "2" } });
  });
});

describe("errors", () => {
  it("keep their details", async () => {
    const violations = [
      { field: "images.tensor.shape", description: "too tall" },
      { field: "model.version", description: "negative" },
    ];
    const client = await connect({
      reconstruct: () => {
        const metadata = { request_id: "abc" };
        const info = { reason: "INVALID_REQUEST", domain: "latentserve", metadata };
        const more = { info, violations, retryAfterMs: 1500 };
        throw Object.assign(new Error(), failure(status.INVALID_ARGUMENT, "two are wrong", more));
      },
    });
    const error = await errorOf(client.reconstruct(image));
    expect(error).toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "INVALID_REQUEST",
      domain: "latentserve",
      metadata: { request_id: "abc" },
      violations,
      retryAfterMs: 1500,
      message:
        "INVALID_ARGUMENT: two are wrong; images.tensor.shape: too tall; " +
        "model.version: negative; retry after 1500 ms",
    });
    expect(error.cause).toMatchObject({ code: status.INVALID_ARGUMENT });
  });

  it("ignore the details of another status", async () => {
    const info = { reason: "QUEUE_FULL", domain: "latentserve", metadata: {} };
    const client = await connect({
      check: () => {
        const other = { info, otherCode: status.RESOURCE_EXHAUSTED };
        throw Object.assign(new Error(), failure(status.INTERNAL, "a proxy", other));
      },
    });
    expect(await errorOf(client.health())).toMatchObject({ code: "INTERNAL", reason: "" });
  });

  it.each([
    ["QUEUE_FULL", "queue-full"],
    ["OPERATION_NOT_SUPPORTED", "operation-not-supported"],
    ["MODEL_NOT_FOUND", "model-not-found"],
    ["OTHER", undefined],
  ])("have a kind: %s", (reason, kind) => {
    const details = failure(status.ABORTED, "m", { info: { reason, domain: "", metadata: {} } });
    expect(fromGrpc(Object.assign(new Error(), details)).kind).toBe(kind);
  });

  it("of other libraries are rethrown", () => {
    expect(() => fromGrpc(new TypeError("mine"))).toThrow(TypeError);
  });

  it("of invalid arguments name the field", async () => {
    const client = await connect({});
    const calls: [string, () => Promise<unknown>][] = [
      ["count", () => client.sample(0)],
      ["count", () => client.sample(1.5)],
      ["offset", () => client.sample(1, { offset: -1 })],
      ["offset", () => client.sample(1, { offset: 2n ** 62n + 1n })],
      ["seed", () => client.sample(1, { seed: 2 ** 53 })],
      ["seed", () => client.sample(1, { seed: MAX_SEED + 1n })],
      ["temperature", () => client.sample(1, { temperature: NaN })],
      ["output_format", () => client.sample(1, { format: "gif" as "png" })],
      ["model", () => client.sample(1, { model: "mnist-vae:0" })],
      ["timeoutMs", () => client.sample(1, { timeoutMs: 0 })],
    ];
    for (const [field, call] of calls) {
      const error = await errorOf(call());
      expect(error.code).toBe("INVALID_ARGUMENT");
      expect(error.violations.map((violation) => violation.field)).toEqual([field]);
    }
    expect(() => client.sampleStream(1, { chunkRows: -1 })).toThrow("chunk_rows");
  });
});

it("accepts large messages up to its limit", async () => {
  const address = await serve({
    reconstruct: ({ request }) => ({ images: request.images, squaredError: [], ...served }),
  });
  const large = uint8(new Uint8Array(5 * 2 ** 20), [5, 1, 1024, 1024]);
  const result = await open(address).reconstruct(large, { format: "uint8" });
  expect(result.images.shape).toEqual([5, 1, 1024, 1024]);
  const small = open(address, {
    channelOptions: { "grpc.enable_retries": 0, "grpc.max_receive_message_length": 2 ** 20 },
  });
  expect(await errorOf(small.reconstruct(large, { format: "uint8" }))).toMatchObject({
    code: "RESOURCE_EXHAUSTED",
    kind: "message-too-large",
  });
});
