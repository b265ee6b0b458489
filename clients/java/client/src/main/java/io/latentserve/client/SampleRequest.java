// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.latentserve.v1.ModelRef;
import io.latentserve.v1.SampleStreamRequest;
import java.util.Objects;
import java.util.Optional;
import java.util.OptionalLong;

/**
 * Asks for images drawn from the model. The latent of image k depends on the seed, {@code offset +
 * k} and the temperature alone.
 *
 * <pre>{@code SampleRequest.of(8).withSeed(7).withFormat(Format.PNG)}</pre>
 *
 * @param count how many images, at least 1
 * @param seed 64 bits without a sign; without it the server draws one and returns it
 * @param offset the first row of the seed's stream, 0 to 2^62
 * @param temperature 0 to 10; below 1 draws nearer the mode. Without it: 1
 * @param format the form of the images
 * @param includeLatents whether the latents come back too
 * @param chunkRows images per chunk of a stream; 0: the server chooses
 */
public record SampleRequest(
    long count,
    OptionalLong seed,
    long offset,
    Optional<Float> temperature,
    Format format,
    boolean includeLatents,
    int chunkRows) {
  private static final long MAX_OFFSET = 1L << 62;

  /** Checks what can be judged here. */
  public SampleRequest {
    Objects.requireNonNull(seed, "seed");
    Objects.requireNonNull(format, "format");
    if (count < 1) {
      throw LatentserveException.invalid("count", count + "; expected at least 1");
    }
    if (offset < 0 || offset > MAX_OFFSET) {
      throw LatentserveException.invalid("offset", offset + "; expected 0 to 2^62");
    }
    // Not the opposite: NaN fails this too.
    if (!temperature.map(t -> t >= 0 && t <= 10).orElse(true)) {
      throw LatentserveException.invalid("temperature", temperature.get() + "; expected 0 to 10");
    }
    if (chunkRows < 0) {
      throw LatentserveException.invalid("chunk_rows", chunkRows + "; expected at least 0");
    }
  }

  /** Returns a request for so many images, and all else as it is by default. */
  public static SampleRequest of(long count) {
    return new SampleRequest(
        count, OptionalLong.empty(), 0, Optional.empty(), Format.FLOAT32, false, 0);
  }

  /** Returns the request with a seed: 64 bits without a sign. */
  public SampleRequest withSeed(long seed) {
    return new SampleRequest(
        count, OptionalLong.of(seed), offset, temperature, format, includeLatents, chunkRows);
  }

  /** Returns the request with the first row of the seed's stream. */
  public SampleRequest withOffset(long offset) {
    return new SampleRequest(count, seed, offset, temperature, format, includeLatents, chunkRows);
  }

  /** Returns the request with a temperature. */
  public SampleRequest withTemperature(float temperature) {
    return new SampleRequest(
        count, seed, offset, Optional.of(temperature), format, includeLatents, chunkRows);
  }

  /** Returns the request with the form of the images. */
  public SampleRequest withFormat(Format format) {
    return new SampleRequest(count, seed, offset, temperature, format, includeLatents, chunkRows);
  }

  /** Returns the request for the latents too. */
  public SampleRequest withLatents() {
    return new SampleRequest(count, seed, offset, temperature, format, true, chunkRows);
  }

  /** Returns the request with the images per chunk of a stream. */
  public SampleRequest withChunkRows(int chunkRows) {
    return new SampleRequest(count, seed, offset, temperature, format, includeLatents, chunkRows);
  }

  /**
   * Returns the request for what is missing after a chunk of this one, with the chunk's seed; none
   * where that was the last.
   */
  public Optional<SampleRequest> after(SampleChunk chunk) {
    long done = chunk.nextOffset() - offset;
    if (done < 0 || done >= count) {
      return Optional.empty();
    }
    return Optional.of(
        new SampleRequest(
            count - done,
            OptionalLong.of(chunk.seed()),
            chunk.nextOffset(),
            temperature,
            format,
            includeLatents,
            chunkRows));
  }

  io.latentserve.v1.SampleRequest toMessage(ModelRef model) {
    if (count > Integer.MAX_VALUE) {
      throw LatentserveException.invalid(
          "count", count + "; expected 1 to " + Integer.MAX_VALUE + ", or a stream");
    }
    io.latentserve.v1.SampleRequest.Builder message =
        io.latentserve.v1.SampleRequest.newBuilder()
            .setModel(model)
            .setCount((int) count)
            .setOffset(offset)
            .setOutputFormat(format.toMessage())
            .setIncludeLatents(includeLatents);
    seed.ifPresent(message::setSeed);
    temperature.ifPresent(message::setTemperature);
    return message.build();
  }

  SampleStreamRequest toStreamMessage(ModelRef model) {
    SampleStreamRequest.Builder message =
        SampleStreamRequest.newBuilder()
            .setModel(model)
            .setCount(count)
            .setOffset(offset)
            .setOutputFormat(format.toMessage())
            .setIncludeLatents(includeLatents)
            .setChunkRows(chunkRows);
    seed.ifPresent(message::setSeed);
    temperature.ifPresent(message::setTemperature);
    return message.build();
  }
}
