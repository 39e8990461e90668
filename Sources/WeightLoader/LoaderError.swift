public import BlockIO
public import ModelFormat
public import TensorBasics

/// Why a model could not be opened, planned or streamed.
public enum LoaderError: Error, Sendable, CustomStringConvertible {
  /// The drive or the file system failed.
  case io(BlockIOError)
  /// The file's contents are wrong.
  case format(FormatError)
  /// A file that belongs to the model is not there; the text says which, and where it should be.
  case missingFile(path: String, String)
  /// The system refused memory.
  case allocation(AllocationError)
  /// The budget cannot hold what must be in memory at once.
  case budgetTooSmall(budget: ByteCount, minimum: ByteCount)
  /// The caller asked to stop.
  case interrupted
  /// The caller named a tensor that the model does not have.
  case noSuchTensor(String, path: String)
  /// A piece was asked for that no announced sweep can deliver while the pieces in use are kept.
  case notExpected(piece: Int)
  /// The pieces in use leave the stream no memory to continue.
  case piecesInUse(ByteCount)
  /// The tensors in use leave too little of the memory that the budget has for them.
  case tensorsInUse(wanted: ByteCount, free: ByteCount, limit: ByteCount)
  /// The caller closed the loader.
  case closedByCaller(path: String)
  /// Another thread is in a call of the loader.
  case inUse(path: String)
  /// The loader belongs to the process that this one was forked from.
  case forked(path: String)
  /// Not every read of the file can be compared with a checksum; the text says what would help.
  case notVerifiable(path: String, String)
  /// The file has only `count` tensors.
  case noSuchTensorIndex(Int, count: Int, path: String)
  /// The tensor of that name has only `count` parts.
  case noSuchPart(Int, of: String, count: Int, path: String)
  /// The part has only `count` rows.
  case noSuchRows(Range<Int>, of: String, count: Int, path: String)
  /// The caller's memory is too short or does not begin at a page.
  case badDestination(byteCount: Int, needed: Int)
  /// The bytes given are not these rows, or there is no room for their values; the text says which.
  case badRows(String)
  /// The tensor holds integers or other data that are no weights.
  case notWeights(String, type: String, path: String)
  /// The layer has only `count` experts; none in a layer that is not of experts.
  case noSuchExpert(Int, layer: Int, count: Int, path: String)

  public var description: String {
    switch self {
    case .io(let error): error.description
    case .format(let error): error.description
    case .missingFile(let path, let text): "\(path): \(text)"
    case .notVerifiable(let path, let text): "\(path): \(text)"
    case .allocation(let error): error.description
    case .budgetTooSmall(let budget, let minimum):
      "a budget of \(budget) is too small: the smallest that works here is \(minimum)"
    case .interrupted: "interrupted"
    case .noSuchTensor(let name, let path): "\(path): there is no tensor '\(name)'"
    case .notExpected(let piece):
      "piece \(piece) is not under way: announce its sweep, acquire pieces in the plan's order and "
        + "release them"
    case .piecesInUse(let byteCount):
      "all \(byteCount) that the stream may hold are in use: release pieces before asking for the next"
    case .tensorsInUse(let wanted, let free, let limit):
      "\(wanted) are wanted, and of the \(limit) that the budget leaves for tensors only \(free) are "
        + "free: release some, or allow more memory"
    case .closedByCaller(let path): "\(path): used after it was closed"
    case .inUse(let path):
      "\(path): two threads use one loader at the same time; take turns, or open it once for each"
    case .forked(let path):
      "\(path): opened before this process was forked; open it again in the child"
    case .noSuchTensorIndex(let index, let count, let path):
      "\(path): there is no tensor number \(index): there are \(count), counted from 0"
    case .noSuchPart(let part, let name, let count, let path):
      "\(path): there is no part \(part) of tensor '\(name)': there are \(count), counted from 0"
    case .noSuchRows(let rows, let name, let count, let path):
      "\(path): there are no rows \(rows.lowerBound) to \(rows.upperBound) of tensor '\(name)': each part "
        + "has \(count), counted from 0"
    case .badDestination(let byteCount, let needed):
      "the memory to read into has \(byteCount) bytes; \(needed) that begin at a multiple of "
        + "\(AlignedBuffer.pageByteCount) are needed"
    case .badRows(let text): text
    case .notWeights(let name, let type, let path):
      "\(path): tensor '\(name)' is of type \(type), no weights"
    case .noSuchExpert(let expert, let layer, let count, let path):
      "\(path): there is no expert \(expert) in layer \(layer), which has \(count) of them"
    }
  }
}
