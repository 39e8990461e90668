public import ArgumentParser
import BlockIO
import Glibc
import HostResources
import InStorageAttention
import KVCache
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// Exit codes that scripts may depend on; the numbers are those of sysexits.h.
public enum ExitStatus: Int32, Sendable {
  case failure = 1
  case usage = 64
  case badData = 65
  case noInput = 66
  case notPossibleHere = 69
  case interrupted = 130

  public var code: ExitCode { ExitCode(rawValue) }

  /// The status that an error of the libraries ends a program with.
  public init(_ error: any Error) {
    switch error {
    case let error as RuntimeError: self = Self.status(of: error)
    case let error as LoaderError: self = Self.status(of: error)
    case is FormatError, is TokenizerError: self = .badData
    case let error as BlockIOError: self = Self.status(of: error)
    case let error as DriveError: self = Self.status(of: error)
    case is AllocationError, is BudgetError: self = .notPossibleHere
    case let error as CommandError: self = error.status
    default: self = .failure
    }
  }

  private static func status(of error: RuntimeError) -> ExitStatus {
    switch error {
    case .loader(let error): status(of: error)
    case .tokenizer, .notRunnable, .notFinite, .badPrompt: .badData
    case .allocation, .budgetTooSmall, .keyValueBudgetTooSmall, .thread: .notPossibleHere
    case .interrupted: .interrupted
    case .sequence: .failure
    case .keyValues(let error): status(of: error)
    case .decodeAttention(let error as DriveError): status(of: error)
    case .decodeAttention: .failure
    }
  }

  private static func status(of error: KeyValueError) -> ExitStatus {
    switch error {
    case .badPrefix: .badData
    case .allocation: .notPossibleHere
    case .io(let error, _): status(of: error) == .notPossibleHere ? .notPossibleHere : .failure
    case .interrupted: .interrupted
    case .damaged, .noRoom, .contextAborted: .failure
    }
  }

  private static func status(of error: DriveError) -> ExitStatus {
    switch error {
    case .impossible, .memoryTooSmall: .usage
    case .allocation, .thread: .notPossibleHere
    case .io(let error): status(of: error) == .notPossibleHere ? .notPossibleHere : .failure
    default: .failure
    }
  }

  private static func status(of error: LoaderError) -> ExitStatus {
    switch error {
    case .io(let error): status(of: error)
    case .format, .notVerifiable, .noSuchTensor, .noSuchTensorIndex, .noSuchPart, .noSuchRows,
      .noSuchExpert, .notWeights:
      .badData
    case .missingFile: .noInput
    case .allocation, .budgetTooSmall, .tensorsInUse: .notPossibleHere
    case .interrupted: .interrupted
    case .closedByCaller, .inUse, .forked, .notExpected, .piecesInUse, .badDestination, .badRows:
      .failure
    }
  }

  private static func status(of error: BlockIOError) -> ExitStatus {
    switch (error.operation, error.reason) {
    case _ where error.isMissingFile: .noInput
    case (.open, .system(errno: EACCES)): .noInput
    case (.open, .notReadable), (.inspect, .notReadable): .badData
    // The command names a place where nothing may be written.
    case (.create, .notWritable), (.create, .inUse), (.create, .unnamed),
      (.create, .openElsewhere), (.create, .system(errno: EISDIR)):
      .usage
    case (.setUpRing, _), (.startThreads, _), (.allocate, _): .notPossibleHere
    case (_, .system(errno: EMFILE)), (_, .system(errno: ENFILE)): .notPossibleHere
    default: .failure
    }
  }
}

/// An error of a command itself, with the status it ends with.
public struct CommandError: Error, CustomStringConvertible {
  public let status: ExitStatus
  public let description: String

  public init(_ status: ExitStatus, _ description: String) {
    self.status = status
    self.description = description
  }
}
