// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

/**
 * Calls a latentserve server: images to latents, latents to images, and back.
 *
 * <p>{@link io.latentserve.client.LatentserveClient} is where to start; every failure is a {@link
 * io.latentserve.client.LatentserveException}.
 */
package io.latentserve.client;
