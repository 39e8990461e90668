import CommandLineSupport
import Glibc
import ModelFormat
import TensorBasics

/// fio, which says what a drive gives to anybody, where it is installed.
enum Fio {
  /// Bytes per second that fio reads of a file, directly and through io_uring.
  ///
  /// - Throws: ``CommandError`` where fio is not installed or fails.
  static func bytesPerSecond(
    of path: String, blockByteCount: Int, queueDepth: Int, isRandom: Bool, seconds: Double
  ) throws -> Double {
    // A colon separates names for fio, and a quote ends one for the shell.
    let name = path.replacing("\\", with: "\\\\").replacing(":", with: "\\:")
      .replacing("'", with: "'\\''")
    let command =
      "fio --name=read --filename='\(name)' --readonly --direct=1 --ioengine=io_uring "
      + "--rw=\(isRandom ? "randread" : "read") --bs=\(blockByteCount) --iodepth=\(queueDepth) "
      + "--runtime=\(max(1, Int(seconds.rounded()))) --time_based --output-format=json 2>&1"
    guard let pipe = command.withSystemPath({ popen($0, "re") }) else {
      throw CommandError(.failure, "fio: \(String(cString: strerror(errno)))")
    }
    var (output, block) = ([UInt8](), [UInt8](repeating: 0, count: 1 << 16))
    while case let count = fread(&block, 1, block.count, pipe), count > 0 {
      output += block[..<count]
    }
    let status = pclose(pipe)
    guard status != 127 << 8 else { throw CommandError(.notPossibleHere, "fio is not installed") }
    // Warnings come before the object.
    let object = output.firstIndex(of: UInt8(ascii: "{")).map { Array(output[$0...]) } ?? []
    let rate = object.withUnsafeBytes { bytes in
      (try? JSONParser.parse(bytes, path: "fio"))?["jobs"]?.array?.first?["read"]?["bw_bytes"]?
        .double
    }
    guard status == 0, let rate, rate > 0 else {
      let line = String(decoding: output, as: UTF8.self).split(separator: "\n").first ?? "no answer"
      throw CommandError(.failure, "fio: \(line)")
    }
    return rate
  }
}
