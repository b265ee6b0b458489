// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import io.latentserve.client.Images;
import io.latentserve.client.Shape;
import io.latentserve.client.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** Values of a tensor as doubles, for every data type; UINT8 values are 0 to 255. */
final class Values {
  private final String dtype;
  private final List<Long> shape;
  private final double[] numbers;

  Values(String dtype, List<Long> shape, double[] numbers) {
    this.dtype = dtype;
    this.shape = shape;
    this.numbers = numbers;
  }

  /** Converts a tensor of the client. */
  static Values of(Tensor tensor) {
    List<Long> shape = Arrays.stream(tensor.shape()).mapToObj(n -> (long) n).toList();
    if (tensor.type() == Tensor.ElementType.UINT8) {
      return new Values("UINT8", shape, unsigned(tensor.levels()));
    }
    return new Values(tensor.type().name(), shape, doubles(tensor.floats()));
  }

  /** Converts bytes in the format of the protocol and the case files. */
  static Values of(String dtype, List<Long> shape, byte[] bytes) {
    return switch (dtype) {
      case "FLOAT32" -> new Values(dtype, shape, doubles(floats(bytes)));
      case "FLOAT16" ->
          // Uses the conversion of the client, which its unit tests verify.
          new Values(
              dtype,
              shape,
              doubles(
                  Images.ofHalves(halves(bytes), new Shape(1, 1, 1, bytes.length / 2)).floats()));
      case "UINT8" -> new Values(dtype, shape, unsigned(bytes));
      default -> throw new Mismatch("a tensor has data type " + dtype);
    };
  }

  /** Concatenates the rows of all tensors. */
  static Values joined(List<Values> parts) {
    Values first = parts.get(0);
    List<Long> rest = first.shape.subList(1, first.shape.size());
    List<double[]> numbers = new ArrayList<>();
    long rows = 0;
    for (Values part : parts) {
      if (!part.dtype.equals(first.dtype)
          || !part.shape.subList(1, part.shape.size()).equals(rest)) {
        throw new Mismatch("one reply has " + first.described() + " and " + part.described());
      }
      rows += part.shape.get(0);
      numbers.add(part.numbers);
    }
    List<Long> shape = new ArrayList<>(first.shape);
    shape.set(0, rows);
    return new Values(
        first.dtype, shape, numbers.stream().flatMapToDouble(Arrays::stream).toArray());
  }

  void check(CaseTensor expected, CaseFolder folder) {
    if (!dtype.equals(expected.dtype()) || !shape.equals(expected.shape())) {
      throw new Mismatch(described() + ", expected " + expected.dtype() + " " + expected.shape());
    }
    if (!expected.hasData()) {
      return;
    }
    double[] wanted = of(dtype, shape, folder.bytes(expected)).numbers;
    if (numbers.length != wanted.length) {
      throw new Mismatch(numbers.length + " values, expected " + wanted.length);
    }
    for (int i = 0; i < wanted.length; i++) {
      double tolerance = expected.atol() + expected.rtol() * Math.abs(wanted[i]);
      // Written so that NaN fails too.
      if (!(Math.abs(numbers[i] - wanted[i]) <= tolerance)) {
        throw new Mismatch("value " + i + " is " + numbers[i] + ", expected " + wanted[i]);
      }
    }
  }

  long rows() {
    return shape.get(0);
  }

  private String described() {
    return dtype + " " + shape;
  }

  static float[] floats(byte[] bytes) {
    float[] values = new float[bytes.length / 4];
    little(bytes).asFloatBuffer().get(values);
    return values;
  }

  static short[] halves(byte[] bytes) {
    short[] bits = new short[bytes.length / 2];
    little(bytes).asShortBuffer().get(bits);
    return bits;
  }

  private static ByteBuffer little(byte[] bytes) {
    return ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
  }

  private static double[] unsigned(byte[] bytes) {
    double[] numbers = new double[bytes.length];
    for (int i = 0; i < bytes.length; i++) {
      numbers[i] = bytes[i] & 0xff;
    }
    return numbers;
  }

  static double[] doubles(float[] values) {
    double[] numbers = new double[values.length];
    for (int i = 0; i < values.length; i++) {
      numbers[i] = values[i];
    }
    return numbers;
  }
}
