// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import io.latentserve.v1.DataType;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

final class TensorTest {
  private static io.latentserve.v1.Tensor message(int type, List<Long> shape, int bytes) {
    return io.latentserve.v1.Tensor.newBuilder()
        .setDataTypeValue(type)
        .addAllShape(shape)
        .setData(ByteString.copyFrom(new byte[bytes]))
        .build();
  }

  @Test
  void floatsAreSentLittleEndian() {
    io.latentserve.v1.Tensor message = Tensor.latents(new float[] {1f, -2f}, 1).toMessage();
    assertEquals(DataType.DATA_TYPE_FLOAT32, message.getDataType());
    assertEquals(List.of(1L, 2L), message.getShapeList());
    assertArrayEquals(
        new byte[] {0, 0, (byte) 0x80, 0x3f, 0, 0, 0, (byte) 0xc0},
        message.getData().toByteArray());
  }

  @Test
  void halvesAreSentLittleEndian() {
    io.latentserve.v1.Tensor message = Tensor.halfLatents(new short[] {0x3c00}, 1).toMessage();
    assertEquals(DataType.DATA_TYPE_FLOAT16, message.getDataType());
    assertArrayEquals(new byte[] {0, 0x3c}, message.getData().toByteArray());
  }

  @Test
  void survivesARoundTrip() {
    Tensor tensor = Tensor.from(Tensor.latents(new float[] {1, 2, 3, 4}, 2).toMessage(), 2);
    assertArrayEquals(new int[] {2, 2}, tensor.shape());
    assertArrayEquals(new float[] {3, 4}, tensor.row(1));
    assertThrows(IllegalStateException.class, tensor::halves);
  }

  @ParameterizedTest
  @CsvSource({
    "0000, 0",
    "8000, -0.0",
    "3c00, 1",
    "c000, -2",
    "3555, 0.33325195",
    "7bff, 65504",
    "0001, 5.9604645e-8",
    "03ff, 6.097555e-5",
    "0400, 6.1035156e-5",
    "7c00, Infinity",
    "fc00, -Infinity",
    "7e00, NaN"
  })
  void readsBinary16(String bits, float value) {
    short half = (short) Integer.parseInt(bits, 16);
    assertEquals(value, Float16.toFloat(half));
    Tensor tensor = Tensor.halfLatents(new short[] {half}, 1);
    assertArrayEquals(new float[] {value}, tensor.floats());
    assertArrayEquals(new short[] {half}, tensor.halves());
  }

  @Test
  void levelsAreClampedAndRoundedHalfToEven() {
    float[] values = {-1f, 0f, 0.5f, 2.5f / 255f, 1.5f / 255f, 1f, 2f};
    Tensor tensor = Tensor.latents(values, 1);
    assertArrayEquals(new byte[] {0, 0, (byte) 128, 2, 2, (byte) 255, (byte) 255}, tensor.levels());
  }

  @Test
  void bytesRepresentZeroToOne() {
    Tensor tensor = Tensor.ofLevels("x", new byte[] {0, 51, (byte) 255}, 1, 3);
    assertArrayEquals(new float[] {0f, 0.2f, 1f}, tensor.floats());
  }

  @Test
  void mismatchedValuesAreRefusedWithTheirField() {
    LatentserveException failure =
        assertThrows(LatentserveException.class, () -> Tensor.latents(new float[] {1, 2, 3}, 2));
    assertEquals("latents", failure.violations().get(0).field());
    failure = assertThrows(LatentserveException.class, () -> Tensor.latents(new float[] {1}, 0));
    assertEquals("latents.shape", failure.violations().get(0).field());
  }

  @Test
  void aReplyThatViolatesTheProtocolIsAnError() {
    for (io.latentserve.v1.Tensor bad :
        List.of(
            message(77, List.of(1L, 1L), 4),
            message(0, List.of(1L, 1L), 4),
            message(1, List.of(1L), 4),
            message(1, List.of(1L, -1L), 4),
            message(1, List.of(1L << 40, 1L), 4),
            message(1, List.of(1L << 20, 1L << 20), 4),
            message(1, List.of(1L, 2L), 4))) {
      LatentserveException failure =
          assertThrows(LatentserveException.class, () -> Tensor.from(bad, 2));
      assertEquals(LatentserveException.Kind.BAD_REPLY, failure.kind());
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 3})
  void everyDataTypeOfTheProtocolIsKnown(int type) {
    assertTrue(Tensor.from(message(type, List.of(0L, 3L), 0), 2).floats().length == 0);
  }
}
