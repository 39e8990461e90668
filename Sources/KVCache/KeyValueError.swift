public import BlockIO
public import TensorBasics

/// Why keys and values could not be stored or read back.
public enum KeyValueError: Error, Sendable, CustomStringConvertible {
  case allocation(AllocationError)
  /// A file could not be made, opened or read.
  case io(BlockIOError, layer: Int?)
  /// A page is not what was written.
  case damaged(path: String, offset: Int, layer: Int)
  /// A page could not be written and there is no memory for it either.
  case noRoom(BlockIOError)
  /// A prefix that does not fit the model.
  case badPrefix(String)
  /// The caller asked to stop while the drive was waited for.
  case interrupted
  /// Tokens follow a chunk that was aborted; the context must be read again.
  case contextAborted

  /// The file that could not be read, or does not hold what was written; nil if that is not the reason.
  public var unreadablePath: String? {
    switch self {
    case .damaged(let path, _, _): path
    case .io(let error, _): error.operation == .read ? error.path : nil
    default: nil
    }
  }

  public var description: String {
    switch self {
    case .allocation(let error): error.description
    case .io(let error, let layer):
      "keys and values" + (layer.map { " of layer \($0)" } ?? "") + ": \(error)"
    case .damaged(let path, let offset, let layer):
      "keys and values of layer \(layer) at offset \(offset) of '\(path)' are not what was written"
    case .noRoom(let error):
      "keys and values fit neither the memory reserved for them nor the drive: \(error)"
    case .badPrefix(let reason): reason
    case .interrupted: "interrupted"
    case .contextAborted: "reading the context was aborted; it must be read again from the start"
    }
  }
}
