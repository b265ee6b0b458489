import { createServer } from "node:net";

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { channelOptions, isLocalTarget } from "../src/channel.js";
import { onePixel, open, serve, served } from "./fakeServer.js";

describe("targets", () => {
  it.each([
    ...["localhost:1", "LOCALHOST:1", "localhost.:1", "a.localhost:1", "localhost", "127.8.9.1:1"],
    ...["0.0.0.0:1", "[::1]:1", "::1", "[::]:1", "[::ffff:127.0.0.1]:1", "[0:0:0:0:0:0:0:1]:1"],
    ...["dns:localhost:1", "dns:///localhost:1", "dns:///LocalHost", "dns://8.8.8.8/localhost:1"],
    ...["ipv4:127.0.0.1:1", "ipv4:127.0.0.1:1,127.0.0.2:2", "ipv6:[::1]:1", "unix:/a", "unix:a"],
  ])("%s is this machine", (target) => {
    expect(channelOptions(target, 1)["grpc.enable_http_proxy"]).toBe(0);
  });

  it.each([
    ...["example.org:1", "10.0.0.1:1", "localhost.example.org:1", "notlocalhost:1", "[fe80::1]:1"],
    ...[
      "dns:///example.org:1",
      "dns://127.0.0.1/example.org:1",
      "127.evil.org:1",
      "xds:///localhost",
    ],
    ...["ipv4:10.0.0.1:1", "ipv4:127.0.0.1:1,10.0.0.1:1", ""],
  ])("%s is another machine", (target) => {
    expect(isLocalTarget(target)).toBe(false);
  });
});

describe("with http_proxy", () => {
  const sample = () => ({ images: onePixel(1), seed: 1n, ...served });
  let connections = 0;
  const proxy = createServer((socket) => {
    connections += 1;
    socket.destroy();
  });

  beforeEach(async () => {
    await new Promise<void>((listening) => proxy.listen(0, "127.0.0.1", listening));
    const address = proxy.address();
    const port = typeof address === "object" ? (address?.port ?? 0) : 0;
    for (const name of ["grpc_proxy", "no_grpc_proxy", "no_proxy"]) vi.stubEnv(name, undefined);
    for (const name of ["http_proxy", "https_proxy"]) {
      vi.stubEnv(name, `http://127.0.0.1:${String(port)}`);
    }
  });

  afterEach(() => {
    vi.unstubAllEnvs();
    proxy.close();
  });

  it("calls to this machine make no connection to the proxy", async () => {
    const port = (await serve({ sample })).split(":").at(-1) ?? "";
    for (const target of [`ipv4:127.0.0.1:${port}`, `dns:///localhost:${port}`]) {
      await open(target).sample(1, { format: "uint8" });
    }
    expect(connections).toBe(0);
  });
});
