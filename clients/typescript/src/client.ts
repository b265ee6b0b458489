import { Channel, type ChannelOptions, Metadata } from "@grpc/grpc-js";

import {
  HealthCheckResponse_ServingStatus as ServingStatus,
  HealthClient,
} from "./generated/grpc/health/v1/health.js";
import { GenerativeServiceClient } from "./generated/latentserve/v1/generative_service.js";
import { ModelServiceClient } from "./generated/latentserve/v1/model_service.js";
import type { ModelRef } from "./generated/latentserve/v1/tensor.js";
import { callStreaming, callUnary, type CallSettings } from "./calls.js";
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
/** Minimum timeout of a reload, because the server checks and warms up models. */
const RELOAD_TIMEOUT_MS = 120_000;
const DEFAULT_MAX_MESSAGE_BYTES = 64 * 2 ** 20;

export interface ClientOptions {
  /** Model of calls that name none: `NAME` or `NAME:VERSION`. Default: the server's default. */
  readonly model?: string;
  /** Timeout of a call including all attempts and backoff. Default: 10,000 ms. */
  readonly timeoutMs?: number;
  /** Whether calls wait until their deadline for a server that cannot be reached. */
  readonly waitForReady?: boolean;
  /** Maximum size of a request or reply in bytes. Default: 64 MiB. */
  readonly maxMessageBytes?: number;
  /** Encrypts the connection; `true` trusts the authorities that Node trusts. */
  readonly tls?: boolean | TlsOptions;
  /** Bearer token of all calls. Requires `tls`: a plaintext connection can be intercepted. */
  readonly token?: string;
  /** Allows a token without TLS, for a connection that something else protects. */
  readonly allowInsecureToken?: boolean;
  /** Metadata of all calls. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Options of grpc-js that override the defaults; `grpc.enable_retries: 0` disables retries. */
  readonly channelOptions?: ChannelOptions;
}

export interface CallOptions {
  /** `NAME` or `NAME:VERSION`. Default: the client's model. */
  readonly model?: string;
  readonly timeoutMs?: number;
  /** Cancels the call, which then fails with CANCELLED. */
  readonly signal?: AbortSignal;
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface ImagesOptions<F extends Format> extends CallOptions {
  /** Format of the images in the reply. Default: `float32`. */
  readonly format?: F;
}

export interface EncodeOptions extends CallOptions {
  /** Seed of a sample from q(z|x); if absent, the latents are its mean. */
  readonly seed?: bigint | number;
}

export interface SampleOptions<F extends Format> extends ImagesOptions<F> {
  /** If absent, the server chooses a seed, which the reply contains. */
  readonly seed?: bigint | number;
  /** First row of the seed's sequence of samples. */
  readonly offset?: bigint | number;
  /** 0 to 10; values below 1 sample closer to the mode. Default: 1. */
  readonly temperature?: number;
  readonly includeLatents?: boolean;
}

export interface SampleStreamOptions<F extends Format> extends SampleOptions<F> {
  /** Images per chunk; if absent, the server chooses. */
  readonly chunkRows?: number;
}

export type HealthStatus = "SERVING" | "NOT_SERVING" | "UNKNOWN" | "SERVICE_UNKNOWN";

/**
 * Client of a latentserve server; reuse it for many calls.
 *
 * Calls that fail with UNAVAILABLE, with CANCELLED by the server, or because the queue is full are
 * retried up to three times within their timeout, by gRPC's retry policy and after the delay that
 * the server requests. A call that fails throws a `LatentserveError`.
 */
export class Client {
  /** Channel, for use with the generated stubs: `{ channelOverride: client.channel }`. */
  readonly channel: Channel;
  readonly #generative: GenerativeServiceClient;
  readonly #models: ModelServiceClient;
  readonly #health: HealthClient;
  readonly #options: ClientOptions;
  readonly #timeoutMs: number;

  /**
   * Creates a client of the server at `HOST:PORT`, or at `dns:///NAME:PORT` to balance calls over
   * all addresses of the name. It connects on the first call. Throws for invalid options.
   */
  constructor(address: string, options: ClientOptions = {}) {
    this.#options = options;
    this.#timeoutMs = checks.timeout(options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    checks.modelRef(options.model); // fail here, not in the first call
    const limit = options.maxMessageBytes ?? DEFAULT_MAX_MESSAGE_BYTES;
    checks.int32("maxMessageBytes", limit, 1);
    if (options.token !== undefined && !options.tls && !options.allowInsecureToken) {
      throw new TypeError(
        "a token on a plaintext connection can be intercepted; " +
          "set tls, or allowInsecureToken if something else protects the connection",
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

  /** Encodes images to latents, float32 [n, dim]: the mean of q(z|x) or, with a seed, a sample. */
  async encode(images: Images, options: EncodeOptions = {}): Promise<EncodeResult> {
    const request = {
      model: this.#ref(options),
      images: imagesToMessage(images),
      seed: checks.seed(options.seed),
    };
    const method = this.#generative.encode.bind(this.#generative);
    return encodedFromMessage(await callUnary(method, request, this.#settings(options)));
  }

  /** Decodes latents, float32 or float16 [n, dim], to images: the mean of p(x|z). */
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
    return imagesResult(await callUnary(method, request, this.#settings(options)), format);
  }

  /** Encodes and decodes images; the result includes the squared error of each image. */
  async reconstruct<F extends Format = "float32">(
    images: Images,
    options: ImagesOptions<F> = {},
  ): Promise<ReconstructResult<F>> {
    const format = formatOf(options);
    const request = this.#imagesRequest(images, options, format);
    const method = this.#generative.reconstruct.bind(this.#generative);
    const reply = await callUnary(method, request, this.#settings(options));
    return {
      ...imagesResult(reply, format),
      squaredError: Float32Array.from(reply.squaredError),
    };
  }

  /** Removes the noise from images; floats may range from -10 to 10. */
  async denoise<F extends Format = "float32">(
    images: Images,
    options: ImagesOptions<F> = {},
  ): Promise<ImagesResult<F>> {
    const format = formatOf(options);
    const request = this.#imagesRequest(images, options, format);
    const method = this.#generative.denoise.bind(this.#generative);
    return imagesResult(await callUnary(method, request, this.#settings(options)), format);
  }

  /** Samples images. The latents of image k depend on the seed, offset + k and the temperature. */
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
    return sampledFromMessage(await callUnary(method, request, this.#settings(options)), format);
  }

  /**
   * Samples many images and yields them in chunks. The images are those of `sample`. The timeout
   * covers the whole stream. Leaving the loop cancels the call. After an error, resume with the
   * `seed` and the `nextOffset` of the last chunk.
   */
  sampleStream<F extends Format = "float32">(
    count: number,
    options: SampleStreamOptions<F> = {},
  ): AsyncGenerator<SampleChunk<F>, void, undefined> {
    // Checked here, not in the first iteration of the loop.
    const format = formatOf(options);
    const request = {
      ...this.#sampleRequest(options, format),
      count: checks.count(count),
      chunkRows: checks.int32("chunk_rows", options.chunkRows ?? 0, 0),
    };
    const method = this.#generative.sampleStream.bind(this.#generative);
    const replies = callStreaming(method, request, this.#settings(options));
    return mapped(replies, (reply) => chunkFromMessage(reply, format));
  }

  /** Lists every version of every model, including refused ones. */
  async models(options: CallOptions = {}): Promise<ModelList> {
    const method = this.#models.listModels.bind(this.#models);
    const reply = await callUnary(method, {}, this.#settings(options));
    return { models: reply.models.map(modelFromMessage), default: reply.defaultModel };
  }

  /** Describes one model: `NAME`, `NAME:VERSION`, or the default of the client or server. */
  async model(name?: string, options: CallOptions = {}): Promise<Model> {
    const request = { model: this.#ref({ model: name ?? options.model }) };
    const method = this.#models.getModel.bind(this.#models);
    const reply = await callUnary(method, request, this.#settings(options));
    if (!reply.model) throw badReply("the reply has no model");
    return modelFromMessage(reply.model);
  }

  /** Makes the server rescan its model folder, for these names or for all models. */
  async reloadModels(
    names: readonly string[] = [],
    options: CallOptions = {},
  ): Promise<ReloadOutcome[]> {
    const method = this.#models.reloadModels.bind(this.#models);
    const way = this.#settings(options, Math.max(this.#timeoutMs, RELOAD_TIMEOUT_MS));
    return outcomesFromMessage(await callUnary(method, { names: [...names] }, way));
  }

  /** Returns the health of the server ("") or of a model by name. Never retried. */
  async health(service = "", options: CallOptions = {}): Promise<HealthStatus> {
    const method = this.#health.check.bind(this.#health);
    const defaultMessage = `unknown service or model "${service}"`;
    const reply = await callUnary(
      method,
      { service },
      { ...this.#settings(options), defaultMessage },
    );
    return healthName(reply.status);
  }

  /** Yields the current health and every change, until the loop exits or the timeout expires. */
  watchHealth(
    service = "",
    options: CallOptions = {},
  ): AsyncGenerator<HealthStatus, void, undefined> {
    const method = this.#health.watch.bind(this.#health);
    const way = { ...this.#settings(options), timeoutMs: options.timeoutMs };
    return mapped(callStreaming(method, { service }, way), (reply) => healthName(reply.status));
  }

  #ref(options: { readonly model?: string | undefined }): ModelRef {
    return checks.modelRef(options.model ?? this.#options.model);
  }

  #settings(options: CallOptions, timeoutMs = this.#timeoutMs): CallSettings {
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

/** Maps the items of a generator; leaving the loop closes the generator. */
async function* mapped<From, To>(
  items: AsyncGenerator<From, void, undefined>,
  convert: (item: From) => To,
): AsyncGenerator<To, void, undefined> {
  for await (const item of items) yield convert(item);
}
