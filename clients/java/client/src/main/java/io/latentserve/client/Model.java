// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;

/**
 * Description of one version of a model.
 *
 * @param name at most 63 characters of a-z, 0-9 and '-'
 * @param version 1 or higher
 * @param state the state of the version
 * @param reason why the version was refused; empty otherwise
 * @param digest SHA-256 of the manifest
 * @param kind the kind of the model, for example {@code autoencoder}, {@code denoising} or {@code
 *     vae}
 * @param description in one sentence
 * @param image the image shape
 * @param latent the latent space
 * @param operations the supported operations
 * @param likelihood p(x|z), if the model was trained with one
 * @param limits the limits of one call
 * @param provider ONNX Runtime execution provider; empty until the model is loaded
 * @param metrics the metrics measured at export
 */
public record Model(
    String name,
    int version,
    State state,
    String reason,
    String digest,
    String kind,
    String description,
    ImageSpec image,
    LatentSpec latent,
    List<Operation> operations,
    Optional<Likelihood> likelihood,
    Limits limits,
    String provider,
    List<Metric> metrics) {

  /** State of a model version. */
  public enum State {
    /** It is being checked and warmed up. */
    LOADING,
    /** It serves calls. */
    READY,
    /** It failed its checks; see the reason. */
    REFUSED,
    /** A value of a newer server. */
    UNKNOWN;

    private static State from(io.latentserve.v1.Model.State message) {
      return switch (message) {
        case STATE_LOADING -> LOADING;
        case STATE_READY -> READY;
        case STATE_REFUSED -> REFUSED;
        case STATE_UNSPECIFIED, UNRECOGNIZED -> UNKNOWN;
      };
    }
  }

  /**
   * Image shape of a model.
   *
   * @param channels 1 (greyscale) or 3 (RGB)
   * @param height in pixels
   * @param width in pixels
   */
  public record ImageSpec(int channels, int height, int width) {}

  /**
   * Latent space of a model.
   *
   * @param dim number of latents per image
   * @param prior {@code standard_normal}, {@code gaussian_mixture}, or {@code none} if the model
   *     cannot sample
   * @param hasLogVariance whether encode returns a log variance and accepts a seed
   * @param mixtureComponents number of components of a gaussian_mixture; 0 for other priors
   */
  public record LatentSpec(int dim, String prior, boolean hasLogVariance, int mixtureComponents) {}

  /**
   * Likelihood p(x|z), whose mean is the decoded image.
   *
   * @param family {@code gaussian} or {@code bernoulli}
   * @param sigma standard deviation per pixel of images in [0, 1]; 0 unless gaussian
   */
  public record Likelihood(String family, double sigma) {}

  /**
   * Limits of one call to a model.
   *
   * @param maxRequestRows maximum images or latent vectors in one request
   * @param maxStreamRows maximum images in one stream
   * @param maxBatchRows maximum batch size in rows; larger requests run in several batches
   */
  public record Limits(int maxRequestRows, long maxStreamRows, int maxBatchRows) {}

  /**
   * Metric of a model, measured at export.
   *
   * @param name for example {@code test_mse}
   * @param value in {@code unit}
   * @param unit for example {@code dB}
   * @param baseline the comparison value, if any
   * @param baselineName for example {@code PCA-32}; empty if there is no baseline
   * @param samples number of images in the evaluation
   * @param estimator the method of computation
   */
  public record Metric(
      String name,
      double value,
      String unit,
      OptionalDouble baseline,
      String baselineName,
      long samples,
      String estimator) {
    private static Metric from(io.latentserve.v1.Metric message) {
      return new Metric(
          message.getName(),
          message.getValue(),
          message.getUnit(),
          message.hasBaseline() ? OptionalDouble.of(message.getBaseline()) : OptionalDouble.empty(),
          message.getBaselineName(),
          message.getSamples(),
          message.getEstimator());
    }
  }

  /** Returns {@code NAME:VERSION}, which selects exactly this version. */
  public String ref() {
    return name + ":" + version;
  }

  static Model from(io.latentserve.v1.Model message) {
    return new Model(
        message.getName(),
        message.getVersion(),
        State.from(message.getState()),
        message.getReason(),
        message.getDigest(),
        message.getKind(),
        message.getDescription(),
        new ImageSpec(
            message.getImage().getChannels(),
            message.getImage().getHeight(),
            message.getImage().getWidth()),
        new LatentSpec(
            message.getLatent().getDim(),
            message.getLatent().getPrior(),
            message.getLatent().getHasLogVariance(),
            message.getLatent().getMixtureComponents()),
        message.getOperationsList().stream().map(Operation::from).toList(),
        message.hasLikelihood()
            ? Optional.of(
                new Likelihood(
                    message.getLikelihood().getFamily(), message.getLikelihood().getSigma()))
            : Optional.empty(),
        new Limits(
            message.getLimits().getMaxRequestRows(),
            message.getLimits().getMaxStreamRows(),
            message.getLimits().getMaxBatchRows()),
        message.getProvider(),
        message.getMetricsList().stream().map(Metric::from).toList());
  }
}
