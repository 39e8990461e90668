public import BlockIO
public import HostResources
public import TensorBasics

/// Why a computational storage drive refuses a configuration or cannot go on.
///
/// A drive that reported one of these answers no command any more: what it holds may be incomplete.
public enum DriveError: Error, Sendable, CustomStringConvertible {
  /// A drive, or a division of heads among drives, that cannot be.
  case impossible(String)
  /// The drive's own memory holds less than its tables, buffers and engine need.
  case memoryTooSmall(needed: ByteCount, available: ByteCount)
  /// No page can be freed: every one is in use.
  case full(capacity: ByteCount)
  /// No block can be erased any more: so many reached their last erase.
  case wornOut(retiredBlockCount: Int, eraseLimit: Int)
  /// A page that stays unreadable after every retry.
  case uncorrectable(FlashAddress)
  /// Positions that do not follow those the drive holds.
  case outOfOrder(layer: Int, position: Int, expected: Int)
  /// Positions that the drive does not hold: none were appended, or they were reclaimed.
  case notHeld(layer: Int, positions: ClosedRange<Int>)
  /// The flash file cannot be made, read or written.
  case io(BlockIOError)
  case allocation(AllocationError)
  /// The drive's thread cannot be started.
  case thread(ThreadError)

  public var description: String {
    switch self {
    case .impossible(let reason): reason
    case .memoryTooSmall(let needed, let available):
      "the drive's memory of \(available) is too small: tables, buffers and engine need \(needed)"
    case .full(let capacity): "the drive is full: its \(capacity) of flash hold no page to free"
    case .wornOut(let count, let limit):
      "the drive is worn out: \(count) of its blocks reached \(limit) erases"
    case .uncorrectable(let address): "uncorrectable page: \(address)"
    case .outOfOrder(let layer, let position, let expected):
      "position \(position) of layer \(layer) does not follow the \(expected) that the drive holds"
    case .notHeld(let layer, let positions):
      "the drive does not hold positions \(positions.lowerBound) to \(positions.upperBound) of "
        + "layer \(layer)"
    case .io(let error): "the drive's flash: \(error)"
    case .allocation(let error): error.description
    case .thread(let error): "cannot start the drive's thread: \(error)"
    }
  }
}

/// A drive of several that failed.
public struct DriveFailure: Error, CustomStringConvertible {
  /// The drive's number, from 0.
  public var drive: Int
  public var cause: DriveError

  public var description: String { "drive \(drive): \(cause)" }
}

/// A page of flash.
public struct FlashAddress: Sendable, Equatable, CustomStringConvertible {
  public var channel: Int
  /// Among the blocks of all planes of the channel.
  public var block: Int
  public var page: Int

  public var description: String { "channel \(channel), block \(block), page \(page)" }
}
