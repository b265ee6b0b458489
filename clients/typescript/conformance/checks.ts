import { isDeepStrictEqual } from "node:util";

import type { Metadata } from "@grpc/grpc-js";
import { decode as decodePng } from "fast-png";

import {
  type LatentserveError,
  type Model,
  type ModelList,
  type ReloadOutcome,
  type Tensor,
  toFloats,
  uint8,
} from "../src/index.js";
import { type CallResult, type Part, rowsOf } from "./calls.js";
import { type Case, type CaseFolder, type Expected, type Json, methodOf } from "./cases.js";

const MAX_BATCH_ROWS = 64;

/** Throws unless the result of a call is as expected. */
export function checkResult(test: Case, result: CallResult, folder: CaseFolder): void {
  const expected = test.expect.ok;
  if (!expected) throw new Error(`the call succeeded, expected ${show(test.expect.error)}`);
  if ("value" in result) {
    checkValue(result.value, expected as Json);
    return;
  }
  const { parts } = result;
  if (parts.length === 0) throw new Error("no reply");
  for (const part of parts) {
    checkSignature(part, expected.served_by);
    if (expected.seed === "any") {
      if (part.seed === undefined) throw new Error("the seed is missing");
      same("seed", part.seed, parts[0]?.seed);
    } else if (expected.seed !== undefined) {
      same("seed", part.seed, expected.seed === null ? undefined : BigInt(expected.seed));
    }
  }
  if (methodOf(test) === "SampleStream") checkChunks(test, parts);
  const tensors = [
    ["latents", expected.latents, (part: Part) => part.latents],
    ["log_variance", expected.log_variance, (part: Part) => part.logVariance],
    ["squared_error", expected.squared_error, (part: Part) => part.squaredError],
  ] as const;
  for (const [name, wanted, choose] of tensors) {
    if (wanted !== undefined) checkOptional(name, parts.map(choose), wanted, folder);
  }
  if (expected.images) {
    const { tensor, png } = expected.images;
    const wanted = tensor ?? png;
    if (!wanted) throw new Error("the case expects neither a tensor nor PNG files");
    checkTensor(
      "images",
      parts.flatMap((part) => imagesOf(part, png !== undefined)),
      wanted,
      folder,
    );
  }
}

function checkSignature({ servedBy, timings }: Part, expected: Json | undefined): void {
  for (const [key, wanted] of Object.entries(expected ?? {})) {
    same(`served_by.${key}`, (servedBy as unknown as Json)[key], wanted);
  }
  if (!servedBy.provider) throw new Error("served_by.provider is empty");
  const { queueNs, computeNs, batchRows } = timings;
  if (queueNs < 0n || computeNs <= 0n || batchRows < 1 || batchRows > MAX_BATCH_ROWS) {
    throw new Error(`timings are ${show(timings)}`);
  }
}

function checkChunks(test: Case, parts: readonly Part[]): void {
  const request = test.request ?? {};
  const first = BigInt(request.offset ?? 0);
  let next = first;
  const chunks = parts.map((part) => {
    const rows = rowsOf(part.images);
    same("offset of a chunk", part.offset, next);
    if (part.latents) same("latents of a chunk", part.latents.shape[0], rows);
    next += BigInt(rows);
    return { offset: String(part.offset), rows };
  });
  const wanted = test.expect.ok?.chunks;
  if (wanted) same("chunks", chunks, wanted);
  if (test.stream?.resume ?? true) {
    same("total rows of chunks", next - first, BigInt(request.count ?? 0));
  }
}

function checkOptional(
  name: string,
  tensors: readonly (Tensor | undefined)[],
  expected: Expected | null,
  folder: CaseFolder,
): void {
  const present = tensors.filter((tensor) => tensor !== undefined);
  if (expected === null) {
    if (present.length > 0) throw new Error(`${name} is present, expected none`);
  } else if (present.length < tensors.length) {
    throw new Error(`${name} is missing`);
  } else {
    checkTensor(name, present, expected, folder);
  }
}

function imagesOf({ images }: Part, asFiles: boolean): Tensor[] {
  if (!images) throw new Error("images are missing");
  if ("dtype" in images) {
    if (asFiles) throw new Error(`images are a ${images.dtype} tensor, expected PNG files`);
    return [images];
  }
  if (!asFiles) throw new Error("images are files, expected a tensor");
  return images.map(pixelsOf);
}

/** Returns a PNG file as a tensor of one row. */
function pixelsOf(file: Uint8Array): Tensor {
  const { width, height, channels, data } = decodePng(file);
  const size = width * height;
  const pixels = new Uint8Array(channels * size);
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < channels; c++) pixels[c * size + i] = data[i * channels + c] ?? 0;
  }
  return uint8(pixels, [1, channels, height, width]);
}

/** Compares concatenated tensors with the expected tensor. */
function checkTensor(
  name: string,
  tensors: readonly Tensor[],
  expected: Expected,
  folder: CaseFolder,
): void {
  const rows = tensors.reduce((sum, { shape }) => sum + (shape[0] ?? 0), 0);
  for (const { dtype, shape } of tensors) {
    same(`dtype of ${name}`, dtype.toUpperCase(), expected.dtype);
    same(`shape of ${name}`, [rows, ...shape.slice(1)], expected.shape);
  }
  same(`rows of ${name}`, rows, expected.shape[0]);
  if (!expected.data) return;
  const got = tensors.flatMap((tensor) => [...valuesOf(tensor)]);
  const wanted = valuesOf(folder.tensor({ ...expected, data: expected.data }));
  same(`number of values of ${name}`, got.length, wanted.length);
  const { atol = 0, rtol = 0 } = expected;
  got.forEach((value, i) => {
    const want = wanted[i] ?? NaN;
    // Written so that NaN fails too.
    if (!(Math.abs(value - want) <= atol + rtol * Math.abs(want))) {
      throw new Error(`${name}: value ${i} is ${value}, expected ${want}`);
    }
  });
}

/** Returns the values of a tensor; uint8 values are 0 to 255. */
function valuesOf(tensor: Tensor): Uint8Array | Float32Array {
  return tensor.dtype === "uint8" ? tensor.data : toFloats(tensor);
}

function checkValue(value: unknown, expected: Json): void {
  if ("status" in expected) {
    same("status", value, expected.status);
  } else if ("models" in expected) {
    const list = value as ModelList;
    const wanted = expected.models as Json[];
    same("number of models", list.models.length, wanted.length);
    list.models.forEach((model, i) => {
      checkGiven(model.name, describe(model), wanted[i] ?? {});
    });
    same("default_model", list.default, expected.default_model);
  } else if ("model" in expected) {
    const model = value as Model;
    checkGiven(model.name, describe(model), expected.model as Json);
  } else {
    const outcomes = (value as ReloadOutcome[]).map((outcome) => ({
      ...outcome,
      action: outcome.action.toUpperCase(),
    }));
    same("outcomes", outcomes, expected.outcomes);
  }
}

/** Returns a model with the names of the .proto files. */
function describe(model: Model): Json {
  const { image, latent, limits, likelihood } = model;
  const metrics = [...model.metrics].sort((a, b) => (a.name < b.name ? -1 : 1));
  return {
    ...model,
    image: { ...image },
    state: model.state.toUpperCase(),
    latent: {
      dim: latent.dim,
      prior: latent.prior,
      has_log_variance: latent.hasLogVariance,
      mixture_components: latent.mixtureComponents,
    },
    operations: model.operations.map((operation) => operation.toUpperCase()),
    likelihood: likelihood ?? null,
    limits: {
      max_request_rows: limits.maxRequestRows,
      max_stream_rows: Number(limits.maxStreamRows),
      max_batch_rows: limits.maxBatchRows,
    },
    metrics: metrics.map((metric) => ({
      name: metric.name,
      value: metric.value,
      unit: metric.unit,
      baseline: metric.baseline ?? null,
      baseline_name: metric.baselineName,
      samples: Number(metric.samples),
      estimator: metric.estimator,
    })),
  };
}

/** Compares only the expected fields. */
function checkGiven(name: string, got: Json, expected: Json): void {
  for (const [key, wanted] of Object.entries(expected)) same(`${name}.${key}`, got[key], wanted);
}

/** Throws unless the error of a call is as expected. */
export function checkFailure(test: Case, error: LatentserveError, trailers?: Metadata): void {
  const expected = test.expect.error;
  if (!expected) throw error;
  const codes = expected.codes ?? [expected.code ?? ""];
  if (!codes.includes(error.code)) {
    throw new Error(`the code is ${error.message}, expected ${codes.join(" or ")}`);
  }
  // The client replaces an empty message, so check the message of the status.
  const message = (error.cause as { details?: string } | undefined)?.details ?? error.details;
  const mayBeEmpty = ["CANCELLED", "DEADLINE_EXCEEDED"].includes(error.code);
  if (!message && !mayBeEmpty && !test.rpc.startsWith("grpc.health.")) {
    throw new Error("the error has no message");
  }
  if (expected.reason === undefined) return;
  same("reason", error.reason, expected.reason);
  same("domain", error.domain, expected.domain);
  same(
    "violations",
    error.violations.map(({ field }) => field),
    expected.violations,
  );
  if (!error.violations.every(({ description }) => description)) {
    throw new Error("a violation has no description");
  }
  for (const key of expected.metadata_keys ?? []) {
    if (!error.metadata[key])
      throw new Error(`the error's metadata has no ${key}: ${show(error.metadata)}`);
  }
  for (const [key, wanted] of Object.entries(expected.metadata ?? {})) {
    same(`metadata.${key}`, error.metadata[key], wanted);
  }
  for (const text of expected.message_lacks ?? []) {
    if (error.details.includes(text)) throw new Error(`the message contains "${text}"`);
  }
  checkRetry(test, error, trailers);
}

function checkRetry(test: Case, error: LatentserveError, trailers?: Metadata): void {
  const delay = error.retryAfterMs;
  const wanted = test.expect.error?.retry_info ?? false;
  if (wanted ? !(delay && delay > 0) : delay !== undefined) {
    throw new Error(`the delay of RetryInfo is ${show(delay)}, expected a delay: ${show(wanted)}`);
  }
  if (test.through !== "stub") return;
  const pushback = trailers?.get("grpc-retry-pushback-ms") ?? [];
  same("grpc-retry-pushback-ms", pushback, delay ? [String(Math.trunc(delay + 1e-6))] : []);
}

function same(name: string, got: unknown, wanted: unknown): void {
  if (!isDeepStrictEqual(got, wanted)) {
    throw new Error(`${name} is ${show(got)}, expected ${show(wanted)}`);
  }
}

function show(value: unknown): string {
  const text = JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "bigint" ? String(inner) : inner,
  ) as string | undefined;
  return (text ?? "absent").slice(0, 300);
}
