// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

/**
 * Client of latentserve, a gRPC server for generative models of images.
 *
 * <p>Start with {@link io.latentserve.client.LatentserveClient}; every error is a {@link
 * io.latentserve.client.LatentserveException}.
 */
package io.latentserve.client;
