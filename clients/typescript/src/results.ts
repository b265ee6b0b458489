import type {
  EncodeResponse,
  SampleResponse,
  SampleStreamResponse,
} from "./generated/latentserve/v1/generative_service.js";
import type {
  Images as ImagesMessage,
  ServedBy as ServedByMessage,
  Tensor as TensorMessage,
  Timings as TimingsMessage,
} from "./generated/latentserve/v1/tensor.js";
import { badReply } from "./errors.js";
import { countImages, type Format, type Formats, imagesFromMessage } from "./images.js";
import { type Float32Tensor, tensorFromMessage } from "./tensor.js";

/** Model version that served a call, and its execution provider. */
export interface ServedBy {
  readonly name: string;
  readonly version: number;
  /** SHA-256 of the model's manifest, which identifies the weights. */
  readonly digest: string;
  /** ONNX Runtime execution provider, for example `CPUExecutionProvider`. */
  readonly provider: string;
}

/** Durations of one call on the server. */
export interface Timings {
  /** Until the first batch with rows of this call started. */
  readonly queueNs: bigint;
  /** In ONNX Runtime. */
  readonly computeNs: bigint;
  /** Rows of the largest batch of this call, including rows of other calls. */
  readonly batchRows: number;
}

interface Served {
  readonly servedBy: ServedBy;
  readonly timings: Timings;
}

/** Latents, in the order of the images. */
export interface EncodeResult extends Served {
  /** [n, dim] */
  readonly latents: Float32Tensor;
  /** [n, dim]: natural logarithm of the variance; undefined if the model has none. */
  readonly logVariance: Float32Tensor | undefined;
  /** Seed of the sample; undefined if the latents are the mean. */
  readonly seed: bigint | undefined;
}

/** Images, in the order of the request and in the requested format. */
export interface ImagesResult<F extends Format> extends Served {
  readonly images: Formats[F];
}

export interface ReconstructResult<F extends Format> extends ImagesResult<F> {
  /** Squared error of each image, summed over channels and pixels of images in [0, 1]. */
  readonly squaredError: Float32Array;
}

export interface SampleResult<F extends Format> extends ImagesResult<F> {
  /** The request's seed, or the one that the server chose. */
  readonly seed: bigint;
  /** Latents of the images, [n, dim]; undefined unless requested. */
  readonly latents: Float32Tensor | undefined;
}

/** Consecutive images of a stream. */
export interface SampleChunk<F extends Format> extends SampleResult<F> {
  /** Row of the first image in the seed's sequence of samples. */
  readonly offset: bigint;
  /** The offset that resumes after this chunk, with the same seed. */
  readonly nextOffset: bigint;
}

interface ServedMessage {
  servedBy: ServedByMessage | undefined;
  timings: TimingsMessage | undefined;
}

interface ImagesReply extends ServedMessage {
  images: ImagesMessage | undefined;
}

function served(message: ServedMessage): Served {
  const by = message.servedBy;
  const timings = message.timings;
  return {
    servedBy: {
      name: by?.name ?? "",
      version: by?.version ?? 0,
      digest: by?.digest ?? "",
      provider: by?.provider ?? "",
    },
    timings: {
      queueNs: timings?.queueNs ?? 0n,
      computeNs: timings?.computeNs ?? 0n,
      batchRows: timings?.batchRows ?? 0,
    },
  };
}

export function encodedFromMessage(reply: EncodeResponse): EncodeResult {
  return {
    ...served(reply),
    latents: latentsFromMessage(reply.latents),
    logVariance: reply.logVariance && latentsFromMessage(reply.logVariance),
    seed: reply.seed,
  };
}

export function imagesResult<F extends Format>(reply: ImagesReply, format: F): ImagesResult<F> {
  return { ...served(reply), images: imagesFromMessage(reply.images, format) };
}

export function sampledFromMessage<F extends Format>(
  reply: SampleResponse | SampleStreamResponse,
  format: F,
): SampleResult<F> {
  return {
    ...imagesResult(reply, format),
    seed: reply.seed,
    latents: reply.latents && latentsFromMessage(reply.latents),
  };
}

export function chunkFromMessage<F extends Format>(
  reply: SampleStreamResponse,
  format: F,
): SampleChunk<F> {
  const result = sampledFromMessage(reply, format);
  const nextOffset = reply.offset + BigInt(countImages(result.images));
  return { ...result, offset: reply.offset, nextOffset };
}

function latentsFromMessage(message: TensorMessage | undefined): Float32Tensor {
  const tensor = tensorFromMessage(message, 2);
  if (tensor.dtype !== "float32") throw badReply(`the reply has latents as ${tensor.dtype}`);
  return tensor;
}
