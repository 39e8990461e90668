public import BlockIO
public import ModelFormat
public import TensorBasics
public import WeightLoader

/// Why a model could not be converted.
public enum ConversionError: Error, Sendable, CustomStringConvertible {
  /// The source could not be opened.
  case loader(LoaderError)
  /// What the source says is wrong or not supported.
  case format(FormatError)
  /// Reading or writing failed.
  case io(BlockIOError)
  /// The system would not give memory.
  case allocation(AllocationError)
  /// The request makes no sense for this source; the text says why.
  case notPossible(String)
  /// The caller asked to stop.
  case interrupted

  public var description: String {
    switch self {
    case .loader(let error): error.description
    case .format(let error): error.description
    case .io(let error): error.description
    case .allocation(let error): error.description
    case .notPossible(let reason): reason
    case .interrupted: "interrupted"
    }
  }
}
