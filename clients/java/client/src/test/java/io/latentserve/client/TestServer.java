// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import com.google.protobuf.ByteString;
import io.grpc.BindableService;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Server;
import io.grpc.ServerBuilder;
import io.grpc.ServerCredentials;
import io.grpc.ServerInterceptor;
import io.latentserve.v1.DataType;
import java.io.IOException;
import java.time.Duration;
import java.util.List;

/** Fake server on a TCP connection, whose replies a test configures. */
final class TestServer implements AutoCloseable {
  private final Server server;

  private TestServer(Server server) {
    this.server = server;
  }

  static TestServer start(BindableService... services) throws IOException {
    return start(InsecureServerCredentials.create(), List.of(), services);
  }

  static TestServer start(
      ServerCredentials credentials,
      List<ServerInterceptor> interceptors,
      BindableService... services)
      throws IOException {
    ServerBuilder<?> builder =
        Grpc.newServerBuilderForPort(0, credentials).maxInboundMessageSize(64 << 20);
    interceptors.forEach(builder::intercept);
    for (BindableService service : services) {
      builder.addService(service);
    }
    return new TestServer(builder.build().start());
  }

  String address() {
    return "127.0.0.1:" + server.getPort();
  }

  /** Returns a client whose timeout is longer than the test. */
  LatentserveClient client() {
    return LatentserveClient.builder(address()).timeout(Duration.ofHours(1)).build();
  }

  @Override
  public void close() {
    server.shutdownNow();
  }

  /** Returns the message of one image with one pixel. */
  static io.latentserve.v1.Images pixel(int level) {
    return io.latentserve.v1.Images.newBuilder()
        .setTensor(
            io.latentserve.v1.Tensor.newBuilder()
                .setDataType(DataType.DATA_TYPE_UINT8)
                .addAllShape(List.of(1L, 1L, 1L, 1L))
                .setData(ByteString.copyFrom(new byte[] {(byte) level})))
        .build();
  }

  /** Returns one image with one pixel for the client. */
  static Images image(int level) {
    return Images.ofLevels(new byte[] {(byte) level}, new Shape(1, 1, 1, 1));
  }
}
