#ifndef LATENTSERVE_CANCELLATION_H_
#define LATENTSERVE_CANCELLATION_H_

#include <memory>
#include <optional>

namespace grpc {
class ClientContext;
}

namespace latentserve {

// Handle that cancels the calls it was passed to. Copies share one state. Thread-safe.
class Cancellation {
 public:
  Cancellation();

  // Cancels all calls in flight and all later calls: each throws an Error with CANCELLED.
  void Cancel() const;

  bool cancelled() const;

 private:
  friend class CancellationScope;
  struct State;
  std::shared_ptr<State> state_;
};

// Lets a handle cancel a call of the generated stubs during its lifetime. Must not outlive the context of the
// call.
class CancellationScope {
 public:
  // Without a handle, does nothing.
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
