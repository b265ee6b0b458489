import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerWritableStream,
  type ServiceError,
  status,
  type StatusObject,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { onTestFinished } from "vitest";

import { Any } from "../src/generated/google/protobuf/any.js";
import { BadRequest, ErrorInfo, RetryInfo } from "../src/generated/google/rpc/error_details.js";
import { Status } from "../src/generated/google/rpc/status.js";
import { HealthService } from "../src/generated/grpc/health/v1/health.js";
import { Client, type ClientOptions } from "../src/index.js";
import { GenerativeServiceService, ModelServiceService } from "../src/stubs.js";
import * as pb from "../src/stubs.js";

/** One call as the server receives it. */
export interface Call<Request> {
  readonly request: Request;
  readonly metadata: Metadata;
  getDeadline(): Date | number;
  on(event: "cancelled", listener: () => void): unknown;
}

/** Handlers of a test, per method; each returns a reply or throws an error. */
export interface Handlers {
  encode?: (call: Call<pb.EncodeRequest>) => unknown;
  decode?: (call: Call<pb.DecodeRequest>) => unknown;
  reconstruct?: (call: Call<pb.ReconstructRequest>) => unknown;
  denoise?: (call: Call<pb.DenoiseRequest>) => unknown;
  sample?: (call: Call<pb.SampleRequest>) => unknown;
  listModels?: (call: Call<object>) => unknown;
  getModel?: (call: Call<pb.GetModelRequest>) => unknown;
  reloadModels?: (call: Call<pb.ReloadModelsRequest>) => unknown;
  check?: (call: Call<{ service: string }>) => unknown;
  /** Writes to the stream and ends it. */
  sampleStream?: (stream: ServerWritableStream<pb.SampleStreamRequest, unknown>) => void;
  watch?: (stream: ServerWritableStream<{ service: string }, unknown>) => void;
}

const STREAMS = ["sampleStream", "watch"];

/** Serves on a TCP connection until the end of the test; returns the address. */
export async function serve(
  handlers: Handlers,
  credentials = ServerCredentials.createInsecure(),
  wantedPort = 0,
): Promise<string> {
  const server = new Server({ "grpc.max_receive_message_length": 64 * 2 ** 20 });
  for (const service of [GenerativeServiceService, ModelServiceService, HealthService]) {
    const methods: UntypedServiceImplementation = {};
    for (const name of Object.keys(service)) {
      const handler = handlers[name as keyof Handlers] as ((call: unknown) => unknown) | undefined;
      if (handler) methods[name] = STREAMS.includes(name) ? handler : unary(handler);
    }
    server.addService(service, methods);
  }
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${wantedPort}`, credentials, (error, bound) => {
      if (error) reject(error);
      else resolve(bound);
    });
  });
  onTestFinished(() => {
    server.forceShutdown();
  });
  return `127.0.0.1:${port}`;
}

function unary(handler: (call: unknown) => unknown) {
  return (call: unknown, done: (error: Partial<StatusObject> | null, reply?: unknown) => void) => {
    void (async () => {
      try {
        done(null, await handler(call));
      } catch (error) {
        done(error as ServiceError);
      }
    })();
  };
}

/** Starts a server and returns a client of it. */
export async function connect(handlers: Handlers, options: ClientOptions = {}): Promise<Client> {
  return open(await serve(handlers), options);
}

export function open(address: string, options: ClientOptions = {}): Client {
  const client = new Client(address, options);
  onTestFinished(() => {
    client.close();
  });
  return client;
}

/** Returns an error as the server sends it, with its details. */
export function failure(
  code: status,
  details: string,
  more: {
    info?: ErrorInfo;
    violations?: { field: string; description: string }[];
    retryAfterMs?: number;
    pushbackMs?: number;
    /** Code of google.rpc.Status, if it differs from that of the call. */
    otherCode?: status;
  } = {},
): Partial<StatusObject> {
  const metadata = new Metadata();
  const any = (name: string, value: Uint8Array) =>
    Any.fromPartial({
      typeUrl: `type.googleapis.com/google.rpc.${name}`,
      value: Buffer.from(value),
    });
  const packed: Any[] = [];
  if (more.info) packed.push(any("ErrorInfo", ErrorInfo.encode(more.info).finish()));
  if (more.violations) {
    const bad = BadRequest.fromPartial({ fieldViolations: more.violations });
    packed.push(any("BadRequest", BadRequest.encode(bad).finish()));
  }
  if (more.retryAfterMs !== undefined) {
    const retryDelay = {
      seconds: BigInt(Math.trunc(more.retryAfterMs / 1000)),
      nanos: (more.retryAfterMs % 1000) * 1e6,
    };
    packed.push(any("RetryInfo", RetryInfo.encode({ retryDelay }).finish()));
  }
  if (packed.length > 0) {
    const handler = { code: more.otherCode ?? code, message: details, details: packed };
    metadata.set("grpc-status-details-bin", Buffer.from(Status.encode(handler).finish()));
  }
  if (more.pushbackMs !== undefined) {
    metadata.set("grpc-retry-pushback-ms", String(more.pushbackMs));
  }
  return { code, details, metadata };
}

/** Returns the images of a reply: one image of one pixel. */
export function onePixel(level: number): pb.Images {
  return {
    form: {
      $case: "tensor",
      value: {
        dataType: pb.DataType.DATA_TYPE_UINT8,
        shape: [1n, 1n, 1n, 1n],
        data: Buffer.from([level]),
      },
    },
  };
}

export const served = { servedBy: undefined, timings: undefined };

/** Returns an event that a test can wait for. */
export function signalled(): { promise: Promise<void>; signal: () => void } {
  let signal = (): void => undefined;
  const promise = new Promise<void>((resolve) => {
    signal = resolve;
  });
  return {
    promise,
    signal: () => {
      signal();
    },
  };
}
