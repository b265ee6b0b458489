// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import com.google.protobuf.MessageLite;
import io.grpc.CallCredentials;
import io.grpc.Channel;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.stub.AbstractStub;
import io.latentserve.v1.DecodeRequest;
import io.latentserve.v1.DenoiseRequest;
import io.latentserve.v1.EncodeRequest;
import io.latentserve.v1.GenerativeServiceGrpc;
import io.latentserve.v1.GenerativeServiceGrpc.GenerativeServiceBlockingStub;
import io.latentserve.v1.GetModelRequest;
import io.latentserve.v1.ListModelsRequest;
import io.latentserve.v1.ModelRef;
import io.latentserve.v1.ModelServiceGrpc;
import io.latentserve.v1.ModelServiceGrpc.ModelServiceBlockingStub;
import io.latentserve.v1.ReconstructRequest;
import io.latentserve.v1.ReloadModelsRequest;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/**
 * Client of a latentserve server. It is thread-safe; reuse it for many calls.
 *
 * <p>Calls that fail with UNAVAILABLE, with CANCELLED by the server, or because the queue is full
 * are retried up to three times within their timeout, by gRPC's retry policy and after the delay
 * that the server requests. A call that fails throws a {@link LatentserveException}.
 *
 * <p>Calls block. A call fails with CANCELLED when its thread is interrupted or its {@link
 * io.grpc.Context} is cancelled, and with DEADLINE_EXCEEDED at the earlier of its timeout and the
 * deadline of the context.
 */
public final class LatentserveClient implements AutoCloseable {
  /** Minimum timeout of a reload, because the server loads and checks models. */
  public static final Duration RELOAD_TIMEOUT = Duration.ofMinutes(2);

  /** Settings that calls share. */
  record Settings(
      String model,
      Duration timeout,
      boolean waitForReady,
      int maxMessageBytes,
      CallCredentials credentials) {}

  private final ManagedChannel owned; // null in a view
  private final Channel channel;
  private final Settings settings;

  LatentserveClient(ManagedChannel owned, Settings settings) {
    this(owned, owned, settings);
  }

  private LatentserveClient(ManagedChannel owned, Channel channel, Settings settings) {
    this.owned = owned;
    this.channel = channel;
    this.settings = settings;
  }

  /**
   * Returns a builder of a client for the server at {@code HOST:PORT}, or at {@code
   * dns:///NAME:PORT} to balance calls over all addresses of the name.
   */
  public static LatentserveClientBuilder builder(String address) {
    return new LatentserveClientBuilder(address);
  }

  /** Returns a view of this client with another model. */
  public LatentserveClient withModel(String model) {
    ref(model);
    return view(
        channel,
        new Settings(
            model,
            settings.timeout,
            settings.waitForReady,
            settings.maxMessageBytes,
            settings.credentials));
  }

  /** Returns a view of this client with another timeout. */
  public LatentserveClient withTimeout(Duration timeout) {
    return view(
        channel,
        new Settings(
            settings.model,
            positive(timeout),
            settings.waitForReady,
            settings.maxMessageBytes,
            settings.credentials));
  }

  /** Returns a view of this client with interceptors, of which the last runs first. */
  public LatentserveClient withInterceptors(ClientInterceptor... interceptors) {
    return view(ClientInterceptors.intercept(channel, interceptors), settings);
  }

  private static LatentserveClient view(Channel channel, Settings settings) {
    return new LatentserveClient(null, channel, settings);
  }

  /** The channel, for use with the generated stubs in {@code io.latentserve.v1}. */
  public Channel channel() {
    return channel;
  }

  /** Closes the connection; calls in flight are cancelled. The connection of a view stays open. */
  @Override
  public void close() {
    if (owned != null) {
      owned.shutdownNow();
    }
  }

  /** Encodes images to latents: the mean of q(z|x). */
  public EncodeResult encode(Images images) {
    return encode(EncodeRequest.newBuilder(), images);
  }

  /** Encodes images to latents: a sample from q(z|x). The seed is an unsigned 64-bit integer. */
  public EncodeResult encode(Images images, long seed) {
    return encode(EncodeRequest.newBuilder().setSeed(seed), images);
  }

  private EncodeResult encode(EncodeRequest.Builder request, Images images) {
    return unary(
        generative()::encode,
        request.setModel(ref()).setImages(images.toMessage()).build(),
        EncodeResult::from);
  }

  /** Decodes latents, [n, dim], to images: the mean of p(x|z). */
  public ImagesResult decode(Tensor latents) {
    return decode(latents, Format.FLOAT32);
  }

  /** The same, in another form. */
  public ImagesResult decode(Tensor latents, Format format) {
    if (latents.shape().length != 2) {
      throw LatentserveException.invalid("latents.shape", latents + "; expected [n, dim]");
    }
    DecodeRequest request =
        DecodeRequest.newBuilder()
            .setModel(ref())
            .setLatents(latents.toMessage())
            .setOutputFormat(format.toMessage())
            .build();
    return unary(generative()::decode, request, ImagesResult::from);
  }

  /** Encodes images to their mean latents and decodes these. */
  public ReconstructResult reconstruct(Images images) {
    return reconstruct(images, Format.FLOAT32);
  }

  /** The same, in another form. */
  public ReconstructResult reconstruct(Images images, Format format) {
    ReconstructRequest request =
        ReconstructRequest.newBuilder()
            .setModel(ref())
            .setImages(images.toMessage())
            .setOutputFormat(format.toMessage())
            .build();
    return unary(generative()::reconstruct, request, ReconstructResult::from);
  }

  /** Removes the noise from images; floats may range from -10 to 10. */
  public ImagesResult denoise(Images images) {
    return denoise(images, Format.FLOAT32);
  }

  /** The same, in another form. */
  public ImagesResult denoise(Images images, Format format) {
    DenoiseRequest request =
        DenoiseRequest.newBuilder()
            .setModel(ref())
            .setImages(images.toMessage())
            .setOutputFormat(format.toMessage())
            .build();
    return unary(generative()::denoise, request, ImagesResult::from);
  }

  /** Samples images, at most {@code maxRequestRows} of the model. */
  public SampleResult sample(SampleRequest request) {
    return unary(generative()::sample, request.toMessage(ref()), SampleResult::from);
  }

  /**
   * Samples many images and returns them in chunks. The images are those of {@link #sample}. The
   * timeout covers the whole stream. After an error, resume with {@link SampleRequest#after}.
   */
  public ReplyStream<SampleChunk> sampleStream(SampleRequest request) {
    return ReplyStream.of(
        generative()::sampleStream, request.toStreamMessage(ref()), SampleChunk::from);
  }

  /** Lists every version of every model, including refused ones. */
  public ModelList models() {
    return unary(
        modelService(settings.timeout)::listModels,
        ListModelsRequest.getDefaultInstance(),
        ModelList::from);
  }

  /** Describes the model of this client or view. */
  public Model model() {
    return model(settings.model);
  }

  /** Describes a model: {@code NAME} or {@code NAME:VERSION}. */
  public Model model(String model) {
    return unary(
        modelService(settings.timeout)::getModel,
        GetModelRequest.newBuilder().setModel(ref(model)).build(),
        reply -> Model.from(reply.getModel()));
  }

  /**
   * Makes the server rescan its model folder for these names or, without names, for all models. The
   * timeout is {@link #RELOAD_TIMEOUT}, or that of this client if it is longer.
   */
  public List<ReloadOutcome> reloadModels(String... names) {
    Duration timeout =
        settings.timeout.compareTo(RELOAD_TIMEOUT) > 0 ? settings.timeout : RELOAD_TIMEOUT;
    return unary(
        modelService(timeout)::reloadModels,
        ReloadModelsRequest.newBuilder().addAllNames(List.of(names)).build(),
        reply -> reply.getOutcomesList().stream().map(ReloadOutcome::from).toList());
  }

  /**
   * Returns the health of the server (an empty name), or of a service or model by name. The call is
   * never retried. It fails with NOT_FOUND if the server does not know the name.
   */
  public HealthStatus health(String service) {
    HealthCheckRequest request = HealthCheckRequest.newBuilder().setService(service).build();
    try {
      return HealthStatus.from(bounded(HealthGrpc.newBlockingStub(channel)).check(request));
    } catch (StatusRuntimeException failure) {
      throw LatentserveException.from(failure, "unknown service or model \"" + service + "\"");
    }
  }

  /** Streams the current health and every change, until the stream is closed. */
  public ReplyStream<HealthStatus> watchHealth(String service) {
    return ReplyStream.of(
        configured(HealthGrpc.newBlockingStub(channel))::watch,
        HealthCheckRequest.newBuilder().setService(service).build(),
        HealthStatus::from);
  }

  private GenerativeServiceBlockingStub generative() {
    return bounded(GenerativeServiceGrpc.newBlockingStub(channel));
  }

  private ModelServiceBlockingStub modelService(Duration timeout) {
    return after(configured(ModelServiceGrpc.newBlockingStub(channel)), timeout);
  }

  private <S extends AbstractStub<S>> S bounded(S stub) {
    return after(configured(stub), settings.timeout);
  }

  private static <S extends AbstractStub<S>> S after(S stub, Duration timeout) {
    return stub.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS);
  }

  private <S extends AbstractStub<S>> S configured(S stub) {
    S ready = settings.waitForReady ? stub.withWaitForReady() : stub;
    return settings.credentials == null ? ready : ready.withCallCredentials(settings.credentials);
  }

  private <Q extends MessageLite, P, R> R unary(
      Function<Q, P> method, Q request, Function<P, R> convert) {
    int bytes = request.getSerializedSize();
    if (bytes > settings.maxMessageBytes) {
      throw LatentserveException.tooLarge(bytes, settings.maxMessageBytes);
    }
    P reply;
    try {
      reply = method.apply(request);
    } catch (StatusRuntimeException failure) {
      throw LatentserveException.from(failure);
    }
    return convert.apply(reply);
  }

  private ModelRef ref() {
    return ref(settings.model);
  }

  /** Parses "NAME" or "NAME:VERSION"; "" means the server's default model. */
  static ModelRef ref(String model) {
    int colon = model.indexOf(':');
    if (colon < 0) {
      return ModelRef.newBuilder().setName(model).build();
    }
    String version = model.substring(colon + 1);
    // parseInt accepts a sign too.
    if (version.matches("[0-9]{1,10}")) {
      long number = Long.parseLong(version);
      if (number >= 1 && number <= Integer.MAX_VALUE) {
        return ModelRef.newBuilder()
            .setName(model.substring(0, colon))
            .setVersion((int) number)
            .build();
      }
    }
    throw LatentserveException.invalid(
        "model", "\"" + model + "\"; expected NAME or NAME:VERSION with a version of at least 1");
  }

  static Duration positive(Duration timeout) {
    if (timeout.isZero() || timeout.isNegative()) {
      throw LatentserveException.invalid("timeout", timeout + "; expected more than 0");
    }
    return timeout;
  }
}
