import BlockIO
import KVCache
import ModelFormat
import Runtime
import TensorBasics
import WeightLoader

/// Where an error of the libraries is, and what to do about it.
extension CallError {
  mutating func note(_ error: RuntimeError) {
    switch error {
    case .loader(let error): note(error)
    case .allocation(let error): systemError = error.errno
    case .notRunnable(let file, _): path = file
    case .budgetTooSmall(_, let minimum, _): remedy = Self.allowing(minimum)
    case .keyValueBudgetTooSmall(_, let needed): remedy = Self.allowing(needed)
    case .keyValues(.io(let error, _)), .keyValues(.noRoom(let error)): note(error)
    case .keyValues(.damaged(let file, let place, _)): (path, offset) = (file, place)
    default: break
    }
  }

  mutating func note(_ error: LoaderError) {
    switch error {
    case .io(let error): note(error)
    case .format(let error): (path, offset) = (error.path, error.offset)
    case .allocation(let error): systemError = error.errno
    case .budgetTooSmall(_, let minimum): remedy = Self.allowing(minimum)
    case .piecesInUse: remedy = "release pieces before asking for the next"
    case .tensorsInUse: remedy = "release some tensors, or allow more memory"
    case .missingFile(let file, _), .noSuchTensor(_, let file), .noSuchTensorIndex(_, _, let file),
      .noSuchPart(_, _, _, let file), .noSuchRows(_, _, _, let file),
      .noSuchExpert(_, _, _, let file),
      .notWeights(_, _, let file):
      path = file
    case .closedByCaller(let file): path = file
    case .inUse(let file):
      (path, remedy) = (file, "take turns, or open the file once for each thread")
    case .forked(let file): (path, remedy) = (file, "open the file again in the child")
    default: break
    }
  }

  private mutating func note(_ error: BlockIOError) {
    (path, offset, systemError) = (error.path, error.offset, error.errno)
  }

  private static func allowing(_ minimum: ByteCount) -> String { "allow at least \(minimum)" }
}
