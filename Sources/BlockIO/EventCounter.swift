import Glibc

/// A descriptor that is readable from the first event until it is read, for loops that wait for descriptors.
package final class EventCounter: Sendable {
  private let descriptor: UnixDescriptor
  package var rawValue: Int32 { descriptor.rawValue }

  package init() throws(BlockIOError) { descriptor = try UnixDescriptor(eventCounter: ()) }

  /// Counts an event. Never waits: a counter that is full is readable.
  package func bump() {
    var one: UInt64 = 1
    _ = write(descriptor.rawValue, &one, MemoryLayout<UInt64>.size)
  }
}
