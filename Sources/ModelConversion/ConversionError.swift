public import BlockIO
public import ModelFormat
public import TensorBasics
public import WeightLoader

/// Why a model could not be converted.
public enum ConversionError: Error, Sendable {
  /// The source could not be opened or read as a model.
  case loader(LoaderError)
  /// The source says something that cannot be true, or that is not supported.
  case format(FormatError)
  /// A file could not be read or written.
  case io(BlockIOError)
  /// Memory for the conversion was refused.
  case allocation(AllocationError)
  /// The request itself cannot be met; the text says why.
  case notPossible(String)
  /// The user asked to stop.
  case interrupted
}

extension ConversionError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .loader(let error): "\(error)"
    case .format(let error): "\(error)"
    case .io(let error): "\(error)"
    case .allocation(let error): "\(error)"
    case .notPossible(let reason): reason
    case .interrupted: "interrupted"
    }
  }
}
