// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import static java.util.concurrent.TimeUnit.MILLISECONDS;

import com.google.gson.JsonObject;
import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;
import io.latentserve.client.HealthStatus;
import io.latentserve.client.Images;
import io.latentserve.client.LatentserveClient;
import io.latentserve.client.LatentserveClientBuilder;
import io.latentserve.client.ReplyStream;
import io.latentserve.client.SampleChunk;
import io.latentserve.client.SampleRequest;
import io.latentserve.client.Shape;
import io.latentserve.client.Tensor;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;

/** Executes the calls of cases; holds one client per server, with and without retries. */
final class Caller implements AutoCloseable {
  private final Map<String, String> addresses;
  private final CaseFolder folder;
  private final Map<String, LatentserveClient> clients = new ConcurrentHashMap<>();
  private final ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();

  Caller(Map<String, String> addresses, CaseFolder folder) {
    this.addresses = addresses;
    this.folder = folder;
  }

  @Override
  public void close() {
    clients.values().forEach(LatentserveClient::close);
    timer.shutdownNow();
  }

  /** Executes the call of a case. Throws the exceptions of the client. */
  CallResult call(TestCase test) {
    Context.CancellableContext context = Context.current().withCancellation();
    Optional<Future<?>> cancelling =
        test.cancelAfter()
            .map(
                delay ->
                    timer.schedule(() -> context.cancel(null), delay.toMillis(), MILLISECONDS));
    Context outer = context.attach();
    try {
      LatentserveClient client = client(test);
      return test.through().equals("client")
          ? throughClient(client, test)
          : new StubCalls(client.channel(), folder).call(test);
    } finally {
      context.detach(outer);
      context.cancel(null);
      cancelling.ifPresent(timed -> timed.cancel(false));
    }
  }

  private LatentserveClient client(TestCase test) {
    String address = addresses.get(test.server());
    if (address == null) {
      throw new Mismatch("the servers file has no server \"" + test.server() + "\"");
    }
    Metadata metadata = new Metadata();
    for (String key : test.metadata().keySet()) {
      metadata.put(
          Metadata.Key.of(key, Metadata.ASCII_STRING_MARSHALLER),
          test.metadata().get(key).getAsString());
    }
    return clients
        .computeIfAbsent(test.server() + test.retry(), key -> connect(address, test.retry()))
        .withTimeout(test.deadline())
        .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata));
  }

  private static LatentserveClient connect(String address, boolean retry) {
    LatentserveClientBuilder builder = LatentserveClient.builder(address);
    if (!retry) {
      builder.configureChannel(channel -> channel.disableRetry());
    }
    return builder.build();
  }

  private CallResult throughClient(LatentserveClient shared, TestCase test) {
    CaseRequest request = test.request();
    LatentserveClient client = request.hasModel() ? shared.withModel(request.model()) : shared;
    return switch (test.method()) {
      case "ListModels" -> CallResult.of(JsonReplies.models(client.models()));
      case "GetModel" -> CallResult.of(JsonReplies.model(client.model()));
      case "ReloadModels" ->
          CallResult.of(
              JsonReplies.outcomes(client.reloadModels(request.names().toArray(String[]::new))));
      case "Check" -> CallResult.of(JsonReplies.status(client.health(request.service())));
      case "Watch" -> CallResult.of(firstStatus(client, request.service()));
      case "Encode" ->
          CallResult.of(
              Part.of(
                  request.seed().isPresent()
                      ? client.encode(images(request), request.seed().getAsLong())
                      : client.encode(images(request))));
      case "Decode" -> CallResult.of(Part.of(client.decode(latents(request), request.format())));
      case "Reconstruct" ->
          CallResult.of(Part.of(client.reconstruct(images(request), request.format())));
      case "Denoise" -> CallResult.of(Part.of(client.denoise(images(request), request.format())));
      case "Sample" -> CallResult.of(Part.of(client.sample(request.sample())));
      case "SampleStream" -> CallResult.of(stream(client, test));
      default -> throw new Mismatch("the client has no method " + test.rpc());
    };
  }

  private static JsonObject firstStatus(LatentserveClient client, String service) {
    try (ReplyStream<HealthStatus> statuses = client.watchHealth(service)) {
      return JsonReplies.status(statuses.iterator().next());
    }
  }

  private Images images(CaseRequest request) {
    if (request.imageTensor().isEmpty()) {
      return Images.ofFiles(request.imageFiles().stream().map(folder::file).toList());
    }
    CaseTensor tensor = request.imageTensor().get();
    byte[] bytes = folder.bytes(tensor);
    List<Integer> shape = tensor.shape().stream().map(Math::toIntExact).toList();
    Shape known = new Shape(shape.get(0), shape.get(1), shape.get(2), shape.get(3));
    return switch (tensor.dtype()) {
      case "FLOAT32" -> Images.ofFloats(Values.floats(bytes), known);
      case "FLOAT16" -> Images.ofHalves(Values.halves(bytes), known);
      case "UINT8" -> Images.ofLevels(bytes, known);
      default -> throw new Mismatch("the client has no images of data type " + tensor.dtype());
    };
  }

  private Tensor latents(CaseRequest request) {
    CaseTensor tensor = request.latents().orElseThrow();
    byte[] bytes = folder.bytes(tensor);
    int rows = Math.toIntExact(tensor.shape().get(0));
    return tensor.dtype().equals("FLOAT16")
        ? Tensor.halfLatents(Values.halves(bytes), rows)
        : Tensor.latents(Values.floats(bytes), rows);
  }

  private static List<Part> stream(LatentserveClient client, TestCase test) {
    SampleRequest request = test.request().sample();
    List<SampleChunk> chunks = chunks(client, request, test.cancelAfterChunks());
    if (test.resume()) {
      SampleRequest rest = request.after(chunks.get(chunks.size() - 1)).orElseThrow();
      chunks.addAll(chunks(client, rest, 0));
    }
    return chunks.stream().map(Part::of).toList();
  }

  /** Reads a stream to its end, or cancels it after a number of chunks. */
  private static List<SampleChunk> chunks(
      LatentserveClient client, SampleRequest request, int limit) {
    List<SampleChunk> chunks = new ArrayList<>();
    try (ReplyStream<SampleChunk> stream = client.sampleStream(request)) {
      Iterator<SampleChunk> replies = stream.iterator();
      while (replies.hasNext()) {
        chunks.add(replies.next());
        if (chunks.size() == limit) {
          return chunks;
        }
      }
    }
    if (limit > 0) {
      throw new Mismatch(
          "the stream ended after " + chunks.size() + " chunks, before the cancellation");
    }
    return chunks;
  }
}
