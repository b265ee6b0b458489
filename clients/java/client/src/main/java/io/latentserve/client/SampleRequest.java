// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.latentserve.v1.ModelRef;
import io.latentserve.v1.SampleStreamRequest;
import java.util.Objects;
import java.util.Optional;
import java.util.OptionalLong;

/**
 * Request to sample images. The latents of image k depend only on the seed, {@code offset + k} and
 * the temperature.
 *
 * <pre>{@code SampleRequest.of(8).withSeed(7).withFormat(Format.PNG)}</pre>
 *
 * @param count number of images, at least 1
 * @param seed unsigned 64-bit; if absent, the server chooses one, which the reply contains
 * @param offset first row of the seed's sequence of samples, 0 to 2^62
 * @param temperature 0 to 10; values below 1 sample closer to the mode; absent means 1
 * @param format the format of the images
 * @param includeLatents whether the reply contains the latents
 * @param chunkRows images per chunk of a stream; 0 lets the server choose
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

  /** Refuses values that are invalid for every model. */
  public SampleRequest {
    Objects.requireNonNull(seed, "seed");
    Objects.requireNonNull(format, "format");
    if (count < 1) {
      throw LatentserveException.invalid("count", count + "; expected at least 1");
    }
    if (offset < 0 || offset > MAX_OFFSET) {
      throw LatentserveException.invalid("offset", offset + "; expected 0 to 2^62");
    }
    // Written so that NaN fails too.
    if (!temperature.map(t -> t >= 0 && t <= 10).orElse(true)) {
      throw LatentserveException.invalid("temperature", temperature.get() + "; expected 0 to 10");
    }
    if (chunkRows < 0) {
      throw LatentserveException.invalid("chunk_rows", chunkRows + "; expected at least 0");
    }
  }

  /** Returns a request for {@code count} images with default settings. */
  public static SampleRequest of(long count) {
    return new SampleRequest(
        count, OptionalLong.empty(), 0, Optional.empty(), Format.FLOAT32, false, 0);
  }

  /** Returns the request with a seed, an unsigned 64-bit integer. */
  public SampleRequest withSeed(long seed) {
    return new SampleRequest(
        count, OptionalLong.of(seed), offset, temperature, format, includeLatents, chunkRows);
  }

  /** Returns the request with an offset in the seed's sequence of samples. */
  public SampleRequest withOffset(long offset) {
    return new SampleRequest(count, seed, offset, temperature, format, includeLatents, chunkRows);
  }

  /** Returns the request with a temperature. */
  public SampleRequest withTemperature(float temperature) {
    return new SampleRequest(
        count, seed, offset, Optional.of(temperature), format, includeLatents, chunkRows);
  }

  /** Returns the request with a format of the images. */
  public SampleRequest withFormat(Format format) {
    return new SampleRequest(count, seed, offset, temperature, format, includeLatents, chunkRows);
  }

  /** Returns the request with the latents in the reply. */
  public SampleRequest withLatents() {
    return new SampleRequest(count, seed, offset, temperature, format, true, chunkRows);
  }

  /** Returns the request with a number of images per chunk. */
  public SampleRequest withChunkRows(int chunkRows) {
    return new SampleRequest(count, seed, offset, temperature, format, includeLatents, chunkRows);
  }

  /**
   * Returns the request for the images after a chunk of this request, with the seed of the chunk;
   * empty if the chunk was the last.
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
          "count", count + "; expected 1 to " + Integer.MAX_VALUE + "; use a stream for more");
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
