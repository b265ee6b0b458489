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
 * Replies of one streaming call. Use it in a try-with-resources statement, whose end cancels the
 * call.
 *
 * <pre>{@code
 * try (ReplyStream<SampleChunk> chunks = client.sampleStream(request)) {
 *   for (SampleChunk chunk : chunks) { ... }
 * }
 * }</pre>
 *
 * <p>Waiting for a reply fails with CANCELLED when the thread is interrupted or another thread
 * closes the stream. Replies are fetched only as they are read.
 *
 * @param <T> the type of a reply
 */
public final class ReplyStream<T> implements Iterable<T>, AutoCloseable {
  private final Context.CancellableContext context;
  private final Iterator<T> replies;
  private boolean taken;

  private ReplyStream(Context.CancellableContext context, Iterator<T> replies) {
    this.context = context;
    this.replies = replies;
  }

  /** Starts a call and converts its replies. */
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
   * Returns the only iterator of the stream. It throws a {@link LatentserveException} if the call
   * fails.
   *
   * @throws IllegalStateException on the second call
   */
  @Override
  public Iterator<T> iterator() {
    if (taken) {
      throw new IllegalStateException("the replies can be read only once; start another call");
    }
    taken = true;
    return replies;
  }

  /** Returns the replies as a Java stream; closing it closes this stream. */
  public Stream<T> stream() {
    return StreamSupport.stream(spliterator(), false).onClose(this::close);
  }

  /** Cancels the call if it has not ended. */
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
          context.cancel(null); // the call has ended; release the context
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
