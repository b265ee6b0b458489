#ifndef LATENTSERVE_CANCELLATION_H_
#define LATENTSERVE_CANCELLATION_H_

#include <memory>
#include <optional>

namespace grpc {
class ClientContext;
}

namespace latentserve {

// A handle that cancels the calls it was given to. Copies are the same handle. Safe to use from any thread.
class Cancellation {
 public:
  Cancellation();

  // Cancels all calls in flight, and those that start later: each throws an Error with CANCELLED.
  void Cancel() const;

  bool cancelled() const;

 private:
  friend class CancellationScope;
  struct State;
  std::shared_ptr<State> state_;
};

// While it lives, a handle cancels a call: for calls made with the generated stubs. Must not outlive the
// call's context.
class CancellationScope {
 public:
  // No handle: nothing.
  CancellationScope(const std::optional<Cancellation>& cancellation, grpc::ClientContext* call);
  ~CancellationScope();
  CancellationScope(const CancellationScope&) = delete;
  CancellationScope& operator=(const CancellationScope&) = delete;

 private:
  std::optional<Cancellation> cancellation_;
  grpc::ClientContext* call_;
};

}  // namespace latentserve

#endif  // LATENTSERVE_CANCELLATION_H_
