import type { ModelRef } from "./generated/latentserve/v1/tensor.js";
import { invalid } from "./errors.js";

const MAX_INT32 = 2 ** 31 - 1;
const MAX_OFFSET = 2n ** 62n;
const MAX_SEED = 2n ** 64n - 1n;

/** Parses `NAME` or `NAME:VERSION`; undefined means the server's default model. */
export function modelRef(model = ""): ModelRef {
  const colon = model.indexOf(":");
  if (colon < 0) return { name: model, version: 0 };
  const version = model.slice(colon + 1);
  if (!/^\d{1,10}$/.test(version) || Number(version) < 1 || Number(version) > MAX_INT32) {
    throw invalid(
      "model",
      `"${model}"; expected NAME or NAME:VERSION with a version of at least 1`,
    );
  }
  return { name: model.slice(0, colon), version: Number(version) };
}

/** Returns a valid timeout in milliseconds. */
export function timeout(timeoutMs: number): number {
  if (!(timeoutMs > 0 && timeoutMs < Infinity)) {
    throw invalid("timeoutMs", `${timeoutMs}; expected a positive number of milliseconds`);
  }
  return timeoutMs;
}

/** Returns a 32-bit integer of at least `low`. */
export function int32(field: string, value: number, low: number): number {
  if (!Number.isInteger(value) || value < low || value > MAX_INT32) {
    throw invalid(field, `${value}; expected an integer from ${low} to ${MAX_INT32}`);
  }
  return value;
}

/** Returns an integer of at most 2^53. */
export function count(value: number): bigint {
  if (!Number.isSafeInteger(value) || value < 1) {
    throw invalid("count", `${value}; expected an integer of at least 1`);
  }
  return BigInt(value);
}

export function seed(value: bigint | number | undefined): bigint | undefined {
  return value === undefined ? undefined : wide("seed", value, MAX_SEED, "2^64 - 1");
}

export function offset(value: bigint | number): bigint {
  return wide("offset", value, MAX_OFFSET, "2^62");
}

function wide(field: string, value: bigint | number, high: bigint, highText: string): bigint {
  if (typeof value === "number" && !Number.isSafeInteger(value)) {
    throw invalid(field, `${value}; expected an integer; use a bigint above 2^53 - 1`);
  }
  const wanted = BigInt(value);
  if (wanted < 0n || wanted > high) {
    throw invalid(field, `${String(wanted)}; expected 0 to ${highText}`);
  }
  return wanted;
}

export function temperature(value: number | undefined): number | undefined {
  // Written so that NaN fails too.
  if (value !== undefined && !(value >= 0 && value <= 10)) {
    throw invalid("temperature", `${value}; expected 0 to 10`);
  }
  return value;
}
