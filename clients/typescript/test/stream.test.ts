import type { ServerWritableStream } from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";

import type { SampleChunk } from "../src/index.js";
import type { SampleStreamRequest } from "../src/stubs.js";
import { connect, failure, onePixel, served, signalled } from "./fakeServer.js";

type Stream = ServerWritableStream<SampleStreamRequest, unknown>;

/** Streams one image per row of the seed's sequence of samples. */
function rows(stream: Stream): void {
  const { offset, count, seed = 0n } = stream.request;
  for (let row = offset; row < offset + count; row++) {
    stream.write({ images: onePixel(Number(row)), seed, offset: row, ...served });
  }
  stream.end();
}

function levelOf(chunk: SampleChunk<"uint8">): number {
  return chunk.images.data[0] ?? -1;
}

describe("a stream", () => {
  it("can be cancelled and resumed", async () => {
    const client = await connect({ sampleStream: rows });
    const got: number[] = [];
    let offset = 10n;
    for await (const chunk of client.sampleStream(5, { seed: 3n, offset, format: "uint8" })) {
      expect(chunk.seed).toBe(3n);
      got.push(levelOf(chunk));
      offset = chunk.nextOffset;
      if (got.length === 2) break;
    }
    for await (const chunk of client.sampleStream(3, { seed: 3n, offset, format: "uint8" })) {
      got.push(levelOf(chunk));
    }
    expect(got).toEqual([10, 11, 12, 13, 14]);
  });

  it("is cancelled by leaving the loop", async () => {
    const over = signalled();
    const client = await connect({
      sampleStream: (stream) => {
        stream.on("cancelled", over.signal);
        stream.write({ images: onePixel(1), seed: 1n, offset: 0n, ...served });
      },
    });
    for await (const chunk of client.sampleStream(2, { format: "uint8", timeoutMs: 3_600_000 })) {
      expect(levelOf(chunk)).toBe(1);
      break;
    }
    await over.promise;
  });

  it("that fails yields its chunks, then the error", async () => {
    const client = await connect({
      sampleStream: (stream) => {
        stream.write({ images: onePixel(1), seed: 1n, offset: 0n, ...served });
        stream.emit("error", failure(status.UNAVAILABLE, "draining"));
      },
    });
    let chunks = 0;
    const reading = async () => {
      for await (const chunk of client.sampleStream(2, { format: "uint8" })) {
        chunks += levelOf(chunk);
      }
    };
    await expect(reading()).rejects.toMatchObject({ code: "UNAVAILABLE", details: "draining" });
    expect(chunks).toBe(1);
  });

  it("with an invalid reply is cancelled", async () => {
    const over = signalled();
    const client = await connect({
      sampleStream: (stream) => {
        stream.on("cancelled", over.signal);
        stream.write({ images: undefined, seed: 1n, offset: 0n, ...served });
      },
    });
    await expect(client.sampleStream(1).next()).rejects.toMatchObject({ kind: "bad-reply" });
    await over.promise;
  });

  it("is aborted by a signal", async () => {
    const controller = new AbortController();
    const client = await connect({
      sampleStream: (stream) => {
        stream.write({ images: onePixel(1), seed: 1n, offset: 0n, ...served });
      },
    });
    const { signal } = controller;
    const reading = async () => {
      for await (const chunk of client.sampleStream(2, { format: "uint8", signal })) {
        expect(levelOf(chunk)).toBe(1);
        controller.abort(new Error("enough"));
      }
    };
    await expect(reading()).rejects.toMatchObject({
      code: "CANCELLED",
      cause: { message: "enough" },
    });
  });
});

describe("a call", () => {
  it("is aborted by a signal", async () => {
    const controller = new AbortController();
    const over = signalled();
    const client = await connect({
      sample: (call) => {
        call.on("cancelled", over.signal);
        controller.abort(new Error("enough"));
        return new Promise(() => undefined); // never replies
      },
    });
    await expect(client.sample(1, { signal: controller.signal })).rejects.toMatchObject({
      code: "CANCELLED",
      cause: { message: "enough" },
    });
    await over.promise;
    // With an aborted signal, nothing is sent.
    const again = client.sample(1, { signal: controller.signal });
    await expect(again).rejects.toMatchObject({ details: "cancelled before the call was sent" });
  });

  it("has the timeout of the client, or its own", async () => {
    const held = () => new Promise(() => undefined);
    const client = await connect({ sample: held }, { timeoutMs: 50 });
    await expect(client.sample(1)).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    const patient = await connect({
      sample: (call) => {
        expect(Number(call.getDeadline()) - Date.now()).toBeGreaterThan(1_800_000);
        return { images: onePixel(1), seed: 1n, ...served };
      },
    });
    await patient.sample(1, { format: "uint8", timeoutMs: 3_600_000 });
  });
});
