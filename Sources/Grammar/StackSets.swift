/// Sets of stacks of a grammar's nodes, each set once: equal sets have equal numbers.
///
/// A set is a list of its stacks' upper nodes, ascending, each with the set of what may lie below it. So stacks that
/// begin alike are one, and the sets of a nested answer
/// share all but their ends.
struct StackSets {
  struct Item: Hashable {
    var node: UInt32
    /// The set of stacks below.
    var below: UInt32
  }

  /// The set that has no stack.
  static let none: UInt32 = 0
  /// The set of the empty stack alone: nothing is left to be read.
  static let finished: UInt32 = 1
  /// In place of a node: the empty stack.
  static let end = UInt32.max
  /// What keeping an item costs beside looking at it, so that the work for a mask bounds the memory that it takes.
  private static let insertionWork = 8
  /// How deep two stacks are compared when they are united.
  private static let unionDepth = 400

  private var items: [Item] = []
  /// Where each set begins [set count + 1].
  private var starts: [UInt32] = [0]
  /// Numbers of sets by their hash; 0 is free.
  private var table = [UInt32](repeating: 0, count: 1024)
  /// What may still be done, in items; nothing means what is made from here on.
  private(set) var workLeft = 0

  init() {
    // The empty set, which is in no table.
    starts.append(0)
    _ = insert([Item(node: Self.end, below: Self.none)])
  }

  var count: Int { starts.count - 1 }
  var byteCount: Int {
    MemoryLayout<Item>.stride * items.capacity + 4 * (starts.capacity + table.count)
  }

  subscript(set: UInt32) -> ArraySlice<Item> {
    items[Int(starts[Int(set)])..<Int(starts[Int(set) + 1])]
  }

  mutating func allow(work: Int) { workLeft = work }

  mutating func spend(_ work: Int) { workLeft -= work }

  /// The set of these items, whose nodes ascend.
  mutating func insert(_ list: some Collection<Item>) -> UInt32 {
    guard !list.isEmpty else { return Self.none }
    if 2 * count > table.count { grow() }
    var slot = Self.hash(list) & (table.count - 1)
    while table[slot] != 0 {
      if self[table[slot]].elementsEqual(list) { return table[slot] }
      slot = (slot + 1) & (table.count - 1)
    }
    let set = UInt32(count)
    workLeft -= Self.insertionWork * list.count
    items.append(contentsOf: list)
    starts.append(UInt32(items.count))
    table[slot] = set
    return set
  }

  private static func hash(_ list: some Collection<Item>) -> Int {
    var value: UInt64 = 0x9E37_79B9_7F4A_7C15
    for item in list {
      value = (value ^ (UInt64(item.node) << 32 | UInt64(item.below))) &* 0xBF58_476D_1CE4_E5B9
      value ^= value >> 29
    }
    return Int(truncatingIfNeeded: value >> 1)
  }

  private mutating func grow() {
    table = Array(repeating: 0, count: 2 * table.count)
    for set in 1..<UInt32(count) {
      var slot = Self.hash(self[set]) & (table.count - 1)
      while table[slot] != 0 { slot = (slot + 1) & (table.count - 1) }
      table[slot] = set
    }
  }

  /// The stacks of both sets.
  mutating func union(_ left: UInt32, _ right: UInt32, depth: Int = 0) -> UInt32 {
    if left == right || right == Self.none { return left }
    if left == Self.none { return right }
    guard depth < Self.unionDepth else {
      workLeft = -1
      return left
    }
    // By index: a slice would have the items copied when a set is inserted.
    var (first, second) = (Int(starts[Int(left)]), Int(starts[Int(right)]))
    let (firstEnd, secondEnd) = (Int(starts[Int(left) + 1]), Int(starts[Int(right) + 1]))
    workLeft -= firstEnd - first + secondEnd - second
    guard workLeft > 0 else { return left }
    var result: [Item] = []
    result.reserveCapacity(firstEnd - first + secondEnd - second)
    while first < firstEnd || second < secondEnd {
      if second == secondEnd || first < firstEnd && items[first].node < items[second].node {
        result.append(items[first])
        first += 1
      } else if first == firstEnd || items[second].node < items[first].node {
        result.append(items[second])
        second += 1
      } else {
        let below = union(items[first].below, items[second].below, depth: depth + 1)
        result.append(Item(node: items[first].node, below: below))
        first += 1
        second += 1
      }
    }
    return insert(result)
  }
}
