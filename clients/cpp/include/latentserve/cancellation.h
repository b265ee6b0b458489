#ifndef LATENTSERVE_CANCELLATION_H_
#define LATENTSERVE_CANCELLATION_H_

#include <memory>

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

}  // namespace latentserve

#endif  // LATENTSERVE_CANCELLATION_H_
