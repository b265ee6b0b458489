import { describe, expect, it } from "vitest";

import {
  float16,
  float32,
  LatentserveError,
  type Tensor,
  toBytes,
  toFloats,
  uint8,
} from "../src/index.js";
import { imagesFromMessage, imagesToMessage } from "../src/images.js";
import { DataType, type Tensor as TensorMessage } from "../src/stubs.js";
import { tensorFromMessage, tensorToMessage } from "../src/tensor.js";

describe("tensors on the wire", () => {
  it.each([
    [float32([1, -2], [1, 2]), [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]],
    [float16(Uint16Array.of(0x3c00, 0xc000), [2, 1]), [0, 0x3c, 0, 0xc0]],
    [uint8(Uint8Array.of(7, 255), [1, 2]), [7, 255]],
  ])("are little-endian and come back: %o", (tensor: Tensor, bytes) => {
    const message = tensorToMessage(tensor, "x", 2);
    expect([...message.data]).toEqual(bytes);
    expect(tensorFromMessage(message, 2)).toEqual(tensor);
  });

  it("contain only the range of a view", () => {
    const whole = Float32Array.of(9, 1, 2, 9);
    const message = tensorToMessage(float32(whole.subarray(1, 3), [1, 2]), "x", 2);
    expect(tensorFromMessage(message, 2).data).toEqual(Float32Array.of(1, 2));
  });

  it("are read at any alignment", () => {
    const bytes = Buffer.from([9, 0, 0, 0x80, 0x3f]).subarray(1);
    const message = { dataType: DataType.DATA_TYPE_FLOAT32, shape: [1n, 1n], data: bytes };
    expect(tensorFromMessage(message, 2).data).toEqual(Float32Array.of(1));
  });
});

it.each([
  ["rank", float32([1], [1])],
  ["length", float32([1], [1, 2])],
  ["an empty batch", float32([], [0, 2])],
  ["negative", float32([1], [-1, -1])],
  ["a fraction", float32([1], [0.5, 2])],
])("refuses to send: %s", (_, tensor) => {
  expect(() => tensorToMessage(tensor, "latents", 2)).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT", violations: [expect.anything()] }),
  );
});

it.each<[string, TensorMessage | undefined]>([
  ["none", undefined],
  ["type", { dataType: DataType.UNRECOGNIZED, shape: [1n, 1n], data: Buffer.of(1) }],
  ["rank", { dataType: DataType.DATA_TYPE_UINT8, shape: [1n], data: Buffer.of(1) }],
  ["negative", { dataType: DataType.DATA_TYPE_UINT8, shape: [-1n, -1n], data: Buffer.of(1) }],
  ["length", { dataType: DataType.DATA_TYPE_FLOAT32, shape: [1n, 1n], data: Buffer.alloc(8) }],
  ["huge", { dataType: DataType.DATA_TYPE_UINT8, shape: [1n << 62n, 4n], data: Buffer.of(1) }],
])("refuses a reply: %s", (_, message) => {
  expect(() => tensorFromMessage(message, 2)).toThrow(
    expect.objectContaining({ code: "INTERNAL", kind: "bad-reply" }),
  );
});

it("reads every float16", () => {
  const bits = Uint16Array.from({ length: 2 ** 16 }, (_, i) => i);
  const got = toFloats(float16(bits, [1, bits.length]));
  for (const i of bits) {
    const sign = i & 0x8000 ? -1 : 1;
    const exponent = (i >> 10) & 0x1f;
    const fraction = (i & 0x3ff) / 1024;
    let want = sign * (1 + fraction) * Math.pow(2, exponent - 15);
    if (exponent === 0) want = sign * fraction * Math.pow(2, -14);
    if (exponent === 31) want = fraction === 0 ? sign / 0 : NaN;
    if (!Object.is(got[i], want)) expect.fail(`${i}: ${got[i]}, expected ${want}`);
  }
});

it("rounds half to even and clamps", () => {
  const floats = float32([-1, 0, 0.5 / 255, 1.5 / 255, 2.5 / 255, 1, 2], [1, 7]);
  expect([...toBytes(floats)]).toEqual([0, 0, 0, 2, 2, 255, 255]);
  expect(toBytes(floats)).toBeInstanceOf(Uint8Array);
  expect([...toFloats(uint8(Uint8Array.of(0, 255), [1, 2]))]).toEqual([0, 1]);
});

describe("images", () => {
  it("are files or a tensor", () => {
    const files = [Uint8Array.of(1, 2), Uint8Array.of(3)];
    expect(imagesFromMessage(imagesToMessage(files), "png").map((f) => [...f])).toEqual([
      [1, 2],
      [3],
    ]);
    const tensor = uint8(Uint8Array.of(7), [1, 1, 1, 1]);
    expect(imagesFromMessage(imagesToMessage(tensor), "uint8")).toEqual(tensor);
  });

  it("must not be empty", () => {
    expect(() => imagesToMessage([])).toThrow(LatentserveError);
  });

  it("of a reply must have the requested format", () => {
    expect(() => imagesFromMessage(undefined, "png")).toThrow("the reply has no images");
    expect(() => imagesFromMessage(imagesToMessage([Uint8Array.of(1)]), "float32")).toThrow(
      "the reply has images as png; requested float32",
    );
  });
});
