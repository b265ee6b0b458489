// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

/**
 * Shape of a batch of images, outermost dimension first.
 *
 * @param n number of images
 * @param channels 1 (greyscale) or 3 (RGB)
 * @param height in pixels
 * @param width in pixels
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
