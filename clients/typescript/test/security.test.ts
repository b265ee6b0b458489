import { ServerCredentials } from "@grpc/grpc-js";
import { generate } from "selfsigned";
import { describe, expect, it } from "vitest";

import { Client } from "../src/index.js";
import { onePixel, open, serve, served } from "./fakeServer.js";

interface Pair {
  readonly cert: string;
  readonly private: string;
}

const authority = (name: string) =>
  generate([{ name: "commonName", value: name }], {
    keyType: "ec",
    algorithm: "sha256",
    extensions: [
      { name: "basicConstraints", cA: true },
      { name: "keyUsage", keyCertSign: true, digitalSignature: true },
    ],
  });

const signed = (name: string, ca: Pair) =>
  generate([{ name: "commonName", value: name }], {
    keyType: "ec",
    algorithm: "sha256",
    ca: { key: ca.private, cert: ca.cert },
    extensions: [
      { name: "extKeyUsage", serverAuth: true, clientAuth: true },
      { name: "subjectAltName", altNames: [{ type: 2, value: "localhost" }] },
    ],
  });

/** Returns a handler of Sample that records the token. */
function recordingToken() {
  const seen: unknown[] = [];
  return {
    seen,
    sample: ({ metadata }: { metadata: { get(key: string): unknown[] } }) => {
      seen.push(...metadata.get("authorization"));
      return { images: onePixel(1), seed: 1n, ...served };
    },
  };
}

const once = { "grpc.enable_retries": 0 };

describe("TLS", () => {
  it("accepts a custom authority, a client certificate and a token", async () => {
    const ca = await authority("ours");
    const server = await signed("server", ca);
    const mine = await signed("client", ca);
    const handlers = recordingToken();
    const address = await serve(
      handlers,
      ServerCredentials.createSsl(
        Buffer.from(ca.cert),
        [{ private_key: Buffer.from(server.private), cert_chain: Buffer.from(server.cert) }],
        true,
      ),
    );
    const sample = (tls: { ca: string; cert?: string; key?: string }) =>
      open(address.replace("127.0.0.1", "localhost"), {
        tls,
        token: "secret",
        channelOptions: once,
      }).sample(1, { format: "uint8" });
    const identity = { cert: mine.cert, key: mine.private };
    await sample({ ca: ca.cert, ...identity });
    expect(handlers.seen).toEqual(["Bearer secret"]);
    await expect(sample({ ca: ca.cert })).rejects.toMatchObject({ code: "UNAVAILABLE" });
    const stranger = await authority("theirs");
    await expect(sample({ ca: stranger.cert, ...identity })).rejects.toMatchObject({
      code: "UNAVAILABLE",
      details: expect.stringContaining("certificate") as string,
    });
    expect(handlers.seen).toHaveLength(1);
  });

  it("requires a certificate and its key together", () => {
    expect(() => new Client("a:1", { tls: { cert: "x" } })).toThrow("vice versa");
  });
});

describe("a token", () => {
  it("requires TLS", () => {
    expect(() => new Client("a:1", { token: "secret" })).toThrow("allowInsecureToken");
  });

  it("is sent without TLS if allowed", async () => {
    const handlers = recordingToken();
    const client = open(await serve(handlers), { token: "secret", allowInsecureToken: true });
    await client.sample(1, { format: "uint8" });
    expect(handlers.seen).toEqual(["Bearer secret"]);
  });
});

it.each([{ model: "mnist-vae:new" }, { timeoutMs: 0 }, { maxMessageBytes: 0 }])(
  "a client refuses %o",
  (options) => {
    expect(() => new Client("a:1", options)).toThrow("expected");
  },
);
