// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.bench;

import io.latentserve.client.Images;
import io.latentserve.client.LatentserveClient;
import io.latentserve.client.Model;
import io.latentserve.client.Shape;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * Benchmark of single-image Reconstruct through the client: the median latency with one call in
 * flight, then calls per second with 32 in flight. Prints one line of JSON.
 *
 * <pre>{@code --address 127.0.0.1:50051 --model mnist-vae --seconds 5}</pre>
 */
public final class Bench {
  private static final int IN_FLIGHT = 32;
  // Enough calls for the JIT compiler to finish.
  private static final int WARM_UP_CALLS = 5_000;

  private Bench() {}

  /** Runs the benchmark. */
  public static void main(String[] arguments) throws InterruptedException, ExecutionException {
    Map<String, String> options = new HashMap<>();
    for (int i = 0; i < arguments.length; i += 2) {
      if (!Set.of("--address", "--model", "--seconds").contains(arguments[i])
          || i + 1 == arguments.length) {
        throw new IllegalArgumentException(
            "usage: --address HOST:PORT --model NAME --seconds S; unknown argument "
                + arguments[i]);
      }
      options.put(arguments[i], arguments[i + 1]);
    }
    String address = options.getOrDefault("--address", "127.0.0.1:50051");
    long spanNs = (long) (Double.parseDouble(options.getOrDefault("--seconds", "5")) * 1e9);
    if (spanNs <= 0) {
      throw new IllegalArgumentException("--seconds: expected more than 0");
    }
    try (LatentserveClient client =
        LatentserveClient.builder(address)
            .model(options.getOrDefault("--model", "mnist-vae"))
            .build()) {
      Images image = ramp(client.model().image());
      Runnable call = () -> client.reconstruct(image);
      for (int i = 0; i < WARM_UP_CALLS; i++) {
        call.run();
      }
      System.out.printf(
          Locale.ROOT,
          "{\"language\":\"java\",\"p50_us\":%.1f,\"calls_per_s\":%.1f}%n",
          medianNs(call, spanNs) / 1e3,
          callsPerSecond(call, spanNs));
    }
  }

  /** Returns one image with linearly increasing intensities. */
  private static Images ramp(Model.ImageSpec spec) {
    float[] values = new float[spec.channels() * spec.height() * spec.width()];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) i / values.length;
    }
    return Images.ofFloats(values, new Shape(1, spec.channels(), spec.height(), spec.width()));
  }

  private static long medianNs(Runnable call, long spanNs) {
    List<Long> times = new ArrayList<>();
    long begin = System.nanoTime();
    while (System.nanoTime() - begin < spanNs) {
      long start = System.nanoTime();
      call.run();
      times.add(System.nanoTime() - start);
    }
    long[] sorted = times.stream().mapToLong(Long::longValue).toArray();
    Arrays.sort(sorted);
    return sorted[sorted.length / 2];
  }

  private static double callsPerSecond(Runnable call, long spanNs)
      throws InterruptedException, ExecutionException {
    ExecutorService executor = Executors.newFixedThreadPool(IN_FLIGHT);
    try {
      long begin = System.nanoTime();
      List<Future<Long>> counts = new ArrayList<>();
      for (int k = 0; k < IN_FLIGHT; k++) {
        counts.add(
            executor.submit(
                () -> {
                  long calls = 0;
                  while (System.nanoTime() - begin < spanNs) {
                    call.run();
                    calls++;
                  }
                  return calls;
                }));
      }
      long calls = 0;
      for (Future<Long> count : counts) {
        calls += count.get();
      }
      return calls * 1e9 / (System.nanoTime() - begin);
    } finally {
      executor.shutdownNow();
    }
  }
}
