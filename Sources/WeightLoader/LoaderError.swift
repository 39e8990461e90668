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
  /// The system would not give memory.
  case allocation(AllocationError)
  /// The budget cannot hold what must be in memory at once.
  case budgetTooSmall(budget: ByteCount, minimum: ByteCount)
  /// The caller asked to stop.
  case interrupted
  /// The caller named a tensor that the model does not have.
  case noSuchTensor(String, path: String)
  /// A piece was asked for that no announced sweep brings while the pieces in use are kept.
  case notExpected(piece: Int)
  /// An earlier failure left the stream unusable.
  case closed

  public var description: String {
    switch self {
    case .io(let error): error.description
    case .format(let error): error.description
    case .missingFile(let path, let text): "\(path): \(text)"
    case .allocation(let error): error.description
    case .budgetTooSmall(let budget, let minimum):
      "a budget of \(budget) is too small: the smallest that works here is \(minimum)"
    case .interrupted: "interrupted"
    case .noSuchTensor(let name, let path): "\(path): there is no tensor '\(name)'"
    case .notExpected(let piece):
      "piece \(piece) is not under way: announce its sweep, acquire pieces in the plan's order and "
        + "release them"
    case .closed: "the stream ended with an earlier error; open the model again"
    }
  }
}
