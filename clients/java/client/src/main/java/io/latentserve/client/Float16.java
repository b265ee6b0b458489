// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

/** Conversion of IEEE 754 binary16, which Java 17 lacks. */
final class Float16 {
  private Float16() {}

  /** Converts the bits to a float. */
  static float toFloat(short bits) {
    int sign = (bits & 0x8000) << 16;
    int exponent = (bits >> 10) & 0x1f;
    int fraction = bits & 0x3ff;
    if (exponent == 0) { // zero or subnormal: fraction * 2^-24, which a float holds exactly
      return Float.intBitsToFloat(sign | Float.floatToRawIntBits(fraction * 0x1p-24f));
    }
    if (exponent == 0x1f) { // infinity or NaN
      return Float.intBitsToFloat(sign | 0x7f800000 | fraction << 13);
    }
    return Float.intBitsToFloat(sign | (exponent + 127 - 15) << 23 | fraction << 13);
  }
}
