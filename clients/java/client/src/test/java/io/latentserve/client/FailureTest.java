// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthGrpc.HealthImplBase;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import io.latentserve.client.LatentserveException.Kind;
import io.latentserve.v1.GenerativeServiceGrpc.GenerativeServiceImplBase;
import io.latentserve.v1.SampleRequest;
import io.latentserve.v1.SampleResponse;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;

final class FailureTest {
  private static LatentserveException failure(RuntimeException answer) throws IOException {
    GenerativeServiceImplBase service =
        new GenerativeServiceImplBase() {
          @Override
          public void sample(SampleRequest request, StreamObserver<SampleResponse> replies) {
            replies.onError(answer);
          }
        };
    try (TestServer server = TestServer.start(service);
        LatentserveClient client =
            LatentserveClient.builder(server.address())
                .configureChannel(channel -> channel.disableRetry())
                .build()) {
      return assertThrows(
          LatentserveException.class,
          () -> client.sample(io.latentserve.client.SampleRequest.of(1)));
    }
  }

  private static RuntimeException status(Status.Code code, String message, Message... details) {
    com.google.rpc.Status.Builder status =
        com.google.rpc.Status.newBuilder().setCode(code.value()).setMessage(message);
    for (Message detail : details) {
      status.addDetails(Any.pack(detail));
    }
    return StatusProto.toStatusRuntimeException(status.build());
  }

  private static ErrorInfo info(String reason, String key, String value) {
    return ErrorInfo.newBuilder()
        .setReason(reason)
        .setDomain("latentserve")
        .putMetadata(key, value)
        .build();
  }

  @Test
  void keepsReasonDomainMetadataAndViolations() throws IOException {
    LatentserveException failure =
        failure(
            status(
                Status.Code.INVALID_ARGUMENT,
                "two fields are wrong",
                info("INVALID_REQUEST", "request_id", "abc"),
                BadRequest.newBuilder()
                    .addFieldViolations(
                        BadRequest.FieldViolation.newBuilder()
                            .setField("count")
                            .setDescription("0; expected 1"))
                    .addFieldViolations(
                        BadRequest.FieldViolation.newBuilder()
                            .setField("offset")
                            .setDescription("-1"))
                    .build()));
    assertEquals(Status.Code.INVALID_ARGUMENT, failure.code());
    assertEquals("two fields are wrong", failure.description());
    assertEquals("INVALID_REQUEST", failure.reason());
    assertEquals("latentserve", failure.domain());
    assertEquals("abc", failure.metadata().get("request_id"));
    assertEquals(
        List.of(new Violation("count", "0; expected 1"), new Violation("offset", "-1")),
        failure.violations());
    assertEquals(Optional.empty(), failure.retryDelay());
    assertEquals(
        "INVALID_ARGUMENT: two fields are wrong; count: 0; expected 1; offset: -1",
        failure.getMessage());
  }

  @Test
  void keepsTheRetryDelay() throws IOException {
    LatentserveException failure =
        failure(
            status(
                Status.Code.RESOURCE_EXHAUSTED,
                "full",
                info("QUEUE_FULL", "queue_rows", "9"),
                RetryInfo.newBuilder()
                    .setRetryDelay(
                        com.google.protobuf.Duration.newBuilder().setSeconds(1).setNanos(5_000_000))
                    .build()));
    assertEquals(Kind.QUEUE_FULL, failure.kind());
    assertEquals(Optional.of(Duration.ofMillis(1005)), failure.retryDelay());
    assertTrue(failure.getMessage().endsWith("; retry after 1005 ms"), failure.getMessage());
  }

  @Test
  void theReasonDeterminesTheKind() throws IOException {
    LatentserveException failure =
        failure(status(Status.Code.NOT_FOUND, "no", info("MODEL_NOT_FOUND", "models", "a, b")));
    assertEquals(Kind.MODEL_NOT_FOUND, failure.kind());
    assertTrue(failure.getMessage().contains("available: a, b"), failure.getMessage());
    failure =
        failure(
            status(
                Status.Code.FAILED_PRECONDITION,
                "no",
                info("OPERATION_NOT_SUPPORTED", "operations", "encode")));
    assertEquals(Kind.OPERATION_NOT_SUPPORTED, failure.kind());
    failure =
        failure(
            status(Status.Code.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs 4)"));
    assertEquals(Kind.MESSAGE_TOO_LARGE, failure.kind());
    failure = failure(status(Status.Code.RESOURCE_EXHAUSTED, "something else"));
    assertEquals(Kind.OTHER, failure.kind());
    failure = failure(status(Status.Code.INTERNAL, "oh", info("ENGINE", "request_id", "abc")));
    assertTrue(failure.getMessage().contains("request id abc"), failure.getMessage());
  }

  @Test
  void anEmptyMessageIsReplaced() throws IOException {
    assertEquals(
        "the server sent no message", failure(Status.INTERNAL.asRuntimeException()).description());
  }

  @Test
  void detailsOfAnotherStatusAreIgnored() throws IOException {
    Metadata trailers = new Metadata();
    trailers.put(
        Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER),
        new byte[] {(byte) 0xff, 1});
    LatentserveException failure =
        failure(Status.UNAVAILABLE.withDescription("proxy").asRuntimeException(trailers));
    assertEquals(Status.Code.UNAVAILABLE, failure.code());
    assertEquals("proxy", failure.description());
    assertEquals("", failure.reason());

    Metadata other =
        Status.trailersFromThrowable(
            status(Status.Code.INTERNAL, "inner", info("ENGINE", "request_id", "abc")));
    failure = failure(Status.UNAVAILABLE.withDescription("proxy").asRuntimeException(other));
    assertEquals(Status.Code.UNAVAILABLE, failure.code());
    assertEquals("", failure.reason());
  }

  @Test
  void aRequestAboveTheLimitIsNotSent() {
    try (LatentserveClient client =
        LatentserveClient.builder("127.0.0.1:1").maxMessageBytes(100).build()) {
      Images images = Images.ofLevels(new byte[100], new Shape(1, 1, 10, 10));
      LatentserveException failure =
          assertThrows(LatentserveException.class, () -> client.encode(images));
      assertEquals(Status.Code.RESOURCE_EXHAUSTED, failure.code());
      assertEquals(Kind.MESSAGE_TOO_LARGE, failure.kind());
    }
  }

  @Test
  void aReplyAboveTheLimitIsAnError() throws IOException {
    GenerativeServiceImplBase service =
        new GenerativeServiceImplBase() {
          @Override
          public void sample(SampleRequest request, StreamObserver<SampleResponse> replies) {
            int side = request.getCount();
            Images images = Images.ofLevels(new byte[side * side], new Shape(1, 1, side, side));
            replies.onNext(SampleResponse.newBuilder().setImages(images.toMessage()).build());
            replies.onCompleted();
          }
        };
    try (TestServer server = TestServer.start(service);
        LatentserveClient small =
            LatentserveClient.builder(server.address()).maxMessageBytes(5 << 20).build()) {
      // Above gRPC's default of 4 MiB.
      assertEquals(
          new Shape(1, 1, 2100, 2100),
          small.sample(io.latentserve.client.SampleRequest.of(2100)).images().shape());
      LatentserveException failure =
          assertThrows(
              LatentserveException.class,
              () -> small.sample(io.latentserve.client.SampleRequest.of(2400)));
      assertEquals(Kind.MESSAGE_TOO_LARGE, failure.kind());
    }
  }

  @Test
  void anUnreachableServerIsUnavailable() {
    try (LatentserveClient client = LatentserveClient.builder("127.0.0.1:1").build()) {
      LatentserveException failure =
          assertThrows(LatentserveException.class, () -> client.health(""));
      assertEquals(Status.Code.UNAVAILABLE, failure.code());
      assertTrue(failure.getMessage().contains("127.0.0.1:1"), failure.getMessage());
    }
  }

  @Test
  void anUnknownHealthServiceIsNotFound() throws IOException {
    HealthImplBase service =
        new HealthImplBase() {
          @Override
          public void check(
              HealthCheckRequest request, StreamObserver<HealthCheckResponse> replies) {
            replies.onError(Status.NOT_FOUND.asRuntimeException());
          }
        };
    try (TestServer server = TestServer.start(service);
        LatentserveClient client = server.client()) {
      LatentserveException failure =
          assertThrows(LatentserveException.class, () -> client.health("mnist-vea"));
      assertEquals("NOT_FOUND: unknown service or model \"mnist-vea\"", failure.getMessage());
    }
  }

  @Test
  void survivesSerialization() throws IOException, ClassNotFoundException {
    LatentserveException failure = LatentserveException.invalid("count", "0");
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
      out.writeObject(failure);
    }
    try (ObjectInputStream in =
        new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray()))) {
      LatentserveException copy = (LatentserveException) in.readObject();
      assertEquals(failure.violations(), copy.violations());
      assertEquals(failure.getMessage(), copy.getMessage());
    }
  }

  @Test
  void invalidModelNamesAreRefused() {
    for (String model : List.of("a:", "a:0", "a:x", "a:-1", "a:+1", "a:2147483648", "a:1:2")) {
      LatentserveException failure =
          assertThrows(LatentserveException.class, () -> LatentserveClient.ref(model), model);
      assertEquals("model", failure.violations().get(0).field());
    }
    assertEquals(Integer.MAX_VALUE, LatentserveClient.ref("a:2147483647").getVersion());
    assertEquals(0, LatentserveClient.ref("a").getVersion());
  }
}
