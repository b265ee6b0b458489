// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import io.latentserve.client.LatentserveClient;
import io.latentserve.client.Shape;
import io.latentserve.v1.EncodeRequest;
import io.latentserve.v1.EncodeResponse;
import io.latentserve.v1.EncodedImages;
import io.latentserve.v1.GenerativeServiceGrpc.GenerativeServiceImplBase;
import io.latentserve.v1.Images;
import io.latentserve.v1.ReconstructRequest;
import io.latentserve.v1.ReconstructResponse;
import io.latentserve.v1.SampleRequest;
import io.latentserve.v1.SampleResponse;
import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class DigitsTest {
  /** Fake service that returns images of 28 by 28 pixels with increasing brightness. */
  private static final class FakeService extends GenerativeServiceImplBase {
    @Override
    public void sample(SampleRequest request, StreamObserver<SampleResponse> replies) {
      EncodedImages.Builder files = EncodedImages.newBuilder();
      for (int k = 0; k < request.getCount(); k++) {
        byte[] levels = new byte[28 * 28];
        java.util.Arrays.fill(levels, (byte) (10 * k));
        Shape shape = new Shape(1, 1, 28, 28);
        files.addFiles(
            ByteString.copyFrom(io.latentserve.client.Images.ofLevels(levels, shape).file(0)));
      }
      replies.onNext(
          SampleResponse.newBuilder()
              .setImages(Images.newBuilder().setEncoded(files))
              .setSeed(request.getSeed())
              .build());
      replies.onCompleted();
    }

    @Override
    public void reconstruct(
        ReconstructRequest request, StreamObserver<ReconstructResponse> replies) {
      replies.onNext(
          ReconstructResponse.newBuilder()
              .setImages(request.getImages())
              .addSquaredError(2.5f)
              .build());
      replies.onCompleted();
    }

    @Override
    public void encode(EncodeRequest request, StreamObserver<EncodeResponse> replies) {
      replies.onError(Status.INVALID_ARGUMENT.withDescription("too tall").asRuntimeException());
    }
  }

  @Test
  void writesAGridAndAReconstruction(@TempDir Path folder) throws IOException {
    Server server =
        Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
            .addService(new FakeService())
            .build()
            .start();
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    try (LatentserveClient client =
        LatentserveClient.builder("127.0.0.1:" + server.getPort()).build()) {
      Digits.run(client, folder, new PrintStream(out, true, StandardCharsets.UTF_8));
    } finally {
      server.shutdownNow();
    }
    String output = out.toString(StandardCharsets.UTF_8);
    assertTrue(output.contains("8 digits"), output);
    assertTrue(output.contains("seed 7"), output);
    assertTrue(output.contains("squared error 2.500 over [1, 1, 28, 28]"), output);
    assertTrue(output.contains("INVALID_ARGUMENT: too tall"), output);

    BufferedImage grid = ImageIO.read(folder.resolve("samples.png").toFile());
    assertEquals(4 * 32 - 4, grid.getWidth());
    assertEquals(2 * 32 - 4, grid.getHeight());
    assertTrue((grid.getRGB(32 * 3, 32) & 0xff) > (grid.getRGB(32 * 2, 32) & 0xff));
    assertEquals(28, ImageIO.read(folder.resolve("reconstructed.png").toFile()).getWidth());
  }
}
