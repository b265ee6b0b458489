// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc.HealthImplBase;
import io.grpc.stub.StreamObserver;
import io.latentserve.v1.DecodeRequest;
import io.latentserve.v1.DecodeResponse;
import io.latentserve.v1.DenoiseRequest;
import io.latentserve.v1.DenoiseResponse;
import io.latentserve.v1.EncodeRequest;
import io.latentserve.v1.EncodeResponse;
import io.latentserve.v1.GenerativeServiceGrpc.GenerativeServiceImplBase;
import io.latentserve.v1.GetModelRequest;
import io.latentserve.v1.GetModelResponse;
import io.latentserve.v1.ImageFormat;
import io.latentserve.v1.ListModelsRequest;
import io.latentserve.v1.ListModelsResponse;
import io.latentserve.v1.ModelServiceGrpc.ModelServiceImplBase;
import io.latentserve.v1.ReconstructRequest;
import io.latentserve.v1.ReconstructResponse;
import io.latentserve.v1.ReloadModelsRequest;
import io.latentserve.v1.ReloadModelsResponse;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalLong;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Tests of the request and the result of every call. */
final class CallsTest {
  private static final io.latentserve.v1.ServedBy BY =
      io.latentserve.v1.ServedBy.newBuilder()
          .setName("mnist-vae")
          .setVersion(2)
          .setDigest("d")
          .setProvider("p")
          .build();
  private static final io.latentserve.v1.Timings TIMINGS =
      io.latentserve.v1.Timings.newBuilder().setQueueNs(1).setComputeNs(2).setBatchRows(3).build();

  private final BlockingQueue<Object> got = new LinkedBlockingQueue<>();
  private TestServer server;
  private LatentserveClient client;

  @BeforeEach
  void start() throws IOException {
    server = TestServer.start(new Generative(), new Models(), new Health());
    client = LatentserveClient.builder(server.address()).model("mnist-vae").build();
  }

  @AfterEach
  void stop() {
    client.close();
    server.close();
  }

  private <T> void answer(Object request, T reply, StreamObserver<T> replies) {
    got.add(request);
    replies.onNext(reply);
    replies.onCompleted();
  }

  private static void checkSignature(ServedBy by, Timings timings) {
    assertEquals(new ServedBy("mnist-vae", 2, "d", "p"), by);
    assertEquals(new Timings(Duration.ofNanos(1), Duration.ofNanos(2), 3), timings);
  }

  @Test
  void encode() throws InterruptedException {
    EncodeResult mean = client.encode(TestServer.image(7));
    EncodeRequest sent = (EncodeRequest) got.take();
    assertEquals("mnist-vae", sent.getModel().getName());
    assertEquals(7, sent.getImages().getTensor().getData().byteAt(0));
    assertEquals(false, sent.hasSeed());
    assertArrayEquals(new float[] {1, 2}, mean.latents().floats());
    assertEquals(OptionalLong.empty(), mean.seed());
    assertEquals(Optional.empty(), mean.logVariance());
    checkSignature(mean.servedBy(), mean.timings());

    EncodeResult sampled = client.encode(TestServer.image(7), -1);
    assertEquals(-1, ((EncodeRequest) got.take()).getSeed());
    assertEquals(OptionalLong.of(-1), sampled.seed());
    assertArrayEquals(new float[] {1, 2}, sampled.logVariance().orElseThrow().floats());
  }

  @Test
  void decode() throws InterruptedException {
    ImagesResult result =
        client.withModel("other:3").decode(Tensor.latents(new float[4], 2), Format.PNG);
    DecodeRequest sent = (DecodeRequest) got.take();
    assertEquals("other", sent.getModel().getName());
    assertEquals(3, sent.getModel().getVersion());
    assertEquals(List.of(2L, 2L), sent.getLatents().getShapeList());
    assertEquals(ImageFormat.IMAGE_FORMAT_PNG, sent.getOutputFormat());
    assertArrayEquals(new byte[] {9}, result.images().levels());
    checkSignature(result.servedBy(), result.timings());
    Tensor images = Images.ofFloats(new float[4], new Shape(1, 1, 2, 2)).pixels();
    assertThrows(LatentserveException.class, () -> client.decode(images));
  }

  @Test
  void reconstructAndDenoise() throws InterruptedException {
    ReconstructResult again = client.reconstruct(TestServer.image(7), Format.UINT8);
    assertEquals(
        ImageFormat.IMAGE_FORMAT_UINT8, ((ReconstructRequest) got.take()).getOutputFormat());
    assertEquals(List.of(0.5f), again.squaredError());
    checkSignature(again.servedBy(), again.timings());
    ImagesResult clean = client.denoise(TestServer.image(7), Format.FLOAT16);
    assertEquals(ImageFormat.IMAGE_FORMAT_FLOAT16, ((DenoiseRequest) got.take()).getOutputFormat());
    checkSignature(clean.servedBy(), clean.timings());
  }

  @Test
  void models() throws InterruptedException {
    ModelList list = client.models();
    assertEquals("mnist-vae", list.defaultModel());
    Model model = list.models().get(0);
    assertEquals("mnist-vae:2", model.ref());
    assertEquals(Model.State.READY, model.state());
    assertEquals(List.of(Operation.ENCODE, Operation.UNKNOWN), model.operations());
    assertEquals(Optional.of(new Model.Likelihood("gaussian", 0.5)), model.likelihood());
    assertEquals(OptionalDouble.empty(), model.metrics().get(0).baseline());
    assertEquals(OptionalDouble.of(2.0), model.metrics().get(1).baseline());
    got.take();
    client.model();
    assertEquals("mnist-vae", ((GetModelRequest) got.take()).getModel().getName());
    client.model("other:3");
    assertEquals(3, ((GetModelRequest) got.take()).getModel().getVersion());
  }

  @Test
  void reload() throws InterruptedException {
    List<ReloadOutcome> outcomes = client.reloadModels("mnist-vae");
    assertEquals(List.of("mnist-vae"), ((ReloadModelsRequest) got.take()).getNamesList());
    assertEquals(
        List.of(new ReloadOutcome("mnist-vae", 3, ReloadOutcome.Action.REFUSED, "why")), outcomes);
  }

  @Test
  void health() {
    assertEquals(HealthStatus.SERVING, client.health(""));
    try (ReplyStream<HealthStatus> statuses = client.watchHealth("mnist-vae")) {
      assertEquals(
          List.of(HealthStatus.NOT_SERVING, HealthStatus.SERVING),
          statuses.stream().limit(2).toList());
    }
  }

  @Test
  void closingAViewKeepsTheConnection() {
    client.withTimeout(Duration.ofSeconds(5)).close();
    assertEquals(HealthStatus.SERVING, client.health(""));
    client.close();
    LatentserveException failure =
        assertThrows(LatentserveException.class, () -> client.health(""));
    assertTrue(failure.getMessage().contains("shutdown"), failure.getMessage());
  }

  private final class Generative extends GenerativeServiceImplBase {
    @Override
    public void encode(EncodeRequest request, StreamObserver<EncodeResponse> replies) {
      io.latentserve.v1.Tensor latents = Tensor.latents(new float[] {1, 2}, 1).toMessage();
      EncodeResponse.Builder reply =
          EncodeResponse.newBuilder().setLatents(latents).setServedBy(BY).setTimings(TIMINGS);
      if (request.hasSeed()) {
        reply.setSeed(request.getSeed()).setLogVariance(latents);
      }
      answer(request, reply.build(), replies);
    }

    @Override
    public void decode(DecodeRequest request, StreamObserver<DecodeResponse> replies) {
      answer(
          request,
          DecodeResponse.newBuilder()
              .setImages(TestServer.pixel(9))
              .setServedBy(BY)
              .setTimings(TIMINGS)
              .build(),
          replies);
    }

    @Override
    public void reconstruct(
        ReconstructRequest request, StreamObserver<ReconstructResponse> replies) {
      answer(
          request,
          ReconstructResponse.newBuilder()
              .setImages(TestServer.pixel(9))
              .addSquaredError(0.5f)
              .setServedBy(BY)
              .setTimings(TIMINGS)
              .build(),
          replies);
    }

    @Override
    public void denoise(DenoiseRequest request, StreamObserver<DenoiseResponse> replies) {
      answer(
          request,
          DenoiseResponse.newBuilder()
              .setImages(TestServer.pixel(9))
              .setServedBy(BY)
              .setTimings(TIMINGS)
              .build(),
          replies);
    }
  }

  private final class Models extends ModelServiceImplBase {
    private io.latentserve.v1.Model model() {
      return io.latentserve.v1.Model.newBuilder()
          .setName("mnist-vae")
          .setVersion(2)
          .setState(io.latentserve.v1.Model.State.STATE_READY)
          .addOperations(io.latentserve.v1.Operation.OPERATION_ENCODE)
          .addOperationsValue(77)
          .setLikelihood(
              io.latentserve.v1.Likelihood.newBuilder().setFamily("gaussian").setSigma(0.5))
          .addMetrics(io.latentserve.v1.Metric.newBuilder().setName("a"))
          .addMetrics(io.latentserve.v1.Metric.newBuilder().setName("b").setBaseline(2))
          .build();
    }

    @Override
    public void listModels(ListModelsRequest request, StreamObserver<ListModelsResponse> replies) {
      answer(
          request,
          ListModelsResponse.newBuilder().addModels(model()).setDefaultModel("mnist-vae").build(),
          replies);
    }

    @Override
    public void getModel(GetModelRequest request, StreamObserver<GetModelResponse> replies) {
      answer(request, GetModelResponse.newBuilder().setModel(model()).build(), replies);
    }

    @Override
    public void reloadModels(
        ReloadModelsRequest request, StreamObserver<ReloadModelsResponse> replies) {
      answer(
          request,
          ReloadModelsResponse.newBuilder()
              .addOutcomes(
                  io.latentserve.v1.ReloadOutcome.newBuilder()
                      .setName("mnist-vae")
                      .setVersion(3)
                      .setAction(io.latentserve.v1.ReloadOutcome.Action.ACTION_REFUSED)
                      .setReason("why"))
              .build(),
          replies);
    }
  }

  private final class Health extends HealthImplBase {
    @Override
    public void check(HealthCheckRequest request, StreamObserver<HealthCheckResponse> replies) {
      answer(request, reply(ServingStatus.SERVING), replies);
    }

    @Override
    public void watch(HealthCheckRequest request, StreamObserver<HealthCheckResponse> replies) {
      replies.onNext(reply(ServingStatus.NOT_SERVING));
      replies.onNext(reply(ServingStatus.SERVING));
    }

    private HealthCheckResponse reply(ServingStatus status) {
      return HealthCheckResponse.newBuilder().setStatus(status).build();
    }
  }
}
