// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import java.awt.image.BufferedImage;
import java.awt.image.DataBuffer;
import java.awt.image.IndexColorModel;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import javax.imageio.ImageIO;
import javax.imageio.stream.MemoryCacheImageInputStream;
import javax.imageio.stream.MemoryCacheImageOutputStream;

/** In-memory conversion between PNG and JPEG files, BufferedImage and levels. */
final class ImageFiles {
  private ImageFiles() {}

  static BufferedImage read(byte[] file) {
    BufferedImage picture;
    try {
      picture = ImageIO.read(new MemoryCacheImageInputStream(new ByteArrayInputStream(file)));
    } catch (IOException damaged) {
      throw new UncheckedIOException(damaged);
    }
    if (picture == null) {
      throw new UncheckedIOException(new IOException("not an image file; expected PNG or JPEG"));
    }
    return picture;
  }

  static byte[] write(BufferedImage picture) {
    ByteArrayOutputStream file = new ByteArrayOutputStream();
    try (MemoryCacheImageOutputStream out = new MemoryCacheImageOutputStream(file)) {
      if (!ImageIO.write(picture, "png", out)) {
        throw new IllegalArgumentException("the image cannot be encoded as PNG: " + picture);
      }
    } catch (IOException impossible) {
      throw new UncheckedIOException(impossible);
    }
    return file.toByteArray();
  }

  /** Creates a BufferedImage from levels, [channels, height, width]. */
  static BufferedImage picture(byte[] levels, int channels, int height, int width) {
    if (channels == 1) {
      BufferedImage picture = new BufferedImage(width, height, BufferedImage.TYPE_BYTE_GRAY);
      picture.getRaster().setDataElements(0, 0, width, height, levels);
      return picture;
    }
    if (channels != 3) {
      throw new IllegalStateException("images have " + channels + " channels; expected 1 or 3");
    }
    BufferedImage picture = new BufferedImage(width, height, BufferedImage.TYPE_INT_RGB);
    int plane = height * width;
    for (int i = 0; i < plane; i++) {
      int red = levels[i] & 0xff;
      int green = levels[plane + i] & 0xff;
      int blue = levels[2 * plane + i] & 0xff;
      picture.setRGB(i % width, i / width, red << 16 | green << 8 | blue);
    }
    return picture;
  }

  /** Returns the levels of a BufferedImage, [1 or 3, height, width]. */
  static byte[] levels(BufferedImage picture) {
    int width = picture.getWidth();
    int plane = picture.getHeight() * width;
    if (isGrey(picture)) {
      // getRGB would treat the values of a greyscale image as linear light.
      byte[] levels = new byte[plane];
      for (int i = 0; i < plane; i++) {
        levels[i] = (byte) picture.getRaster().getSample(i % width, i / width, 0);
      }
      return levels;
    }
    byte[] levels = new byte[3 * plane];
    for (int i = 0; i < plane; i++) {
      int rgb = picture.getRGB(i % width, i / width);
      levels[i] = (byte) (rgb >> 16);
      levels[plane + i] = (byte) (rgb >> 8);
      levels[2 * plane + i] = (byte) rgb;
    }
    return levels;
  }

  private static boolean isGrey(BufferedImage picture) {
    return picture.getRaster().getNumBands() == 1
        && picture.getRaster().getDataBuffer().getDataType() == DataBuffer.TYPE_BYTE
        && !(picture.getColorModel() instanceof IndexColorModel);
  }
}
