import { endianness } from "node:os";

import { DataType, type Tensor as TensorMessage } from "./generated/latentserve/v1/tensor.js";
import { badReply, invalid } from "./errors.js";

/** Dense float32 array in row-major order; `shape` has the outermost dimension first. */
export interface Float32Tensor {
  readonly dtype: "float32";
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Dense float16 array; values are the bits of IEEE 754 binary16, see `toFloats`. */
export interface Float16Tensor {
  readonly dtype: "float16";
  readonly shape: readonly number[];
  readonly data: Uint16Array;
}

/** Dense array of bytes; in images, 0 to 255 represent 0 to 1. */
export interface Uint8Tensor {
  readonly dtype: "uint8";
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

export type Tensor = Float32Tensor | Float16Tensor | Uint8Tensor;

/** Creates a float32 tensor: of images `[n, channels, height, width]`, of latents `[n, dim]`. */
export function float32(data: Float32Array | readonly number[], shape: readonly number[]): Tensor {
  return {
    dtype: "float32",
    shape,
    data: data instanceof Float32Array ? data : Float32Array.from(data),
  };
}

/** Creates a float16 tensor from the bits of its values. */
export function float16(data: Uint16Array, shape: readonly number[]): Tensor {
  return { dtype: "float16", shape, data };
}

/** Creates a uint8 tensor of images, 0 to 255: `[n, channels, height, width]`. */
export function uint8(data: Uint8Array, shape: readonly number[]): Tensor {
  return { dtype: "uint8", shape, data };
}

/** Returns the values as float32 (the array itself if it is float32); bytes are divided by 255. */
export function toFloats(tensor: Tensor): Float32Array {
  switch (tensor.dtype) {
    case "float32":
      return tensor.data;
    case "float16":
      return Float32Array.from(tensor.data, fromFloat16);
    case "uint8":
      return Float32Array.from(tensor.data, (level) => level / 255);
  }
}

/** Returns the values of images as 0 to 255, clamped and rounded half to even as on the server. */
export function toBytes(tensor: Tensor): Uint8Array {
  if (tensor.dtype === "uint8") return tensor.data;
  // A clamped array rounds half to even; the product is single precision, as on the server.
  const levels = Uint8ClampedArray.from(toFloats(tensor), (value) => Math.fround(value * 255));
  return new Uint8Array(levels.buffer);
}

function fromFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

const DATA_TYPES = {
  float32: DataType.DATA_TYPE_FLOAT32,
  float16: DataType.DATA_TYPE_FLOAT16,
  uint8: DataType.DATA_TYPE_UINT8,
} as const;

/** Converts to the message; throws INVALID_ARGUMENT with the field for an invalid tensor. */
export function tensorToMessage(tensor: Tensor, field: string, rank: number): TensorMessage {
  const shape = [...tensor.shape];
  if (shape.length !== rank) {
    throw invalid(`${field}.shape`, `[${shape.join(", ")}]; expected ${rank} dimensions`);
  }
  if (!shape.every((n) => Number.isSafeInteger(n) && n >= 1)) {
    throw invalid(
      `${field}.shape`,
      `[${shape.join(", ")}]; every dimension must be an integer of at least 1`,
    );
  }
  const size = shape.reduce((product, n) => product * n, 1);
  if (size !== tensor.data.length) {
    throw invalid(
      field,
      `${tensor.data.length} values for the shape [${shape.join(", ")}]; expected ${size}`,
    );
  }
  return {
    dataType: DATA_TYPES[tensor.dtype],
    shape: shape.map(BigInt),
    data: toWire(tensor),
  };
}

/** Converts to or from little-endian, the byte order of the protocol. */
function toWire(tensor: Tensor): Buffer {
  const { buffer, byteOffset, byteLength } = tensor.data;
  const view = Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength);
  return endianness() === "LE" ? view : swapped(Buffer.from(view), tensor.dtype);
}

function swapped(bytes: Buffer, dtype: Tensor["dtype"]): Buffer {
  if (dtype === "float32") return bytes.swap32();
  return dtype === "float16" ? bytes.swap16() : bytes;
}

/** Converts the tensor of a reply; throws a bad reply if its data type or length is wrong. */
export function tensorFromMessage(message: TensorMessage | undefined, rank: number): Tensor {
  if (!message) throw badReply("the reply lacks a tensor");
  const shape = message.shape.map(Number);
  if (shape.length !== rank || !shape.every((n) => Number.isSafeInteger(n) && n >= 0)) {
    throw badReply(
      `the reply has a tensor of shape [${shape.join(", ")}]; expected ${rank} dimensions`,
    );
  }
  const size = shape.reduce((product, n) => product * n, 1);
  const width = WIDTHS.get(message.dataType);
  if (width === undefined)
    throw badReply(`the reply has a tensor of unknown data type ${message.dataType}`);
  if (size * width !== message.data.length) {
    throw badReply(
      `the reply has ${message.data.length} bytes for ${size} values of ${width} bytes each`,
    );
  }
  // A copy, because float views must be aligned, and so that the reply can be freed.
  const bytes = Buffer.from(new Uint8Array(message.data).buffer);
  switch (message.dataType) {
    case DataType.DATA_TYPE_FLOAT32:
      return { dtype: "float32", shape, data: new Float32Array(native(bytes, "float32")) };
    case DataType.DATA_TYPE_FLOAT16:
      return { dtype: "float16", shape, data: new Uint16Array(native(bytes, "float16")) };
    default:
      return { dtype: "uint8", shape, data: new Uint8Array(bytes.buffer) };
  }
}

const WIDTHS = new Map<DataType, number>([
  [DataType.DATA_TYPE_FLOAT32, 4],
  [DataType.DATA_TYPE_FLOAT16, 2],
  [DataType.DATA_TYPE_UINT8, 1],
]);

function native(bytes: Buffer<ArrayBuffer>, dtype: Tensor["dtype"]): ArrayBuffer {
  if (endianness() === "BE") swapped(bytes, dtype);
  return bytes.buffer;
}
