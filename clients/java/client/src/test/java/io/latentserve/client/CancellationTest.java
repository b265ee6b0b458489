// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Context;
import io.grpc.Status;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import io.latentserve.v1.GenerativeServiceGrpc.GenerativeServiceImplBase;
import io.latentserve.v1.ModelServiceGrpc.ModelServiceImplBase;
import io.latentserve.v1.ReloadModelsRequest;
import io.latentserve.v1.ReloadModelsResponse;
import io.latentserve.v1.SampleResponse;
import java.io.IOException;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(20)
final class CancellationTest {
  private final CountDownLatch arrived = new CountDownLatch(1);
  private final CountDownLatch cancelled = new CountDownLatch(1);
  private final CompletableFuture<Long> leftMs = new CompletableFuture<>();
  private TestServer server;
  private LatentserveClient client;

  @BeforeEach
  void start() throws IOException {
    // Never replies.
    GenerativeServiceImplBase held =
        new GenerativeServiceImplBase() {
          @Override
          public void sample(
              io.latentserve.v1.SampleRequest request, StreamObserver<SampleResponse> replies) {
            ((ServerCallStreamObserver<SampleResponse>) replies)
                .setOnCancelHandler(cancelled::countDown);
            leftMs.complete(Context.current().getDeadline().timeRemaining(TimeUnit.MILLISECONDS));
            arrived.countDown();
          }
        };
    ModelServiceImplBase models =
        new ModelServiceImplBase() {
          @Override
          public void reloadModels(
              ReloadModelsRequest request, StreamObserver<ReloadModelsResponse> replies) {
            leftMs.complete(Context.current().getDeadline().timeRemaining(TimeUnit.MILLISECONDS));
            replies.onNext(ReloadModelsResponse.getDefaultInstance());
            replies.onCompleted();
          }
        };
    server = TestServer.start(held, models);
    client = server.client();
  }

  @AfterEach
  void stop() {
    client.close();
    server.close();
  }

  private static Status.Code codeOf(LatentserveClient client) {
    return assertThrows(LatentserveException.class, () -> client.sample(SampleRequest.of(1)))
        .code();
  }

  @Test
  void byTheContextOfTheCall() throws Exception {
    Context.CancellableContext context = Context.current().withCancellation();
    CompletableFuture<Status.Code> code =
        CompletableFuture.supplyAsync(
            () -> codeOf(client), run -> new Thread(context.wrap(run)).start());
    arrived.await();
    context.cancel(null);
    assertEquals(Status.Code.CANCELLED, code.get());
    assertTrue(cancelled.await(10, TimeUnit.SECONDS));
  }

  @Test
  void byAnInterrupt() throws InterruptedException, ExecutionException {
    CompletableFuture<Status.Code> code = new CompletableFuture<>();
    CompletableFuture<Boolean> flag = new CompletableFuture<>();
    Thread thread =
        new Thread(
            () -> {
              code.complete(codeOf(client));
              flag.complete(Thread.currentThread().isInterrupted());
            });
    thread.start();
    arrived.await();
    thread.interrupt();
    assertEquals(Status.Code.CANCELLED, code.get());
    assertTrue(flag.get(), "the interrupt flag of the thread was lost");
    assertTrue(cancelled.await(10, TimeUnit.SECONDS));
  }

  @Test
  void byTheTimeout() {
    assertEquals(Status.Code.DEADLINE_EXCEEDED, codeOf(client.withTimeout(Duration.ofMillis(50))));
  }

  @Test
  void theServerReceivesTheDeadline() throws InterruptedException, ExecutionException {
    Context.CancellableContext context = Context.current().withCancellation();
    new Thread(context.wrap((Runnable) () -> codeOf(client.withTimeout(Duration.ofHours(1)))))
        .start();
    long left = leftMs.get();
    context.cancel(null);
    assertTrue(left > Duration.ofMinutes(50).toMillis(), left + " ms");
  }

  @Test
  void aReloadHasALongerTimeout() throws InterruptedException, ExecutionException {
    client.reloadModels();
    assertTrue(leftMs.get() > Duration.ofSeconds(60).toMillis());
  }

  @Test
  void aZeroTimeoutIsRefused() {
    for (Duration none : new Duration[] {Duration.ZERO, Duration.ofSeconds(-1)}) {
      assertThrows(LatentserveException.class, () -> client.withTimeout(none));
      assertThrows(LatentserveException.class, () -> LatentserveClient.builder("x").timeout(none));
    }
  }
}
