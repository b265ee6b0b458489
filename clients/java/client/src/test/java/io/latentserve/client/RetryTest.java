// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

import io.grpc.InsecureServerCredentials;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Status;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthGrpc.HealthImplBase;
import io.grpc.stub.StreamObserver;
import io.latentserve.v1.GenerativeServiceGrpc.GenerativeServiceImplBase;
import io.latentserve.v1.ListModelsRequest;
import io.latentserve.v1.ListModelsResponse;
import io.latentserve.v1.ModelServiceGrpc.ModelServiceImplBase;
import io.latentserve.v1.ReconstructRequest;
import io.latentserve.v1.ReconstructResponse;
import io.latentserve.v1.SampleStreamRequest;
import io.latentserve.v1.SampleStreamResponse;
import java.io.IOException;
import java.util.List;
import java.util.Locale;
import java.util.function.Consumer;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

final class RetryTest {
  @ParameterizedTest(name = "{0} {1} {2} times, pushback {3}: {4} attempts")
  @CsvSource({
    "RECONSTRUCT, UNAVAILABLE,        3,  1, 4, false",
    "RECONSTRUCT, UNAVAILABLE,        9,  1, 4, true",
    "RECONSTRUCT, RESOURCE_EXHAUSTED, 1, '', 2, false",
    "RECONSTRUCT, CANCELLED,          1, '', 2, false",
    "RECONSTRUCT, UNAVAILABLE,        1, -1, 1, true",
    "RECONSTRUCT, INVALID_ARGUMENT,   1, '', 1, true",
    "RECONSTRUCT, INTERNAL,           1, '', 1, true",
    "LARGE,       UNAVAILABLE,        1,  1, 2, false",
    "STREAM,      UNAVAILABLE,        1,  1, 2, false",
    "MODELS,      UNAVAILABLE,        1, '', 2, false",
    "MODELS,      CANCELLED,          1, '', 2, false",
    "MODELS,      RESOURCE_EXHAUSTED, 1, '', 1, true",
    "HEALTH,      UNAVAILABLE,        1,  1, 1, true"
  })
  void tries(Call call, Status.Code code, int times, String pushback, int attempts, boolean fails)
      throws IOException {
    check(call, code, times, pushback, attempts, fails, channel -> {});
  }

  @ParameterizedTest
  @CsvSource({"RECONSTRUCT", "STREAM", "MODELS"})
  void canBeDisabled(Call call) throws IOException {
    check(call, Status.Code.UNAVAILABLE, 1, "1", 1, true, channel -> channel.disableRetry());
  }

  private static void check(
      Call call,
      Status.Code code,
      int times,
      String pushback,
      int attempts,
      boolean fails,
      Consumer<ManagedChannelBuilder<?>> configuration)
      throws IOException {
    Refusing refusing = new Refusing(code, times, pushback);
    try (TestServer server =
            TestServer.start(
                InsecureServerCredentials.create(),
                List.of(refusing),
                new Generative(),
                new Models(),
                new Health());
        LatentserveClient client =
            LatentserveClient.builder(server.address()).configureChannel(configuration).build()) {
      Status.Code got = null;
      try {
        call.make(client);
      } catch (LatentserveException failure) {
        got = failure.code();
      }
      if (fails) {
        assertEquals(code, got);
      } else {
        assertNull(got);
      }
      assertEquals(attempts, refusing.attempts());
    }
  }

  enum Call {
    RECONSTRUCT {
      @Override
      void make(LatentserveClient client) {
        client.reconstruct(TestServer.image(1));
      }
    },
    LARGE { // above the default retry buffer of gRPC
      @Override
      void make(LatentserveClient client) {
        client.reconstruct(Images.ofLevels(new byte[2 << 20], new Shape(2, 1, 1024, 1024)));
      }
    },
    STREAM {
      @Override
      void make(LatentserveClient client) {
        try (ReplyStream<SampleChunk> chunks = client.sampleStream(SampleRequest.of(1))) {
          assertEquals(1, chunks.stream().count());
        }
      }
    },
    MODELS {
      @Override
      void make(LatentserveClient client) {
        client.models();
      }
    },
    HEALTH {
      @Override
      void make(LatentserveClient client) {
        client.health("");
      }
    };

    abstract void make(LatentserveClient client);

    @Override
    public String toString() {
      return name().toLowerCase(Locale.ROOT);
    }
  }

  private static final class Generative extends GenerativeServiceImplBase {
    @Override
    public void reconstruct(
        ReconstructRequest request, StreamObserver<ReconstructResponse> replies) {
      replies.onNext(ReconstructResponse.newBuilder().setImages(request.getImages()).build());
      replies.onCompleted();
    }

    @Override
    public void sampleStream(
        SampleStreamRequest request, StreamObserver<SampleStreamResponse> replies) {
      replies.onNext(SampleStreamResponse.newBuilder().setImages(TestServer.pixel(1)).build());
      replies.onCompleted();
    }
  }

  private static final class Models extends ModelServiceImplBase {
    @Override
    public void listModels(ListModelsRequest request, StreamObserver<ListModelsResponse> replies) {
      replies.onNext(ListModelsResponse.getDefaultInstance());
      replies.onCompleted();
    }
  }

  private static final class Health extends HealthImplBase {
    @Override
    public void check(HealthCheckRequest request, StreamObserver<HealthCheckResponse> replies) {
      replies.onNext(HealthCheckResponse.getDefaultInstance());
      replies.onCompleted();
    }
  }
}
