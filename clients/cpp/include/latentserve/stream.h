#ifndef LATENTSERVE_STREAM_H_
#define LATENTSERVE_STREAM_H_

#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

namespace latentserve {

// Items of a streaming call. The destructor cancels the call. One thread reads; any thread may call Cancel.
template <typename Item>
class Stream {
 public:
  // Source of the items.
  class Source {
   public:
    virtual ~Source() = default;
    virtual std::optional<Item> Next() = 0;
    virtual void Cancel() = 0;
  };

  explicit Stream(std::unique_ptr<Source> source) : source_(std::move(source)) {}

  // Waits for the next item; nullopt at the end. Throws Error if the call fails, and returns nullopt
  // afterwards.
  std::optional<Item> Next() { return source_->Next(); }

  // Cancels the call; a blocked Next throws an Error with CANCELLED.
  void Cancel() { source_->Cancel(); }

  // Input iterator for range-based for; each item is visited once.
  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Item;
    using difference_type = std::ptrdiff_t;
    using pointer = Item*;
    using reference = Item&;

    Iterator() = default;
    explicit Iterator(Source* source) : source_(source) { ++*this; }

    reference operator*() { return *item_; }
    pointer operator->() { return &*item_; }
    Iterator& operator++() {
      item_ = source_->Next();
      if (!item_) source_ = nullptr;
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(const Iterator& other) const { return source_ == other.source_; }
    bool operator!=(const Iterator& other) const { return source_ != other.source_; }

   private:
    Source* source_ = nullptr;  // null: at the end
    std::optional<Item> item_;
  };

  Iterator begin() { return Iterator(source_.get()); }
  Iterator end() { return Iterator(); }

 private:
  std::unique_ptr<Source> source_;
};

}  // namespace latentserve

#endif  // LATENTSERVE_STREAM_H_
