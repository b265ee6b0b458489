#include "latentserve/cancellation.h"

#include <grpcpp/client_context.h>

#include <mutex>
#include <set>

namespace latentserve {

struct Cancellation::State {
  std::mutex mutex;
  bool cancelled = false;
  std::set<grpc::ClientContext*> calls;
};

Cancellation::Cancellation() : state_(std::make_shared<State>()) {}

void Cancellation::Cancel() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->cancelled = true;
  // Under the lock, so that a call that ends now does not destroy its context.
  for (grpc::ClientContext* call : state_->calls) call->TryCancel();
}

bool Cancellation::cancelled() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->cancelled;
}

CancellationScope::CancellationScope(const std::optional<Cancellation>& cancellation,
                                     grpc::ClientContext* call)
    : cancellation_(cancellation), call_(call) {
  if (!cancellation_) return;
  const std::lock_guard<std::mutex> lock(cancellation_->state_->mutex);
  cancellation_->state_->calls.insert(call_);
  if (cancellation_->state_->cancelled) call_->TryCancel();
}

CancellationScope::~CancellationScope() {
  if (!cancellation_) return;
  const std::lock_guard<std::mutex> lock(cancellation_->state_->mutex);
  cancellation_->state_->calls.erase(call_);
}

}  // namespace latentserve
