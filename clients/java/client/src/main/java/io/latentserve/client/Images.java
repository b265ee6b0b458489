// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import com.google.protobuf.ByteString;
import io.latentserve.v1.EncodedImages;
import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** Images as pixels or as encoded files. Each form is converted to the other on demand. */
public final class Images {
  private static final String FIELD = "images.tensor";

  private final Tensor pixels; // [n, channels, height, width], or null
  private final List<ByteString> files; // one per image, or null

  private Images(Tensor pixels, List<ByteString> files) {
    this.pixels = pixels;
    this.files = files;
  }

  /** Creates images from intensities in [0, 1]; for {@code denoise}, from -10 to 10. */
  public static Images ofFloats(float[] values, Shape shape) {
    return new Images(Tensor.ofFloats(FIELD, values, shape.toArray()), null);
  }

  /** Creates images from the bits of IEEE 754 binary16 values. */
  public static Images ofHalves(short[] bits, Shape shape) {
    return new Images(Tensor.ofHalves(FIELD, bits, shape.toArray()), null);
  }

  /** Creates images from levels from 0 to 255. */
  public static Images ofLevels(byte[] levels, Shape shape) {
    return new Images(Tensor.ofLevels(FIELD, levels, shape.toArray()), null);
  }

  /**
   * Creates images from the bytes of PNG or JPEG files, which are sent unchanged. The server
   * converts between greyscale and colour as the model requires, but never resizes.
   */
  public static Images ofFiles(byte[]... files) {
    return ofFiles(Arrays.asList(files));
  }

  /** Creates images from a list of PNG or JPEG files. */
  public static Images ofFiles(List<byte[]> files) {
    if (files.isEmpty()) {
      throw LatentserveException.invalid("images.encoded.files", "no files; expected at least one");
    }
    return new Images(null, files.stream().map(ByteString::copyFrom).toList());
  }

  /** Creates images from PNG or JPEG files on disk. */
  public static Images ofFiles(Path... paths) throws IOException {
    List<byte[]> files = new ArrayList<>();
    for (Path path : paths) {
      files.add(Files.readAllBytes(path));
    }
    return ofFiles(files);
  }

  /** Encodes BufferedImages as PNG files. */
  public static Images ofPictures(BufferedImage... pictures) {
    return ofFiles(Arrays.stream(pictures).map(ImageFiles::write).toList());
  }

  static Images from(io.latentserve.v1.Images message) {
    return switch (message.getFormCase()) {
      case TENSOR -> new Images(Tensor.from(message.getTensor(), 4), null);
      case ENCODED -> new Images(null, message.getEncoded().getFilesList());
      case FORM_NOT_SET -> throw LatentserveException.badReply("the reply has no images");
    };
  }

  io.latentserve.v1.Images toMessage() {
    io.latentserve.v1.Images.Builder message = io.latentserve.v1.Images.newBuilder();
    if (pixels != null) {
      return message.setTensor(pixels.toMessage()).build();
    }
    return message.setEncoded(EncodedImages.newBuilder().addAllFiles(files)).build();
  }

  /** The number of images. */
  public int count() {
    return pixels != null ? pixels.rows() : files.size();
  }

  /** Whether the images are files; files in replies are PNG. */
  public boolean isFiles() {
    return files != null;
  }

  /**
   * The pixels, [n, channels, height, width]: FLOAT32 or FLOAT16 in [0, 1], or UINT8. Files are
   * decoded to UINT8.
   *
   * @throws java.io.UncheckedIOException if a file cannot be decoded
   * @throws IllegalStateException if the files have different sizes
   */
  public Tensor pixels() {
    return pixels != null ? pixels : decoded();
  }

  /** The shape of {@link #pixels}. */
  public Shape shape() {
    int[] shape = pixels().shape();
    return new Shape(shape[0], shape[1], shape[2], shape[3]);
  }

  /** The intensities in [0, 1], in the order of {@link #shape}. */
  public float[] floats() {
    return pixels().floats();
  }

  /** The levels from 0 to 255, in the order of {@link #shape}; see {@link Tensor#levels}. */
  public byte[] levels() {
    return pixels().levels();
  }

  /** Returns image {@code k} as a file: the original file, or pixels encoded as PNG. */
  public byte[] file(int k) {
    return files != null ? files.get(k).toByteArray() : ImageFiles.write(picture(k));
  }

  /** Returns image {@code k} as a BufferedImage. */
  public BufferedImage picture(int k) {
    if (files != null) {
      return ImageFiles.read(files.get(k).toByteArray());
    }
    Shape shape = shape();
    int size = shape.channels() * shape.height() * shape.width();
    byte[] levels = Arrays.copyOfRange(pixels.levels(), k * size, (k + 1) * size);
    return ImageFiles.picture(levels, shape.channels(), shape.height(), shape.width());
  }

  private Tensor decoded() {
    ByteArrayOutputStream levels = new ByteArrayOutputStream();
    Shape first = null;
    for (int k = 0; k < files.size(); k++) {
      BufferedImage picture = picture(k);
      byte[] own = ImageFiles.levels(picture);
      int plane = picture.getHeight() * picture.getWidth();
      Shape shape =
          new Shape(files.size(), own.length / plane, picture.getHeight(), picture.getWidth());
      if (first != null && !first.equals(shape)) {
        throw new IllegalStateException("the files have the shapes " + first + " and " + shape);
      }
      first = shape;
      levels.writeBytes(own);
    }
    if (first == null) {
      throw new IllegalStateException("there are no files");
    }
    return Tensor.ofLevels(FIELD, levels.toByteArray(), first.toArray());
  }

  @Override
  public String toString() {
    return files != null ? files.size() + " image files" : "images " + pixels;
  }
}
