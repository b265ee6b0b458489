// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.latentserve.v1.DataType;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;

/** Dense array in row-major order. Immutable; methods return new arrays. */
public final class Tensor {
  /** Data type of the elements. */
  public enum ElementType {
    /** IEEE 754 binary32. */
    FLOAT32(DataType.DATA_TYPE_FLOAT32, 4),
    /** IEEE 754 binary16. */
    FLOAT16(DataType.DATA_TYPE_FLOAT16, 2),
    /** Bytes from 0 to 255; in images, they represent 0 to 1. */
    UINT8(DataType.DATA_TYPE_UINT8, 1);

    private final DataType message;
    private final int bytes;

    ElementType(DataType message, int bytes) {
      this.message = message;
      this.bytes = bytes;
    }
  }

  private final ElementType type;
  private final int[] shape;
  private final ByteString data; // little-endian, as in the protocol

  private Tensor(ElementType type, int[] shape, ByteString data) {
    this.type = type;
    this.shape = shape;
    this.data = data;
  }

  /**
   * Creates latents for {@link LatentserveClient#decode}: {@code rows} rows of {@code values.length
   * / rows} values each.
   */
  public static Tensor latents(float[] values, int rows) {
    return ofFloats("latents", values, rows, dim(values.length, rows));
  }

  /** Creates latents from the bits of IEEE 754 binary16 values. */
  public static Tensor halfLatents(short[] bits, int rows) {
    return ofHalves("latents", bits, rows, dim(bits.length, rows));
  }

  private static int dim(int length, int rows) {
    return rows > 0 ? length / rows : 0;
  }

  static Tensor ofFloats(String field, float[] values, int... shape) {
    check(field, values.length, shape);
    ByteBuffer buffer = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
    buffer.asFloatBuffer().put(values);
    return new Tensor(ElementType.FLOAT32, shape, UnsafeByteOperations.unsafeWrap(buffer));
  }

  static Tensor ofHalves(String field, short[] bits, int... shape) {
    check(field, bits.length, shape);
    ByteBuffer buffer = ByteBuffer.allocate(2 * bits.length).order(ByteOrder.LITTLE_ENDIAN);
    buffer.asShortBuffer().put(bits);
    return new Tensor(ElementType.FLOAT16, shape, UnsafeByteOperations.unsafeWrap(buffer));
  }

  static Tensor ofLevels(String field, byte[] levels, int... shape) {
    check(field, levels.length, shape);
    return new Tensor(ElementType.UINT8, shape, ByteString.copyFrom(levels));
  }

  private static void check(String field, int length, int[] shape) {
    long size = elements(shape);
    if (size <= 0) {
      throw LatentserveException.invalid(
          field + ".shape", Arrays.toString(shape) + "; every dimension must be at least 1");
    }
    if (size != length) {
      throw LatentserveException.invalid(
          field, length + " values for the shape " + Arrays.toString(shape) + "; expected " + size);
    }
  }

  /** Returns the product of the dimensions, or -1 if a dimension is invalid or it overflows. */
  private static long elements(int[] shape) {
    long product = 1;
    for (int n : shape) {
      product *= n;
      if (n < 0 || product > Integer.MAX_VALUE) {
        return -1;
      }
    }
    return product;
  }

  /** Checks and converts the tensor of a reply. */
  static Tensor from(io.latentserve.v1.Tensor message, int rank) {
    ElementType type = null;
    for (ElementType candidate : ElementType.values()) {
      if (candidate.message == message.getDataType()) {
        type = candidate;
      }
    }
    if (type == null) {
      throw LatentserveException.badReply(
          "the reply has a tensor of unknown data type " + message.getDataTypeValue());
    }
    int[] shape = new int[message.getShapeCount()];
    for (int i = 0; i < shape.length; i++) {
      long n = message.getShape(i);
      shape[i] = n == (int) n ? (int) n : -1;
    }
    long size = elements(shape);
    if (shape.length != rank || size < 0) {
      throw LatentserveException.badReply(
          "the reply has a tensor of shape "
              + message.getShapeList()
              + "; expected "
              + rank
              + " dimensions");
    }
    if (size * type.bytes != message.getData().size()) {
      throw LatentserveException.badReply(
          message.getData().size()
              + (" bytes for a " + type + " tensor of shape " + message.getShapeList()));
    }
    return new Tensor(type, shape, message.getData());
  }

  io.latentserve.v1.Tensor toMessage() {
    io.latentserve.v1.Tensor.Builder message =
        io.latentserve.v1.Tensor.newBuilder().setDataType(type.message).setData(data);
    for (int n : shape) {
      message.addShape(n);
    }
    return message.build();
  }

  /** The data type of the elements. */
  public ElementType type() {
    return type;
  }

  /** The size of each dimension, outermost first. */
  public int[] shape() {
    return shape.clone();
  }

  /** The size of the first dimension. */
  public int rows() {
    return shape[0];
  }

  /** Returns row {@code k} of {@link #floats}. */
  public float[] row(int k) {
    float[] values = floats();
    int size = values.length / rows();
    return Arrays.copyOfRange(values, k * size, (k + 1) * size);
  }

  /** The values as floats; bytes are divided by 255. */
  public float[] floats() {
    ByteBuffer buffer = buffer();
    float[] values = new float[data.size() / type.bytes];
    switch (type) {
      case FLOAT32 -> buffer.asFloatBuffer().get(values);
      case FLOAT16 -> {
        for (int i = 0; i < values.length; i++) {
          values[i] = Float16.toFloat(buffer.getShort());
        }
      }
      case UINT8 -> {
        for (int i = 0; i < values.length; i++) {
          values[i] = (buffer.get() & 0xff) / 255f;
        }
      }
    }
    return values;
  }

  /**
   * The values of images as 0 to 255, in bytes that Java treats as -128 to 127. Values other than
   * UINT8 are clamped and rounded half to even as the server does.
   */
  public byte[] levels() {
    if (type == ElementType.UINT8) {
      return data.toByteArray();
    }
    float[] values = floats();
    byte[] levels = new byte[values.length];
    for (int i = 0; i < levels.length; i++) {
      levels[i] = (byte) (int) Math.rint(255f * Math.max(0f, Math.min(1f, values[i])));
    }
    return levels;
  }

  /** The bits of a FLOAT16 tensor. */
  public short[] halves() {
    if (type != ElementType.FLOAT16) {
      throw new IllegalStateException("the tensor is " + type + ", not FLOAT16");
    }
    short[] bits = new short[data.size() / 2];
    buffer().asShortBuffer().get(bits);
    return bits;
  }

  private ByteBuffer buffer() {
    return data.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
  }

  @Override
  public String toString() {
    return type + " " + Arrays.toString(shape);
  }
}
