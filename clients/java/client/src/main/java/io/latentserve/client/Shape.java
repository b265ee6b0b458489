// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

/**
 * The shape of a batch of images, outermost first.
 *
 * @param n images
 * @param channels 1 (grey) or 3 (RGB)
 * @param height pixels from top to bottom
 * @param width pixels from left to right
 */
public record Shape(int n, int channels, int height, int width) {
  int[] toArray() {
    return new int[] {n, channels, height, width};
  }

  @Override
  public String toString() {
    return "[" + n + ", " + channels + ", " + height + ", " + width + "]";
  }
}
