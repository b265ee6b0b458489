#ifndef LATENTSERVE_SRC_CALL_H_
#define LATENTSERVE_SRC_CALL_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>
#include <grpcpp/support/sync_stream.h>

#include <memory>
#include <optional>
#include <utility>

#include "latentserve/cancellation.h"
#include "latentserve/error.h"
#include "latentserve/options.h"
#include "latentserve/stream.h"

namespace latentserve {

// Sets the deadline (none if absent), the token and the metadata of a call. Throws Error for a negative
// timeout.
void Prepare(const Options& options, const CallOptions& call,
             std::optional<std::chrono::milliseconds> timeout, grpc::ClientContext* context);

// Executes one unary call of `method` of `stub`. Throws Error if it fails.
template <typename Stub, typename Request, typename Reply>
Reply Unary(const Options& options, const CallOptions& call, std::chrono::milliseconds timeout, Stub* stub,
            grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
            const Request& request) {
  grpc::ClientContext context;
  Prepare(options, call, timeout, &context);
  const CancellationScope scope(call.cancellation, &context);
  Reply reply;
  const grpc::Status status = (stub->*method)(&context, request, &reply);
  if (!status.ok()) throw Error::FromStatus(status);
  return reply;
}

// Source of the converted messages of a streaming call. `Owner` keeps the connection alive.
template <typename Message, typename Item, typename Owner>
class CallSource : public Stream<Item>::Source {
 public:
  using Convert = Item (*)(Message);

  CallSource(std::shared_ptr<Owner> owner, Convert convert) : owner_(std::move(owner)), convert_(convert) {}

  ~CallSource() override {
    if (reader_ && !ended_) Abandon();
  }

  grpc::ClientContext* context() { return &context_; }

  void Start(const std::optional<Cancellation>& cancellation,
             std::unique_ptr<grpc::ClientReader<Message>> reader) {
    scope_.emplace(cancellation, &context_);
    reader_ = std::move(reader);
  }

  std::optional<Item> Next() override {
    if (ended_) return std::nullopt;
    Message message;
    if (reader_->Read(&message)) {
      try {
        return convert_(std::move(message));
      } catch (const Error&) {
        Abandon();
        throw;
      }
    }
    ended_ = true;
    const grpc::Status status = reader_->Finish();
    if (!status.ok()) throw Error::FromStatus(status);
    return std::nullopt;
  }

  void Cancel() override { context_.TryCancel(); }

 private:
  // Cancels the call and waits for its end.
  void Abandon() {
    ended_ = true;
    context_.TryCancel();
    Message rest;
    while (reader_->Read(&rest)) {
    }
    reader_->Finish();
  }

  std::shared_ptr<Owner> owner_;
  Convert convert_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<Message>> reader_;
  std::optional<CancellationScope> scope_;
  bool ended_ = false;
};

}  // namespace latentserve

#endif  // LATENTSERVE_SRC_CALL_H_
