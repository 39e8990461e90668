/// A complete page of one sequence, or of several that were forked: where it lies, and what is known of it.
///
/// A page that lies in memory is **resident**, **working** or **staged**, which says whose room it takes.
struct KeyValuePage {
  /// Where it lies in memory, once it can be read there.
  var address: UnsafeMutableRawPointer?
  /// XXH3-64 of its bytes, where it is in a file.
  var checksum: UInt64 = 0
  /// The file that holds it, or is to, and where in it.
  var file: Int32 = -1
  var offset = 0
  var layer: Int32 = 0
  var pageGroup: Int32 = 0
  /// Sequences that hold it.
  var referenceCount: Int32 = 0
  var flags: Flags = []

  struct Flags: OptionSet {
    let rawValue: UInt16
    /// A file holds it.
    static let isOnFile = Flags(rawValue: 1)
    static let isBeingWritten = Flags(rawValue: 2)
    /// It leaves memory once it is written.
    static let isLeaving = Flags(rawValue: 4)
    static let isBeingRead = Flags(rawValue: 8)
    /// What is being read of it is not wanted any more.
    static let isUnwanted = Flags(rawValue: 16)
    /// It takes the room of pages that stay.
    static let isResident = Flags(rawValue: 32)
    /// It takes the room of pages that enter or leave.
    static let isWorking = Flags(rawValue: 64)
    /// It takes the room of pages that attention passes.
    static let isStaged = Flags(rawValue: 128)
  }
}

/// Free slots; never allocates after initialisation.
struct SlotStack {
  private var slots: [Int]

  /// The lowest slot comes first.
  init(_ slots: Range<Int>) { self.slots = slots.reversed() }

  /// None, with room for `capacity`.
  init(capacity: Int) {
    slots = []
    slots.reserveCapacity(capacity)
  }

  var count: Int { slots.count }

  mutating func pop() -> Int? { slots.popLast() }

  mutating func push(_ slot: Int) { slots.append(slot) }
}
