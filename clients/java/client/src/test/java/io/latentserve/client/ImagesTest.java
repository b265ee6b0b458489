// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class ImagesTest {
  private static final byte[] GREY = {0, 50, 100, (byte) 150, (byte) 200, (byte) 255};

  @Test
  void greyLevelsSurviveAPngFile() {
    Images images = Images.ofLevels(GREY, new Shape(1, 1, 2, 3));
    Images read = Images.ofFiles(images.file(0));
    assertTrue(read.isFiles());
    assertEquals(new Shape(1, 1, 2, 3), read.shape());
    assertArrayEquals(GREY, read.levels());
  }

  @Test
  void coloursSurviveAPngFile() {
    byte[] levels = {1, 2, 3, 4, 5, 6, 7, 8, (byte) 255};
    Images read = Images.ofFiles(Images.ofLevels(levels, new Shape(1, 3, 1, 3)).file(0));
    assertEquals(new Shape(1, 3, 1, 3), read.shape());
    assertArrayEquals(levels, read.levels());
  }

  @Test
  void palettesAreDecodedAsColour() throws IOException {
    BufferedImage picture = new BufferedImage(1, 1, BufferedImage.TYPE_BYTE_INDEXED);
    picture.setRGB(0, 0, 0xff0000);
    ByteArrayOutputStream file = new ByteArrayOutputStream();
    ImageIO.write(picture, "png", file);
    Images images = Images.ofFiles(file.toByteArray());
    assertArrayEquals(new byte[] {(byte) 255, 0, 0}, images.levels());
  }

  @Test
  void filesAreSentUnchanged(@TempDir Path folder) throws IOException {
    Path path = folder.resolve("x.jpg");
    Files.write(path, new byte[] {1, 2, 3});
    io.latentserve.v1.Images message = Images.ofFiles(path).toMessage();
    assertArrayEquals(new byte[] {1, 2, 3}, message.getEncoded().getFiles(0).toByteArray());
    assertThrows(IOException.class, () -> Images.ofFiles(folder.resolve("missing.png")));
  }

  @Test
  void bufferedImagesAreSentAsPng() {
    BufferedImage picture = Images.ofLevels(GREY, new Shape(1, 1, 2, 3)).picture(0);
    Images images = Images.ofPictures(picture, picture);
    assertEquals(2, images.count());
    assertEquals(new Shape(2, 1, 2, 3), images.shape());
    assertEquals('P', images.file(1)[1]);
  }

  @Test
  void oneOfSeveralImages() {
    Images images = Images.ofFloats(new float[] {0f, 1f}, new Shape(2, 1, 1, 1));
    assertFalse(images.isFiles());
    assertEquals(0, images.picture(0).getRaster().getSample(0, 0, 0));
    assertEquals(255, images.picture(1).getRaster().getSample(0, 0, 0));
  }

  @Test
  void invalidImagesAreRefused() {
    LatentserveException failure =
        assertThrows(
            LatentserveException.class, () -> Images.ofFloats(new float[3], new Shape(1, 1, 2, 2)));
    assertEquals("images.tensor", failure.violations().get(0).field());
    failure = assertThrows(LatentserveException.class, () -> Images.ofFiles(List.of()));
    assertEquals("images.encoded.files", failure.violations().get(0).field());
    Images rubbish = Images.ofFiles(new byte[] {1, 2, 3});
    assertThrows(UncheckedIOException.class, rubbish::pixels);
    Images mixed =
        Images.ofFiles(
            Images.ofLevels(GREY, new Shape(1, 1, 2, 3)).file(0),
            Images.ofLevels(GREY, new Shape(1, 1, 3, 2)).file(0));
    assertThrows(IllegalStateException.class, mixed::pixels);
    Images two = Images.ofFloats(new float[2], new Shape(1, 2, 1, 1));
    assertThrows(IllegalStateException.class, () -> two.picture(0));
  }

  @Test
  void aReplyWithoutImagesIsAnError() {
    LatentserveException failure =
        assertThrows(
            LatentserveException.class,
            () -> Images.from(io.latentserve.v1.Images.getDefaultInstance()));
    assertEquals(LatentserveException.Kind.BAD_REPLY, failure.kind());
  }
}
