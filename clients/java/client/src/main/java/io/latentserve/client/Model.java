// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;

/**
 * One version of one model.
 *
 * @param name at most 63 characters of a-z, 0-9 and '-'
 * @param version 1 or higher
 * @param state whether it can be used
 * @param reason why it was refused; empty otherwise
 * @param digest SHA-256 of its manifest
 * @param kind for example {@code autoencoder}, {@code denoising} or {@code vae}
 * @param description one sentence
 * @param image the images it takes and gives
 * @param latent its latents
 * @param operations what it can do
 * @param likelihood p(x|z), where it was trained as one
 * @param limits how much one call may ask of it
 * @param provider ONNX Runtime execution provider; empty until it is loaded
 * @param metrics what was measured when it was exported
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

  /** Whether a model can be used. */
  public enum State {
    /** Being checked and warmed up. */
    LOADING,
    /** Serving. */
    READY,
    /** Failed its checks; the reason says which. */
    REFUSED,
    /** Something that a newer server tells of. */
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
   * The images of a model.
   *
   * @param channels 1 (grey) or 3 (RGB)
   * @param height pixels
   * @param width pixels
   */
  public record ImageSpec(int channels, int height, int width) {}

  /**
   * The latents of a model.
   *
   * @param dim values per image
   * @param prior {@code standard_normal}, {@code gaussian_mixture}, or {@code none} where the model
   *     cannot sample
   * @param hasLogVariance whether encoding returns one and takes a seed
   * @param mixtureComponents of a gaussian_mixture; 0 with another prior
   */
  public record LatentSpec(int dim, String prior, boolean hasLogVariance, int mixtureComponents) {}

  /**
   * p(x|z), with the decoded image as its mean.
   *
   * @param family {@code gaussian} or {@code bernoulli}
   * @param sigma standard deviation per pixel of [0, 1] images; 0 unless gaussian
   */
  public record Likelihood(String family, double sigma) {}

  /**
   * How much one call may ask of a model.
   *
   * @param maxRequestRows images or latents in one request
   * @param maxStreamRows images in one stream
   * @param maxBatchRows rows of one batch of the engine; larger requests run in several
   */
  public record Limits(int maxRequestRows, long maxStreamRows, int maxBatchRows) {}

  /**
   * One figure that was measured when the model was exported.
   *
   * @param name for example {@code test_mse}
   * @param value in {@code unit}
   * @param unit for example {@code dB}
   * @param baseline what the value is to be compared with
   * @param baselineName for example {@code PCA-32}; empty where there is no baseline
   * @param samples images it was measured on
   * @param estimator how it was computed
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

  /** What names exactly this version: {@code NAME:VERSION}. */
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
