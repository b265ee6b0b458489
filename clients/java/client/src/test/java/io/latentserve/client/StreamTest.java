// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import io.latentserve.v1.GenerativeServiceGrpc.GenerativeServiceImplBase;
import io.latentserve.v1.SampleStreamRequest;
import io.latentserve.v1.SampleStreamResponse;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(20)
final class StreamTest {
  /** Streams one image per row of the seed's sequence of samples, with flow control. */
  private static final class Rows extends GenerativeServiceImplBase {
    private final CountDownLatch cancelled = new CountDownLatch(1);
    private final AtomicLong sent = new AtomicLong();

    @Override
    public void sampleStream(
        SampleStreamRequest request, StreamObserver<SampleStreamResponse> replies) {
      ServerCallStreamObserver<SampleStreamResponse> calls =
          (ServerCallStreamObserver<SampleStreamResponse>) replies;
      calls.setOnCancelHandler(cancelled::countDown);
      AtomicLong next = new AtomicLong(request.getOffset());
      long end = request.getOffset() + request.getCount();
      calls.setOnReadyHandler(
          () -> {
            while (calls.isReady() && next.get() < end) {
              long row = next.getAndIncrement();
              sent.incrementAndGet();
              calls.onNext(
                  SampleStreamResponse.newBuilder()
                      .setImages(TestServer.pixel((int) row & 0x7f))
                      .setSeed(request.getSeed())
                      .setOffset(row)
                      .build());
              if (row + 1 == end) {
                calls.onCompleted();
              }
            }
          });
    }
  }

  private static List<Integer> levels(LatentserveClient client, SampleRequest request) {
    try (ReplyStream<SampleChunk> chunks = client.sampleStream(request)) {
      return chunks.stream().map(chunk -> (int) chunk.images().levels()[0]).toList();
    }
  }

  @Test
  void resumesAfterAChunk() throws IOException {
    try (TestServer server = TestServer.start(new Rows());
        LatentserveClient client = server.client()) {
      SampleRequest request = SampleRequest.of(5).withSeed(3).withOffset(10);
      assertEquals(List.of(10, 11, 12, 13, 14), levels(client, request));
      List<Integer> got = new ArrayList<>();
      SampleRequest rest = null;
      try (ReplyStream<SampleChunk> chunks = client.sampleStream(request)) {
        for (SampleChunk chunk : chunks) {
          assertEquals(3, chunk.seed());
          got.add((int) chunk.images().levels()[0]);
          if (got.size() == 2) {
            rest = request.after(chunk).orElseThrow();
            break;
          }
        }
      }
      got.addAll(levels(client, rest));
      assertEquals(List.of(10, 11, 12, 13, 14), got);
    }
  }

  @Test
  void leavingTheTryStatementCancelsTheCall() throws IOException, InterruptedException {
    Rows rows = new Rows();
    try (TestServer server = TestServer.start(rows);
        LatentserveClient client = server.client()) {
      try (ReplyStream<SampleChunk> chunks = client.sampleStream(SampleRequest.of(1L << 40))) {
        assertTrue(chunks.iterator().hasNext());
      }
      assertTrue(rows.cancelled.await(10, TimeUnit.SECONDS));
      assertTrue(rows.sent.get() < 1L << 40);
    }
  }

  @Test
  void closingTheJavaStreamCancelsTheCall() throws IOException, InterruptedException {
    Rows rows = new Rows();
    try (TestServer server = TestServer.start(rows);
        LatentserveClient client = server.client()) {
      try (var chunks = client.sampleStream(SampleRequest.of(1L << 40)).stream()) {
        assertEquals(3, chunks.limit(3).count());
      }
      assertTrue(rows.cancelled.await(10, TimeUnit.SECONDS));
    }
  }

  @Test
  void canBeReadOnlyOnce() throws IOException {
    try (TestServer server = TestServer.start(new Rows());
        LatentserveClient client = server.client();
        ReplyStream<SampleChunk> chunks = client.sampleStream(SampleRequest.of(1))) {
      Iterator<SampleChunk> replies = chunks.iterator();
      assertThrows(IllegalStateException.class, chunks::iterator);
      replies.next();
      assertFalse(replies.hasNext());
    }
  }

  @Test
  void anErrorAfterAChunkIsThrown() throws IOException {
    GenerativeServiceImplBase service =
        new GenerativeServiceImplBase() {
          @Override
          public void sampleStream(
              SampleStreamRequest request, StreamObserver<SampleStreamResponse> replies) {
            replies.onNext(
                SampleStreamResponse.newBuilder().setImages(TestServer.pixel(1)).build());
            replies.onError(Status.UNAVAILABLE.withDescription("draining").asRuntimeException());
          }
        };
    try (TestServer server = TestServer.start(service);
        LatentserveClient client = server.client();
        ReplyStream<SampleChunk> chunks = client.sampleStream(SampleRequest.of(2))) {
      Iterator<SampleChunk> replies = chunks.iterator();
      replies.next();
      LatentserveException failure = assertThrows(LatentserveException.class, replies::hasNext);
      assertEquals(Status.Code.UNAVAILABLE, failure.code());
      assertEquals("draining", failure.description());
    }
  }

  @Test
  void anInvalidReplyCancelsTheCall() throws IOException, InterruptedException {
    CountDownLatch cancelled = new CountDownLatch(1);
    GenerativeServiceImplBase service =
        new GenerativeServiceImplBase() {
          @Override
          public void sampleStream(
              SampleStreamRequest request, StreamObserver<SampleStreamResponse> replies) {
            ((ServerCallStreamObserver<SampleStreamResponse>) replies)
                .setOnCancelHandler(cancelled::countDown);
            replies.onNext(SampleStreamResponse.getDefaultInstance());
          }
        };
    try (TestServer server = TestServer.start(service);
        LatentserveClient client = server.client();
        ReplyStream<SampleChunk> chunks = client.sampleStream(SampleRequest.of(2))) {
      Iterator<SampleChunk> replies = chunks.iterator();
      LatentserveException failure = assertThrows(LatentserveException.class, replies::next);
      assertEquals(LatentserveException.Kind.BAD_REPLY, failure.kind());
      assertTrue(cancelled.await(10, TimeUnit.SECONDS));
    }
  }
}
