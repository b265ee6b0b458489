// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.grpc.Context;
import io.grpc.StatusRuntimeException;
import java.util.Iterator;
import java.util.function.Function;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * The replies of one streaming call, as they come. Use it in a try statement: leaving it cancels
 * what is left of the call.
 *
 * <pre>{@code
 * try (ReplyStream<SampleChunk> chunks = client.sampleStream(request)) {
 *   for (SampleChunk chunk : chunks) { ... }
 * }
 * }</pre>
 *
 * <p>Waiting for a reply ends early, with the code CANCELLED, when the waiting thread is
 * interrupted or another one closes the stream. No more is fetched than is read.
 *
 * @param <T> what one reply is
 */
public final class ReplyStream<T> implements Iterable<T>, AutoCloseable {
  private final Context.CancellableContext context;
  private final Iterator<T> replies;
  private boolean taken;

  private ReplyStream(Context.CancellableContext context, Iterator<T> replies) {
    this.context = context;
    this.replies = replies;
  }

  /** Makes a call, whose replies are converted. */
  static <Q, P, T> ReplyStream<T> of(
      Function<Q, Iterator<P>> method, Q request, Function<P, T> convert) {
    Context.CancellableContext context = Context.current().withCancellation();
    Context outer = context.attach();
    try {
      Iterator<P> replies = method.apply(request);
      return new ReplyStream<>(context, new Converted<>(context, replies, convert));
    } finally {
      context.detach(outer);
    }
  }

  /**
   * The replies; there is one iterator of a stream. It throws a {@link LatentserveException} where
   * the call fails.
   *
   * @throws IllegalStateException the second time
   */
  @Override
  public Iterator<T> iterator() {
    if (taken) {
      throw new IllegalStateException("the replies are read once; make another call");
    }
    taken = true;
    return replies;
  }

  /** The same as a stream; closing that closes this one. */
  public Stream<T> stream() {
    return StreamSupport.stream(spliterator(), false).onClose(this::close);
  }

  /** Cancels the call, unless it has ended. */
  @Override
  public void close() {
    context.cancel(null);
  }

  private static final class Converted<P, T> implements Iterator<T> {
    private final Context.CancellableContext context;
    private final Iterator<P> replies;
    private final Function<P, T> convert;

    Converted(Context.CancellableContext context, Iterator<P> replies, Function<P, T> convert) {
      this.context = context;
      this.replies = replies;
      this.convert = convert;
    }

    @Override
    public boolean hasNext() {
      try {
        boolean more = replies.hasNext();
        if (!more) {
          context.cancel(null); // it has ended; what the context holds goes
        }
        return more;
      } catch (StatusRuntimeException failure) {
        context.cancel(null);
        throw LatentserveException.from(failure);
      }
    }

    @Override
    public T next() {
      try {
        return convert.apply(replies.next());
      } catch (StatusRuntimeException failure) {
        context.cancel(null);
        throw LatentserveException.from(failure);
      } catch (LatentserveException badReply) {
        context.cancel(null);
        throw badReply;
      }
    }
  }
}
