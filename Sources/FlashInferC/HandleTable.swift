import Glibc
import Synchronization

/// What C programs hold numbers of: loaders, generators and memory that is lent.
///
/// Numbers are never used twice, so that one that is no longer valid is known as such. A forked child gets a
/// table of its own, whatever its parent's threads did at that moment; what the parent held stays allocated
/// in the child, because its rings are the parent's.
final class HandleTable: Sendable {
  private let processID = getpid()
  /// Smaller numbers are of tables of parent processes.
  private let firstNumber: UInt64
  private let objects = Mutex<[UInt64: Entry]>([:])

  private struct Entry: @unchecked Sendable {
    // Safety: loaders and generators refuse overlapping calls themselves; the rest is Sendable.
    let object: AnyObject
  }

  private static let nextNumber = Atomic<UInt64>(1)
  /// The address of the table that ``shared`` found last; a table is never freed.
  private static let current = Atomic<UInt>(0)

  private init() { firstNumber = Self.nextNumber.load(ordering: .relaxed) }

  /// This process's table.
  static var shared: HandleTable {
    var address = current.load(ordering: .acquiring)
    while true {
      if let pointer = UnsafeRawPointer(bitPattern: address) {
        let table = Unmanaged<HandleTable>.fromOpaque(pointer).takeUnretainedValue()
        if table.processID == getpid() { return table }
      }
      let made = Unmanaged.passRetained(HandleTable())
      let (isMine, found) = current.compareExchange(
        expected: address, desired: UInt(bitPattern: made.toOpaque()),
        ordering: .acquiringAndReleasing)
      if isMine { return made.takeUnretainedValue() }
      made.release()
      address = found
    }
  }

  /// Keeps `object` under a new number.
  func add(_ object: AnyObject) -> UInt64 {
    let number = Self.nextNumber.add(1, ordering: .relaxed).oldValue
    let entry = Entry(object: object)
    objects.withLock { $0[number] = entry }
    return number
  }

  /// The object under `number`.
  ///
  /// - Throws: ``CallError`` if there is none of that kind.
  func find<Object: AnyObject>(_ number: UInt64, as type: Object.Type) throws(CallError) -> Object {
    let entry = objects.withLock { $0[number] }
    if let object = entry?.object as? Object { return object }
    throw missing(number)
  }

  /// Forgets `number`.
  func remove<Object: AnyObject>(_ number: UInt64, as type: Object.Type) throws(CallError) {
    let entry = objects.withLock { objects in
      objects[number]?.object is Object ? objects.removeValue(forKey: number) : nil
    }
    guard entry != nil else { throw missing(number) }
  }

  private func missing(_ number: UInt64) -> CallError {
    number > 0 && number < firstNumber
      ? CallError(.forked, "opened before this process was forked; open it again in the child")
      : CallError(.closed, "used after it was closed, or never opened")
  }
}
