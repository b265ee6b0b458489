#ifndef LATENTSERVE_STREAM_H_
#define LATENTSERVE_STREAM_H_

#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

namespace latentserve {

// What a server sends bit by bit. Its destructor cancels what is left of the call. One thread reads; Cancel
// may come from any.
template <typename Item>
class Stream {
 public:
  // Where the items come from.
  class Source {
   public:
    virtual ~Source() = default;
    virtual std::optional<Item> Next() = 0;
    virtual void Cancel() = 0;
  };

  explicit Stream(std::unique_ptr<Source> source) : source_(std::move(source)) {}

  // Waits for the next item; nothing at the end. Throws Error where the call fails, then nothing more.
  std::optional<Item> Next() { return source_->Next(); }

  // Ends the call; a Next that waits throws an Error with CANCELLED.
  void Cancel() { source_->Cancel(); }

  // An input iterator, for range-for: every item is seen once.
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
