export {
  type CallOptions,
  Client,
  type ClientOptions,
  type EncodeOptions,
  type HealthStatus,
  type ImagesOptions,
  type SampleOptions,
  type SampleStreamOptions,
} from "./client.js";
export type { TlsOptions } from "./channel.js";
export { type Code, type ErrorKind, fromGrpc, LatentserveError, type Violation } from "./errors.js";
export { countImages, type Format, type Formats, type Images } from "./images.js";
export type { Metric, Model, ModelList, Operation, ReloadOutcome } from "./models.js";
export type {
  EncodeResult,
  ImagesResult,
  ReconstructResult,
  SampleChunk,
  SampleResult,
  ServedBy,
  Timings,
} from "./results.js";
export {
  float16,
  type Float16Tensor,
  float32,
  type Float32Tensor,
  type Tensor,
  toBytes,
  toFloats,
  uint8,
  type Uint8Tensor,
} from "./tensor.js";
