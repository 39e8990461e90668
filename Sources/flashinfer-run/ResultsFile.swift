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
    let line: Int
    let checksum: UInt64
    let isError: Bool
  }
  private(set) var kept: [Kept] = []
  /// The seed of the run that began the file; nil if there are no results yet.
  private(set) var runSeed: UInt64?
  private let path: String?
  private let file: Int32

  /// - Parameter path: nil = standard output.
  init(path: String?) throws {
    self.path = path
    guard let path else {
      file = STDOUT_FILENO
      return
    }
    file = path.withSystemPath { open($0, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o666) }
    guard file >= 0 else {
      let status: ExitStatus =
        errno == ENOENT || errno == EACCES || errno == EISDIR ? .usage : .failure
      throw CommandError(status, "--output \(path): \(String(cString: strerror(errno)))")
    }
    guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
      throw CommandError(.usage, "--output \(path): another run is writing it")
    }
    var status = stat()
    // A device or a pipe keeps nothing.
    if fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG { try readKept(path) }
  }

  deinit { if path != nil { close(file) } }

  private func readKept(_ path: String) throws {
    let bytes = try Terminal.readAll(path: path)
    let end = bytes.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
    for (index, line) in bytes[..<end].split(separator: UInt8(ascii: "\n")).enumerated() {
      let name = "\(path), line \(index + 1)"
      let json = try Array(line).withUnsafeBytes { try JSONParser.parse($0, path: name) }
      guard let number = json["line"]?.integer,
        let checksum = json["input"]?.string.flatMap({ UInt64($0, radix: 16) }),
        let seed = json["runSeed"]?.integer, seed >= 0
      else {
        throw CommandError(
          .badData, "\(name): no result of flashinfer-run --prompts; give another file to --output")
      }
      kept.append(Kept(line: number, checksum: checksum, isError: json["error"] != nil))
      runSeed = UInt64(seed)
    }
    guard end < bytes.count else { return }
    Terminal.warn(
      "\(path): the last line is not whole; it is cut off, and its prompt answered again")
    guard ftruncate(file, off_t(end)) == 0 else {
      throw CommandError(.failure, "--output \(path): \(String(cString: strerror(errno)))")
    }
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
    guard let path, fsync(file) != 0, errno != EINVAL else { return }
    throw CommandError(.failure, "--output \(path): \(String(cString: strerror(errno)))")
  }
}
