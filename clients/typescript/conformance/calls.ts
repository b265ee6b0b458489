import { readFileSync } from "node:fs";

import {
  Client,
  type Format,
  type Formats,
  type Images,
  type ImagesResult,
  type SampleChunk,
  type SampleResult,
  type ServedBy,
  type Tensor,
  type Timings,
} from "../src/index.js";
import { type Case, type CaseFolder, type CaseRequest, methodOf } from "./cases.js";

export const DEFAULT_DEADLINE_MS = 20_000;

/** Reply of GenerativeService, or one message of a stream; undefined for absent fields. */
export interface Part {
  readonly images?: Formats[Format];
  readonly latents?: Tensor | undefined;
  readonly logVariance?: Tensor | undefined;
  readonly squaredError?: Tensor | undefined;
  readonly seed?: bigint | undefined;
  readonly offset?: bigint;
  readonly servedBy: ServedBy;
  readonly timings: Timings;
}

/** Result of a call: parts of GenerativeService, or the value of another service. */
export type CallResult = { readonly parts: readonly Part[] } | { readonly value: unknown };

/** One client per server of a servers file, with and without retries. */
export class Clients {
  readonly #addresses: Readonly<Record<string, string>>;
  readonly #clients = new Map<string, Client>();

  constructor(file: string) {
    const { servers } = JSON.parse(readFileSync(file, "utf8")) as {
      servers: Record<string, string>;
    };
    this.#addresses = servers;
  }

  address(test: Case): string {
    const address = this.#addresses[test.server];
    if (!address) throw new Error(`the servers file has no server "${test.server}"`);
    return address;
  }

  of(test: Case): Client {
    const retry = test.retry ?? false;
    const key = `${test.server} ${String(retry)}`;
    let client = this.#clients.get(key);
    if (!client) {
      const channelOptions = { "grpc.enable_retries": Number(retry) };
      client = new Client(this.address(test), { channelOptions });
      this.#clients.set(key, client);
    }
    return client;
  }

  close(): void {
    for (const client of this.#clients.values()) client.close();
  }
}

/** Executes the call of a case through the public client. */
export async function callThroughClient(
  client: Client,
  test: Case,
  folder: CaseFolder,
): Promise<CallResult> {
  const request = test.request ?? {};
  const options = {
    timeoutMs: test.deadline_ms ?? DEFAULT_DEADLINE_MS,
    metadata: test.metadata ?? {},
  };
  const model = modelName(request);
  switch (methodOf(test)) {
    case "ListModels":
      return { value: await client.models(options) };
    case "GetModel":
      return { value: await client.model(model, options) };
    case "ReloadModels":
      return { value: await client.reloadModels(request.names, options) };
    case "Check":
      return { value: await client.health(request.service, options) };
    case "Watch":
      for await (const value of client.watchHealth(request.service, options)) return { value };
      throw new Error("Watch ended without a status");
    default:
      return generative(
        client,
        test,
        folder,
        model === undefined ? options : { ...options, model },
      );
  }
}

interface Options {
  readonly timeoutMs: number;
  readonly metadata: Readonly<Record<string, string>>;
  readonly model?: string;
}

async function generative(
  client: Client,
  test: Case,
  folder: CaseFolder,
  options: Options,
): Promise<CallResult> {
  const request = test.request ?? {};
  const format = (request.output_format ?? "FLOAT32").toLowerCase() as Format;
  switch (methodOf(test)) {
    case "Encode": {
      const seed = request.seed === undefined ? {} : { seed: BigInt(request.seed) };
      const result = await client.encode(imagesOf(request, folder), { ...options, ...seed });
      return { parts: [result] };
    }
    case "Decode": {
      if (!request.latents) throw new Error("the case has no latents");
      const result = await client.decode(folder.tensor(request.latents), { ...options, format });
      return { parts: [result] };
    }
    case "Reconstruct": {
      const result = await client.reconstruct(imagesOf(request, folder), { ...options, format });
      const { squaredError } = result;
      const tensor = {
        dtype: "float32",
        shape: [squaredError.length],
        data: squaredError,
      } as const;
      return { parts: [{ ...served(result), squaredError: tensor }] };
    }
    case "Denoise":
      return {
        parts: [await client.denoise(imagesOf(request, folder), { ...options, format })],
      };
    case "Sample": {
      const count = Number(request.count);
      const result = await client.sample(count, { ...options, ...sampleOptions(request), format });
      return { parts: [samplePart(result)] };
    }
    case "SampleStream":
      return {
        parts: await stream(client, test, { ...options, ...sampleOptions(request), format }),
      };
    default:
      throw new Error(`the client has no method ${test.rpc}`);
  }
}

type StreamOptions = Options & ReturnType<typeof sampleOptions> & { readonly format: Format };

/** Reads a stream; cancels and resumes it if the case requires that. */
async function stream(client: Client, test: Case, options: StreamOptions): Promise<Part[]> {
  const count = Number(test.request?.count);
  if (!test.stream) return chunks(client.sampleStream(count, options), Infinity);
  const { cancel_after, resume } = test.stream;
  const parts = await chunks(client.sampleStream(count, options), cancel_after);
  if (parts.length < cancel_after) throw new Error("the stream ended before the cancellation");
  if (!resume) return parts;
  const rows = parts.reduce((sum, { images }) => sum + rowsOf(images), 0);
  const offset = (options.offset ?? 0n) + BigInt(rows);
  const rest = client.sampleStream(count - rows, { ...options, offset });
  return [...parts, ...(await chunks(rest, Infinity))];
}

async function chunks(
  items: AsyncGenerator<SampleChunk<Format>, void, undefined>,
  limit: number,
): Promise<Part[]> {
  const parts: Part[] = [];
  for await (const chunk of items) {
    parts.push({ ...samplePart(chunk), offset: chunk.offset });
    if (parts.length === limit) break;
  }
  return parts;
}

function samplePart(result: SampleResult<Format>): Part {
  return { ...served(result), seed: result.seed, latents: result.latents };
}

function served({ images, servedBy, timings }: ImagesResult<Format>): Part {
  return { images, servedBy, timings };
}

export function rowsOf(images: Formats[Format] | undefined): number {
  if (!images) return 0;
  return "dtype" in images ? (images.shape[0] ?? 0) : images.length;
}

function modelName({ model }: CaseRequest): string | undefined {
  if (!model) return undefined;
  const version = model.version === undefined ? "" : `:${model.version}`;
  return `${model.name ?? ""}${version}`;
}

function imagesOf({ images }: CaseRequest, folder: CaseFolder): Images {
  if (images?.tensor) return folder.tensor(images.tensor);
  return (images?.encoded ?? []).map((path) => folder.file(path));
}

function sampleOptions(request: CaseRequest) {
  const { seed, offset, temperature } = request;
  return {
    ...(seed === undefined ? {} : { seed: BigInt(seed) }),
    ...(offset === undefined ? {} : { offset: BigInt(offset) }),
    ...(temperature === undefined ? {} : { temperature: Number(temperature) }),
    includeLatents: request.include_latents ?? false,
    chunkRows: request.chunk_rows ?? 0,
  };
}
