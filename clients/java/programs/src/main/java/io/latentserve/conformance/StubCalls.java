// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import com.google.protobuf.ByteString;
import com.google.protobuf.Descriptors.EnumDescriptor;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.MethodDescriptor;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import io.latentserve.v1.DataType;
import io.latentserve.v1.DecodeRequest;
import io.latentserve.v1.DenoiseRequest;
import io.latentserve.v1.EncodeRequest;
import io.latentserve.v1.EncodedImages;
import io.latentserve.v1.GenerativeServiceGrpc;
import io.latentserve.v1.GenerativeServiceGrpc.GenerativeServiceBlockingStub;
import io.latentserve.v1.ImageFormat;
import io.latentserve.v1.Images;
import io.latentserve.v1.ModelRef;
import io.latentserve.v1.ReconstructRequest;
import io.latentserve.v1.SampleRequest;
import io.latentserve.v1.SampleResponse;
import io.latentserve.v1.SampleStreamRequest;
import io.latentserve.v1.SampleStreamResponse;
import io.latentserve.v1.Tensor;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Calls that bypass the client: through the generated stub, or with raw bytes. */
record StubCalls(Channel channel, CaseFolder folder) {
  CallResult call(TestCase test) {
    return test.through().equals("bytes") ? asBytes(test) : byStub(test);
  }

  private CallResult byStub(TestCase test) {
    GenerativeServiceBlockingStub stub =
        GenerativeServiceGrpc.newBlockingStub(channel)
            .withDeadlineAfter(test.deadline().toMillis(), TimeUnit.MILLISECONDS);
    CaseRequest request = test.request();
    Object reply =
        switch (test.method()) {
          case "Encode" -> stub.encode(encode(request));
          case "Decode" -> stub.decode(decode(request));
          case "Reconstruct" -> stub.reconstruct(reconstruct(request));
          case "Denoise" -> stub.denoise(denoise(request));
          case "Sample" -> stub.sample(sample(request));
          case "SampleStream" -> parts(stub.sampleStream(sampleStream(request)));
          default -> throw new Mismatch("this runner has no stub for " + test.rpc());
        };
    return checkReply(test, reply);
  }

  private CallResult asBytes(TestCase test) {
    byte[] body = folder.bytes(test.body());
    CallOptions options =
        CallOptions.DEFAULT.withDeadlineAfter(test.deadline().toMillis(), TimeUnit.MILLISECONDS);
    if (test.method().equals("SampleStream")) {
      MethodDescriptor<byte[], SampleStreamResponse> method =
          MethodDescriptor.newBuilder(
                  new RawBytes(), ProtoUtils.marshaller(SampleStreamResponse.getDefaultInstance()))
              .setType(MethodDescriptor.MethodType.SERVER_STREAMING)
              .setFullMethodName(test.rpc())
              .build();
      return checkReply(
          test, parts(ClientCalls.blockingServerStreamingCall(channel, method, options, body)));
    }
    // Invalid messages and unknown methods; only the reply of Sample is parsed.
    MethodDescriptor<byte[], SampleResponse> method =
        MethodDescriptor.newBuilder(
                new RawBytes(), ProtoUtils.marshaller(SampleResponse.getDefaultInstance()))
            .setType(MethodDescriptor.MethodType.UNARY)
            .setFullMethodName(test.rpc())
            .build();
    return checkReply(test, ClientCalls.blockingUnaryCall(channel, method, options, body));
  }

  private static List<Part> parts(Iterator<SampleStreamResponse> replies) {
    List<Part> parts = new ArrayList<>();
    replies.forEachRemaining(reply -> parts.add(Part.of(reply)));
    return parts;
  }

  private static CallResult checkReply(TestCase test, Object reply) {
    if (reply instanceof SampleResponse sampled && test.method().equals("Sample")) {
      return CallResult.of(Part.of(sampled));
    }
    if (reply instanceof List<?> parts) {
      return CallResult.of(parts.stream().map(Part.class::cast).toList());
    }
    throw new Mismatch(test.rpc() + " succeeded, but this runner checks only its errors");
  }

  private EncodeRequest encode(CaseRequest request) {
    EncodeRequest.Builder message = EncodeRequest.newBuilder();
    if (request.hasModel()) {
      message.setModel(ref(request));
    }
    if (request.hasImages()) {
      message.setImages(images(request));
    }
    request.seed().ifPresent(message::setSeed);
    return message.build();
  }

  private DecodeRequest decode(CaseRequest request) {
    DecodeRequest.Builder message =
        DecodeRequest.newBuilder().setOutputFormatValue(format(request));
    if (request.hasModel()) {
      message.setModel(ref(request));
    }
    request.latents().ifPresent(latents -> message.setLatents(tensor(latents)));
    return message.build();
  }

  private ReconstructRequest reconstruct(CaseRequest request) {
    ReconstructRequest.Builder message =
        ReconstructRequest.newBuilder().setOutputFormatValue(format(request));
    if (request.hasModel()) {
      message.setModel(ref(request));
    }
    if (request.hasImages()) {
      message.setImages(images(request));
    }
    return message.build();
  }

  private DenoiseRequest denoise(CaseRequest request) {
    DenoiseRequest.Builder message =
        DenoiseRequest.newBuilder().setOutputFormatValue(format(request));
    if (request.hasModel()) {
      message.setModel(ref(request));
    }
    if (request.hasImages()) {
      message.setImages(images(request));
    }
    return message.build();
  }

  private static SampleRequest sample(CaseRequest request) {
    SampleRequest.Builder message =
        SampleRequest.newBuilder()
            .setCount(Math.toIntExact(request.count()))
            .setOffset(request.offset())
            .setOutputFormatValue(format(request))
            .setIncludeLatents(request.includeLatents());
    if (request.hasModel()) {
      message.setModel(ref(request));
    }
    request.seed().ifPresent(message::setSeed);
    request.temperature().ifPresent(message::setTemperature);
    return message.build();
  }

  private static SampleStreamRequest sampleStream(CaseRequest request) {
    SampleStreamRequest.Builder message =
        SampleStreamRequest.newBuilder()
            .setCount(request.count())
            .setOffset(request.offset())
            .setOutputFormatValue(format(request))
            .setIncludeLatents(request.includeLatents())
            .setChunkRows(request.chunkRows());
    if (request.hasModel()) {
      message.setModel(ref(request));
    }
    request.seed().ifPresent(message::setSeed);
    request.temperature().ifPresent(message::setTemperature);
    return message.build();
  }

  private static ModelRef ref(CaseRequest request) {
    return ModelRef.newBuilder()
        .setName(request.modelName())
        .setVersion(request.modelVersion())
        .build();
  }

  private Images images(CaseRequest request) {
    if (request.imageTensor().isPresent()) {
      return Images.newBuilder().setTensor(tensor(request.imageTensor().get())).build();
    }
    EncodedImages.Builder files = EncodedImages.newBuilder();
    for (String file : request.imageFiles()) {
      files.addFiles(ByteString.copyFrom(folder.file(file)));
    }
    return Images.newBuilder().setEncoded(files).build();
  }

  private Tensor tensor(CaseTensor tensor) {
    return Tensor.newBuilder()
        .setDataTypeValue(number("DATA_TYPE_", tensor.dtype(), DataType.getDescriptor()))
        .addAllShape(tensor.shape())
        .setData(ByteString.copyFrom(folder.bytes(tensor)))
        .build();
  }

  private static int format(CaseRequest request) {
    return request.outputFormat().isEmpty()
        ? 0
        : number("IMAGE_FORMAT_", request.outputFormat(), ImageFormat.getDescriptor());
  }

  /** Returns an enum value by its name without prefix, or an unknown value by its number. */
  private static int number(String prefix, String name, EnumDescriptor known) {
    if (name.matches("-?[0-9]+")) {
      return Integer.parseInt(name);
    }
    if (known.findValueByName(prefix + name) == null) {
      throw new Mismatch("unknown enum value " + prefix + name);
    }
    return known.findValueByName(prefix + name).getNumber();
  }

  /** Marshaller of raw bytes. */
  private static final class RawBytes implements MethodDescriptor.Marshaller<byte[]> {
    @Override
    public InputStream stream(byte[] bytes) {
      return new ByteArrayInputStream(bytes);
    }

    @Override
    public byte[] parse(InputStream stream) {
      try {
        return stream.readAllBytes();
      } catch (IOException failure) {
        throw new UncheckedIOException(failure);
      }
    }
  }
}
