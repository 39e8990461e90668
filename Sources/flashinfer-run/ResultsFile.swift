import CommandLineSupport
import Glibc
import ModelFormat
import TensorBasics

/// Where results of prompts go: a file that keeps those of earlier runs, or standard output.
///
/// A result is a line, written at once. A line without an end is what a run that was killed left; it is cut off.
final class ResultsFile {
  /// A result of an earlier run.
  struct Kept {
    let checksum: UInt64
    let isError: Bool
  }
  private static let lineByteLimit = 64 << 20
  /// By the number of the prompt's line: the last result, as errors are tried again.
  private(set) var kept: [Int: Kept] = [:]
  /// The seed of the run that began the file; nil if there are no results yet.
  private(set) var runSeed: UInt64?
  private let path: String?
  private let file: Int32
  /// Whether the file was not there before.
  private var isNew = false

  /// - Parameter path: nil = standard output.
  init(path: String?) throws {
    self.path = path
    guard let path else {
      file = STDOUT_FILENO
      return
    }
    let flags = O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC
    let new = path.withSystemPath { open($0, flags | O_EXCL, 0o666) }
    file = new >= 0 ? new : path.withSystemPath { open($0, flags, 0o666) }
    guard file >= 0 else {
      let status: ExitStatus =
        errno == ENOENT || errno == EACCES || errno == EISDIR ? .usage : .failure
      throw CommandError(status, "--output \(path): \(String(cString: strerror(errno)))")
    }
    guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
      throw CommandError(.usage, "--output \(path): another run is writing it")
    }
    isNew = new >= 0
    var status = stat()
    guard fstat(file, &status) == 0 else { return }
    switch status.st_mode & S_IFMT {
    case S_IFREG: try readKept(path)
    case S_IFIFO, S_IFSOCK:
      throw CommandError(
        .usage,
        "--output \(path): a pipe keeps no results; without --output they go to standard output")
    default: break
    }
  }

  deinit {
    guard let path else { return }
    // A run that was refused leaves no file.
    var status = stat()
    if isNew, fstat(file, &status) == 0, status.st_size == 0 {
      _ = path.withSystemPath { unlink($0) }
    }
    close(file)
  }

  private func readKept(_ path: String) throws {
    var (end, isWhole) = (0, true)
    try LineFile(path: path).forEachLine(keeping: Self.lineByteLimit) { line in
      guard line.isEnded else {
        isWhole = false
        return
      }
      let name = "\(path), line \(line.number)"
      guard line.isWhole else {
        throw CommandError(
          .badData, "\(name): longer than \(ByteCount(Self.lineByteLimit)), which no result is")
      }
      end = line.place.upperBound + 1
      if !line.bytes.isEmpty { try keep(line.bytes, name: name) }
    }
    guard !isWhole else { return }
    Terminal.warn(
      "\(path): the last line is not whole; it is cut off, and its prompt answered again")
    guard ftruncate(file, off_t(end)) == 0 else {
      throw CommandError(.failure, "--output \(path): \(String(cString: strerror(errno)))")
    }
  }

  private func keep(_ line: [UInt8], name: String) throws {
    let json = try line.withUnsafeBytes { try JSONParser.parse($0, path: name) }
    guard let number = json["line"]?.integer,
      let checksum = json["input"]?.string.flatMap({ UInt64($0, radix: 16) }),
      let seed = json["runSeed"]?.integer, seed >= 0
    else {
      throw CommandError(
        .badData, "\(name): no result of flashinfer-run --prompts; give another file to --output")
    }
    kept[number] = Kept(checksum: checksum, isError: json["error"] != nil)
    runSeed = UInt64(seed)
  }

  /// Adds a result.
  ///
  /// - Throws: ``CommandError`` where the file does not take it.
  func append(_ line: [UInt8]) throws {
    guard let path else { return Terminal.print(line) }
    var rest = line[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else {
        throw CommandError(
          .failure,
          "--output \(path): \(String(cString: strerror(errno))); what it holds is kept, and the run "
            + "can be repeated")
      }
      rest = rest.dropFirst(count)
    }
  }

  /// Waits until the results are on the drive.
  func synchronise() throws {
    guard let path else { return }
    if fsync(file) != 0, errno != EINVAL {
      throw CommandError(.failure, "--output \(path): \(String(cString: strerror(errno)))")
    }
    var status = stat()
    guard fstat(file, &status) == 0, status.st_nlink > 0 else {
      throw CommandError(
        .failure, "--output \(path): the file was removed meanwhile, and the results with it")
    }
  }
}
