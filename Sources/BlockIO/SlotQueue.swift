/// A first-in, first-out queue of slots that never allocates after initialisation.
struct SlotQueue {
  private var slots: [Int]
  private var firstIndex = 0
  private var count = 0

  init(capacity: Int) { slots = Array(repeating: 0, count: capacity) }

  var isEmpty: Bool { count == 0 }

  /// The slot that ``removeFirst()`` would take.
  var first: Int? { count > 0 ? slots[firstIndex] : nil }

  mutating func append(_ slot: Int) {
    precondition(count < slots.count, "more slots than capacity")
    slots[(firstIndex + count) % slots.count] = slot
    count += 1
  }

  @discardableResult
  mutating func removeFirst() -> Int? {
    guard count > 0 else { return nil }
    defer {
      firstIndex = (firstIndex + 1) % slots.count
      count -= 1
    }
    return slots[firstIndex]
  }
}
