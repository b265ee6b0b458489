import { Channel, type ChannelOptions, Metadata } from "@grpc/grpc-js";

import {
  HealthCheckResponse_ServingStatus as ServingStatus,
  HealthClient,
} from "./generated/grpc/health/v1/health.js";
import { GenerativeServiceClient } from "./generated/latentserve/v1/generative_service.js";
import { ModelServiceClient } from "./generated/latentserve/v1/model_service.js";
import type { ModelRef } from "./generated/latentserve/v1/tensor.js";
import { callStreaming, callUnary, type Way } from "./calls.js";
import { channelCredentials, channelOptions, type TlsOptions } from "./channel.js";
import * as checks from "./checks.js";
import { badReply } from "./errors.js";
import { type Format, formatToMessage, type Images, imagesToMessage } from "./images.js";
import {
  type Model,
  modelFromMessage,
  type ModelList,
  outcomesFromMessage,
  type ReloadOutcome,
} from "./models.js";
import {
  chunkFromMessage,
  type EncodeResult,
  encodedFromMessage,
  imagesResult,
  type ImagesResult,
  type ReconstructResult,
  type SampleChunk,
  sampledFromMessage,
  type SampleResult,
} from "./results.js";
import { type Tensor, tensorToMessage } from "./tensor.js";

const DEFAULT_TIMEOUT_MS = 10_000;
/** Reloading checks and warms up models, which takes longer than running them. */
const RELOAD_TIMEOUT_MS = 120_000;
const DEFAULT_MAX_MESSAGE_BYTES = 64 * 2 ** 20;

export interface ClientOptions {
  /** The model of calls that name none: `NAME` or `NAME:VERSION`; absent: the server's default. */
  readonly model?: string;
  /** What a call may take, attempts and waiting included; 10,000 unless set. */
  readonly timeoutMs?: number;
  /** Whether a call waits, within its timeout, for a server that cannot be reached yet. */
  readonly waitForReady?: boolean;
  /** The largest request and reply; 64 MiB unless set. */
  readonly maxMessageBytes?: number;
  /** Encrypts the connection; `true` trusts the authorities that Node trusts. */
  readonly tls?: boolean | TlsOptions;
  /** A bearer token, sent with each call. Needs `tls`: plain text can be read on the way. */
  readonly token?: string;
  /** Sends the token also without TLS: for a connection that something else protects. */
  readonly allowInsecureToken?: boolean;
  /** Sent with each call. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Options of grpc-js, over those of this package; `grpc.enable_retries: 0` never tries again. */
  readonly channelOptions?: ChannelOptions;
}

export interface CallOptions {
  /** `NAME` or `NAME:VERSION`; absent: the client's. */
  readonly model?: string;
  readonly timeoutMs?: number;
  /** Cancels the call, which then fails with CANCELLED. */
  readonly signal?: AbortSignal;
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface ImagesOptions<F extends Format> extends CallOptions {
  /** What images come back as; `float32` unless set. */
  readonly format?: F;
}

export interface EncodeOptions extends CallOptions {
  /** Draws the latents from q(z|x); absent: its mean. */
  readonly seed?: bigint | number;
}

export interface SampleOptions<F extends Format> extends ImagesOptions<F> {
  /** Absent: the server draws one and returns it. */
  readonly seed?: bigint | number;
  /** The first row of the seed's stream. */
  readonly offset?: bigint | number;
  /** 0 to 10; below 1 draws nearer the mode. 1 unless set. */
  readonly temperature?: number;
  readonly includeLatents?: boolean;
}

export interface SampleStreamOptions<F extends Format> extends SampleOptions<F> {
  /** Images per chunk; absent: the server chooses. */
  readonly chunkRows?: number;
}

export type HealthStatus = "SERVING" | "NOT_SERVING" | "UNKNOWN" | "SERVICE_UNKNOWN";

/**
 * Calls a latentserve server; meant to be kept for many calls.
 *
 * Calls that fail with UNAVAILABLE, with CANCELLED by the server, or with a full queue are tried
 * again up to three times within their timeout, as gRPC's retry policy and the server's advice
 * say. What can go wrong is a `LatentserveError`.
 */
export class Client {
  /** The channel, for the generated stubs: `{ channelOverride: client.channel }`. */
  readonly channel: Channel;
  readonly #generative: GenerativeServiceClient;
  readonly #models: ModelServiceClient;
  readonly #health: HealthClient;
  readonly #options: ClientOptions;
  readonly #timeoutMs: number;

  /**
   * The server is at `HOST:PORT`, or at `dns:///NAME:PORT` to spread the calls over all addresses of
   * the name. Connects in the first call. Throws for options that do not go together.
   */
  constructor(address: string, options: ClientOptions = {}) {
    this.#options = options;
    this.#timeoutMs = checks.timeout(options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    checks.modelRef(options.model); // a wrong name fails here rather than in the first call
    const limit = options.maxMessageBytes ?? DEFAULT_MAX_MESSAGE_BYTES;
    checks.int32("maxMessageBytes", limit, 1);
    if (options.token !== undefined && !options.tls && !options.allowInsecureToken) {
      throw new TypeError(
        "a token in plain text can be read on the way; " +
          "set tls, or allowInsecureToken where something else protects the connection",
      );
    }
    const credentials = channelCredentials(options.tls);
    this.channel = new Channel(address, credentials, {
      ...channelOptions(address, limit),
      ...options.channelOptions,
    });
    const shared = { channelOverride: this.channel };
    this.#generative = new GenerativeServiceClient(address, credentials, shared);
    this.#models = new ModelServiceClient(address, credentials, shared);
    this.#health = new HealthClient(address, credentials, shared);
  }

  /** Closes the connection. */
  close(): void {
    this.channel.close();
  }

  /** Maps images to latents, float32 [n, dim]: the mean of q(z|x), or with a seed a draw from it. */
  async encode(images: Images, options: EncodeOptions = {}): Promise<EncodeResult> {
    const request = {
      model: this.#ref(options),
      images: imagesToMessage(images),
      seed: checks.seed(options.seed),
    };
    const method = this.#generative.encode.bind(this.#generative);
    return encodedFromMessage(await callUnary(method, request, this.#way(options)));
  }

  /** Maps latents, float32 or float16 [n, dim], to images: the mean of p(x|z). */
  async decode<F extends Format = "float32">(
    latents: Tensor,
    options: ImagesOptions<F> = {},
  ): Promise<ImagesResult<F>> {
    const format = formatOf(options);
    const request = {
      model: this.#ref(options),
      latents: tensorToMessage(latents, "latents", 2),
      outputFormat: formatToMessage(format),
    };
    const method = this.#generative.decode.bind(this.#generative);
    return imagesResult(await callUnary(method, request, this.#way(options)), format);
  }

  /** Encodes and decodes images; the result also has the squared error of each. */
  async reconstruct<F extends Format = "float32">(
    images: Images,
    options: ImagesOptions<F> = {},
  ): Promise<ReconstructResult<F>> {
    const format = formatOf(options);
    const request = this.#imagesRequest(images, options, format);
    const method = this.#generative.reconstruct.bind(this.#generative);
    const reply = await callUnary(method, request, this.#way(options));
    return {
      ...imagesResult(reply, format),
      squaredError: Float32Array.from(reply.squaredError),
    };
  }

  /** Removes the noise from images; floats may be from -10 to 10 here. */
  async denoise<F extends Format = "float32">(
    images: Images,
    options: ImagesOptions<F> = {},
  ): Promise<ImagesResult<F>> {
    const format = formatOf(options);
    const request = this.#imagesRequest(images, options, format);
    const method = this.#generative.denoise.bind(this.#generative);
    return imagesResult(await callUnary(method, request, this.#way(options)), format);
  }

  /** Draws images. The latent of image k depends on the seed, offset + k and the temperature. */
  async sample<F extends Format = "float32">(
    count: number,
    options: SampleOptions<F> = {},
  ): Promise<SampleResult<F>> {
    const format = formatOf(options);
    const request = {
      ...this.#sampleRequest(options, format),
      count: checks.int32("count", count, 1),
    };
    const method = this.#generative.sample.bind(this.#generative);
    return sampledFromMessage(await callUnary(method, request, this.#way(options)), format);
  }

  /**
   * Draws many images and yields them in chunks, the same that `sample` gives. The timeout is for
   * the whole. Leaving the loop cancels the rest; after a break, go on with the `seed` and the
   * `nextOffset` of the last chunk.
   */
  sampleStream<F extends Format = "float32">(
    count: number,
    options: SampleStreamOptions<F> = {},
  ): AsyncGenerator<SampleChunk<F>, void, undefined> {
    // Checked here, not at the first step of the loop.
    const format = formatOf(options);
    const request = {
      ...this.#sampleRequest(options, format),
      count: checks.count(count),
      chunkRows: checks.int32("chunk_rows", options.chunkRows ?? 0, 0),
    };
    const method = this.#generative.sampleStream.bind(this.#generative);
    const replies = callStreaming(method, request, this.#way(options));
    return mapped(replies, (reply) => chunkFromMessage(reply, format));
  }

  /** Lists every version of every model, the refused ones too. */
  async models(options: CallOptions = {}): Promise<ModelList> {
    const method = this.#models.listModels.bind(this.#models);
    const reply = await callUnary(method, {}, this.#way(options));
    return { models: reply.models.map(modelFromMessage), default: reply.defaultModel };
  }

  /** Describes one model: `NAME`, `NAME:VERSION`, or the client's or server's default. */
  async model(name?: string, options: CallOptions = {}): Promise<Model> {
    const request = { model: this.#ref({ model: name ?? options.model }) };
    const method = this.#models.getModel.bind(this.#models);
    const reply = await callUnary(method, request, this.#way(options));
    if (!reply.model) throw badReply("no model");
    return modelFromMessage(reply.model);
  }

  /** Has the server look at its model folder again, for these names or for all. */
  async reloadModels(
    names: readonly string[] = [],
    options: CallOptions = {},
  ): Promise<ReloadOutcome[]> {
    const method = this.#models.reloadModels.bind(this.#models);
    const way = this.#way(options, Math.max(this.#timeoutMs, RELOAD_TIMEOUT_MS));
    return outcomesFromMessage(await callUnary(method, { names: [...names] }, way));
  }

  /** Returns the health of the server (""), or of a model by its name. Never tried again. */
  async health(service = "", options: CallOptions = {}): Promise<HealthStatus> {
    const method = this.#health.check.bind(this.#health);
    const unsaid = `there is no service or model "${service}"`;
    const reply = await callUnary(method, { service }, { ...this.#way(options), unsaid });
    return healthName(reply.status);
  }

  /** Yields the health now and after every change, until the loop is left or a timeout ends it. */
  watchHealth(
    service = "",
    options: CallOptions = {},
  ): AsyncGenerator<HealthStatus, void, undefined> {
    const method = this.#health.watch.bind(this.#health);
    const way = { ...this.#way(options), timeoutMs: options.timeoutMs };
    return mapped(callStreaming(method, { service }, way), (reply) => healthName(reply.status));
  }

  #ref(options: { readonly model?: string | undefined }): ModelRef {
    return checks.modelRef(options.model ?? this.#options.model);
  }

  #way(options: CallOptions, timeoutMs = this.#timeoutMs): Way {
    const { token, waitForReady } = this.#options;
    const metadata = new Metadata({ waitForReady: waitForReady ?? false });
    const pairs = { ...this.#options.metadata, ...options.metadata };
    if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
    for (const [key, value] of Object.entries(pairs)) metadata.set(key, value);
    return {
      metadata,
      timeoutMs: checks.timeout(options.timeoutMs ?? timeoutMs),
      signal: options.signal,
    };
  }

  #imagesRequest(images: Images, options: CallOptions, format: Format) {
    return {
      model: this.#ref(options),
      images: imagesToMessage(images),
      outputFormat: formatToMessage(format),
    };
  }

  #sampleRequest(options: SampleOptions<Format>, format: Format) {
    return {
      model: this.#ref(options),
      seed: checks.seed(options.seed),
      offset: checks.offset(options.offset ?? 0n),
      temperature: checks.temperature(options.temperature),
      outputFormat: formatToMessage(format),
      includeLatents: options.includeLatents ?? false,
    };
  }
}

function formatOf<F extends Format>(options: ImagesOptions<F>): F {
  return options.format ?? ("float32" as F);
}

function healthName(value: ServingStatus): HealthStatus {
  return (ServingStatus[value] as HealthStatus | undefined) ?? "UNKNOWN";
}

/** Converts what a generator yields; leaving it leaves the generator. */
async function* mapped<From, To>(
  items: AsyncGenerator<From, void, undefined>,
  convert: (item: From) => To,
): AsyncGenerator<To, void, undefined> {
  for await (const item of items) yield convert(item);
}
