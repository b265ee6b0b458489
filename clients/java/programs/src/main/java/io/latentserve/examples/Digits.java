// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.examples;

import io.latentserve.client.Format;
import io.latentserve.client.Images;
import io.latentserve.client.LatentserveClient;
import io.latentserve.client.LatentserveException;
import io.latentserve.client.ReconstructResult;
import io.latentserve.client.SampleRequest;
import io.latentserve.client.SampleResult;
import io.latentserve.client.Shape;
import io.latentserve.client.Violation;
import java.awt.Graphics2D;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import javax.imageio.ImageIO;

/**
 * Example: samples eight digits into a PNG file, reconstructs one, and prints the error of an
 * invalid request.
 *
 * <pre>{@code --address 127.0.0.1:50051 --model mnist-vae --out .}</pre>
 */
public final class Digits {
  private static final int COLUMNS = 4;
  private static final int GAP = 4; // pixels

  private Digits() {}

  /** Runs the example. */
  public static void main(String[] arguments) throws IOException {
    Map<String, String> options = new HashMap<>();
    for (int i = 0; i < arguments.length; i += 2) {
      if (!Set.of("--address", "--model", "--out").contains(arguments[i])
          || i + 1 == arguments.length) {
        throw new IllegalArgumentException(
            "usage: --address HOST:PORT --model NAME --out FOLDER; unknown argument "
                + arguments[i]);
      }
      options.put(arguments[i], arguments[i + 1]);
    }
    String address = options.getOrDefault("--address", "127.0.0.1:50051");
    try (LatentserveClient client =
        LatentserveClient.builder(address)
            .model(options.getOrDefault("--model", "mnist-vae"))
            .build()) {
      run(client, Path.of(options.getOrDefault("--out", ".")), System.out);
    }
  }

  static void run(LatentserveClient client, Path folder, PrintStream out) throws IOException {
    SampleResult sampled = client.sample(SampleRequest.of(8).withSeed(7).withFormat(Format.PNG));
    Path samples = folder.resolve("samples.png");
    writeGrid(samples, sampled.images());
    out.printf(
        "%s: %d digits of %s:%d, seed %s%n",
        samples,
        sampled.images().count(),
        sampled.servedBy().name(),
        sampled.servedBy().version(),
        Long.toUnsignedString(sampled.seed()));

    // Any PNG or JPEG file of the model's size works; this one was sampled above.
    byte[] file = sampled.images().file(0);
    ReconstructResult again = client.reconstruct(Images.ofFiles(file));
    Path reconstructed = folder.resolve("reconstructed.png");
    writeGrid(reconstructed, again.images());
    out.printf(
        "%s: squared error %.3f over %s%n",
        reconstructed, again.squaredError().get(0), again.images().shape());

    Images tooTall = Images.ofFloats(new float[32 * 28], new Shape(1, 1, 32, 28));
    try {
      client.encode(tooTall);
      throw new IllegalStateException("the server accepted an image that is too tall");
    } catch (LatentserveException failure) {
      out.println("expected error: " + failure.getMessage());
      for (Violation violation : failure.violations()) {
        out.println("  " + violation.field() + ": " + violation.description());
      }
    }
  }

  /** Writes the images to a PNG file, four per row. */
  private static void writeGrid(Path path, Images images) throws IOException {
    Shape shape = images.shape();
    int columns = Math.min(COLUMNS, images.count());
    int rows = (images.count() + columns - 1) / columns;
    int width = shape.width() + GAP;
    int height = shape.height() + GAP;
    BufferedImage grid =
        new BufferedImage(columns * width - GAP, rows * height - GAP, BufferedImage.TYPE_INT_RGB);
    Graphics2D graphics = grid.createGraphics();
    for (int k = 0; k < images.count(); k++) {
      graphics.drawImage(images.picture(k), k % columns * width, k / columns * height, null);
    }
    graphics.dispose();
    ImageIO.write(grid, "png", path.toFile());
  }
}
