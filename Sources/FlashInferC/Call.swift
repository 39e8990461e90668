import BlockIO
import CFlashInfer
import Glibc
import HostResources
import Runtime
import TensorBasics
import WeightLoader

/// The codes of `flashinfer.h`.
enum Status: flashinfer_status {
  case ok = 0
  case end
  case timeout
  case invalid
  case noFile
  case badData
  case io
  case noMemory
  case cancelled
  case closed
  case busy
  case forked
  case notFound
  case failed
}

/// A failure as C is told of it.
struct CallError: Error {
  let status: Status
  let message: String
  /// What to do about it, if that is known.
  var remedy: String?
  /// The file at fault, the place in it and the system's error number, where there are such.
  var path: String?
  var offset: Int?
  var systemError: Int32?

  init(_ status: Status, _ message: String, remedy: String? = nil) {
    self.status = status
    self.message = message
    self.remedy = remedy
  }

  init(_ error: any Error) {
    switch error {
    case let error as CallError: self = error
    case let error as LoaderError:
      self.init(Self.status(of: error), error.description)
      note(error)
    case let error as RuntimeError:
      self.init(Self.status(of: error), error.description)
      note(error)
    case let error as BudgetError:
      self.init(
        .noMemory, error.description, remedy: "allow at most \(ByteCount(error.roomByteCount))")
    default: self.init(.failed, "\(error)")
    }
  }

  private static func status(of error: RuntimeError) -> Status {
    switch error {
    case .loader(let error): status(of: error)
    case .tokenizer, .notRunnable, .notFinite: .badData
    case .badPrompt: .invalid
    case .allocation, .budgetTooSmall, .keyValueBudgetTooSmall, .thread: .noMemory
    case .interrupted: .cancelled
    case .sequence(let error): status(of: error)
    case .keyValues, .decodeAttention: .io
    }
  }

  private static func status(of error: SequenceError) -> Status {
    switch error {
    case .full: .noMemory
    case .underWay: .busy
    case .over, .engineStopped: .closed
    case .noSuchPosition, .noGrammars, .noTokenFits, .grammarTooAmbiguous: .invalid
    }
  }

  private static func status(of error: LoaderError) -> Status {
    switch error {
    case .io(let error): error.isMissingFile ? .noFile : isForeign(error) ? .badData : .io
    case .format, .notVerifiable, .notWeights: .badData
    case .missingFile: .noFile
    case .allocation, .budgetTooSmall, .piecesInUse, .tensorsInUse: .noMemory
    case .interrupted: .cancelled
    case .closedByCaller: .closed
    case .inUse: .busy
    case .forked: .forked
    case .noSuchTensor, .noSuchTensorIndex, .noSuchPart, .noSuchRows, .noSuchExpert: .notFound
    case .badDestination, .badRows: .invalid
    case .notExpected: .failed
    }
  }

  /// Whether what was opened is no file to read from: a folder, a pipe.
  private static func isForeign(_ error: BlockIOError) -> Bool {
    if case .notReadable = error.reason { true } else { false }
  }
}

/// Runs a call of the interface; what it throws becomes a status and a message.
func call(
  _ error: UnsafeMutablePointer<flashinfer_error>?, _ body: () throws -> Status
) -> flashinfer_status {
  // A caller whose errors cannot be filled in is told at once, and not when it needs one.
  var place: (pointer: UnsafeMutableRawPointer, size: Int)?
  if let error {
    guard let size = try? flashinfer_error.size(at: error, "error") else {
      return Status.invalid.rawValue
    }
    place = (UnsafeMutableRawPointer(error), size)
  }
  let failure: CallError
  do {
    let status = try body()
    guard status == .timeout else { return status.rawValue }
    failure = CallError(.timeout, "nothing came within the time given")
  } catch { failure = CallError(error) }
  if let place { failure.structure.write(to: place.pointer, size: place.size) }
  return failure.status.rawValue
}

extension CallError {
  fileprivate var structure: flashinfer_error {
    var structure = flashinfer_error()
    structure.status = status.rawValue
    fill(&structure.message, message.displayingPaths)
    structure.system_error = systemError ?? 0
    structure.offset = Int64(offset ?? -1)
    fill(&structure.path, path: path?.systemPath ?? [])
    fill(&structure.remedy, remedy ?? "")
    return structure
  }
}

/// What a pointer argument points to.
func required<Pointer>(_ pointer: Pointer?, _ name: String) throws(CallError) -> Pointer {
  guard let pointer else { throw CallError(.invalid, "\(name) is NULL") }
  return pointer
}

/// A C string as text.
func text(_ pointer: UnsafePointer<CChar>?, _ name: String) throws(CallError) -> String {
  let pointer = try required(pointer, name)
  guard let text = String(validatingCString: pointer) else {
    throw CallError(.invalid, "\(name) is not UTF-8")
  }
  return text
}

/// A C string as a path, which need not be UTF-8.
func path(_ pointer: UnsafePointer<CChar>?) throws(CallError) -> String {
  String(systemPath: try required(pointer, "path"))
}

/// A number of C's as one of Swift's.
func integer(_ number: UInt64, _ name: String) throws(CallError) -> Int {
  guard let integer = Int(exactly: number) else {
    throw CallError(.invalid, "\(name) is \(number), which is too large")
  }
  return integer
}

/// A handle's number.
func number(_ handle: OpaquePointer?) -> UInt64 { UInt64(UInt(bitPattern: handle)) }

/// A number as the handle that C gets.
func handle(_ number: UInt64) -> OpaquePointer? { OpaquePointer(bitPattern: UInt(number)) }
