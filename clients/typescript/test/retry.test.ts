import { createServer } from "node:net";

import { connectivityState, ServerCredentials, status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";

import { serviceConfig } from "../src/channel.js";
import { type Client, type ClientOptions, uint8 } from "../src/index.js";
import { connect, failure, onePixel, open, serve, served } from "./fakeServer.js";

interface Row {
  name: string;
  call?: (client: Client) => Promise<unknown>;
  code?: status;
  times?: number;
  pushbackMs?: number;
  options?: ClientOptions;
  attempts: number;
  fails?: boolean;
}

const reconstruct = (client: Client) =>
  client.reconstruct(uint8(Uint8Array.of(7), [1, 1, 1, 1]), { format: "uint8" });
const large = (client: Client) =>
  client.reconstruct(uint8(new Uint8Array(2 ** 21), [2, 1, 1024, 1024]), { format: "uint8" });
const stream = (client: Client) => client.sampleStream(1, { format: "uint8" }).next();
const models = (client: Client) => client.models();
const health = (client: Client) => client.health();
const noRetries = { channelOptions: { "grpc.enable_retries": 0 } };

describe("retries", () => {
  it.each<Row>([
    { name: "unavailable", times: 3, attempts: 4 },
    { name: "fails after four attempts", times: 9, attempts: 4, fails: true },
    { name: "queue full", code: status.RESOURCE_EXHAUSTED, attempts: 2 },
    { name: "cancelled by the server", code: status.CANCELLED, attempts: 2 },
    { name: "a large request", call: large, attempts: 2 },
    { name: "a stream", call: stream, attempts: 2 },
    { name: "negative pushback", pushbackMs: -1, attempts: 1, fails: true },
    { name: "an invalid request", code: status.INVALID_ARGUMENT, attempts: 1, fails: true },
    { name: "an internal error", code: status.INTERNAL, attempts: 1, fails: true },
    { name: "models", call: models, attempts: 2 },
    {
      name: "models, resource exhausted",
      call: models,
      code: status.RESOURCE_EXHAUSTED,
      attempts: 1,
      fails: true,
    },
    { name: "health", call: health, attempts: 1, fails: true },
    { name: "retries disabled", options: noRetries, attempts: 1, fails: true },
  ])("$name", async ({ call = reconstruct, times = 1, attempts, fails = false, ...row }) => {
    const { code = status.UNAVAILABLE, pushbackMs = 1 } = row;
    let seen = 0;
    const refusal = () => Object.assign(new Error(), failure(code, "refused", { pushbackMs }));
    const refuse = () => {
      if (++seen <= times) throw refusal();
    };
    const client = await connect(
      {
        reconstruct: ({ request }) => {
          refuse();
          return { images: request.images, squaredError: [], ...served };
        },
        listModels: () => {
          refuse();
          return { models: [], defaultModel: "" };
        },
        check: () => {
          refuse();
          return { status: 1 };
        },
        sampleStream: (replies) => {
          if (++seen <= times) {
            replies.emit("error", refusal());
          } else {
            replies.write({ images: onePixel(1), seed: 1n, offset: 0n, ...served });
            replies.end();
          }
        },
      },
      row.options,
    );
    const outcome = call(client);
    if (fails) await expect(outcome).rejects.toMatchObject({ code: status[code] });
    else await outcome;
    expect(seen).toBe(attempts);
  });

  it("are the same for one server and for several", () => {
    expect(serviceConfig("a:1")).toMatchObject({ loadBalancingConfig: [] });
    const many = serviceConfig("dns:///a:1");
    expect(many).toMatchObject({ loadBalancingConfig: [{ round_robin: {} }] });
    expect(many).toEqual({ ...serviceConfig("a:1"), loadBalancingConfig: [{ round_robin: {} }] });
  });
});

/** Returns a closed port. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (typeof address !== "object" || !address) throw new Error("no port");
  return address.port;
}

describe("an unreachable server", () => {
  it("is an error", async () => {
    const client = open(`127.0.0.1:${await freePort()}`, noRetries);
    await expect(client.health()).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  it("is waited for with waitForReady", async () => {
    const port = await freePort();
    const client = open(`127.0.0.1:${port}`, { waitForReady: true });
    const health = client.health();
    const { channel } = client;
    let state = channel.getConnectivityState(true);
    while (state !== connectivityState.TRANSIENT_FAILURE) {
      await new Promise((resolve) => {
        channel.watchConnectivityState(state, Infinity, resolve);
      });
      state = channel.getConnectivityState(true);
    }
    await serve({ check: () => ({ status: 1 }) }, ServerCredentials.createInsecure(), port);
    expect(await health).toBe("SERVING");
  });
});
