import Foundation
import ModelFormat
import TensorBasics
import TestSupport
import Testing

/// The examples on a file of 1.1 GB, in 300 MiB: whole tensors are longer than the budget.
struct LargeFileTests {
  private let files = Files()

  /// Half of the file is one matrix, as the embedding table of a small model is. Rows without bytes of their own
  /// are holes, which read as zeros.
  private func model() throws -> String {
    let tensors =
      [SafetensorsLayout.Tensor("token_embd.weight", .f16, [131_072, 2048])]
      + (0..<18).map { .init("blk.\($0).ffn_up.weight", .f16, [4096, 4096]) }
    let layout = SafetensorsLayout(tensors, metadata: ["format": "pt"])
    let path = files.folder.write("large.safetensors", layout.header)
    let file = try #require(FileHandle(forUpdatingAtPath: path))
    defer { try? file.close() }
    try file.truncate(atOffset: UInt64(layout.fileByteCount))
    for offset in layout.offsets {
      // 1, 2, … in the first row.
      try file.seek(toOffset: UInt64(offset))
      try file.write(contentsOf: (1...1024).map(Float16.init).withUnsafeBytes { Data($0) })
    }
    #expect(layout.fileByteCount > 1_050_000_000)
    return path
  }

  /// Runs a program to its end and expects its peak resident set to be within 300 MiB.
  private func expectWithinBudget(_ program: [String]) throws -> Tool.Result {
    let measure = """
      import resource, subprocess, sys
      done = subprocess.run(sys.argv[1:])
      print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
      sys.exit(done.returncode)
      """
    let result = try Tool.run(["python3", "-c", measure] + program)
    #expect(result.status == 0, "\(result.errors)")
    let peak = result.errors.split(separator: "\n").last.flatMap { line in
      line.split(separator: " ").last.flatMap { Int($0) }
    }
    #expect((peak ?? .max) <= 300 << 10, "\(program[0]): \(result.errors)")
    return result
  }

  @Test(.enabled(if: Tool.isInstalled, "the library is not installed: run tools/test"))
  func `The C example keeps to 300 MiB`() throws {
    let program = files.folder.path + "/stream"
    let compiled = try Tool.compile(Tool.root + "/examples/c/stream.c", to: program)
    #expect(compiled.status == 0, "\(compiled.errors)")
    let output = try expectWithinBudget([program, try model()]).output
    #expect(output.hasSuffix("a row of tensor 0 has 4096 bytes\n"))
    #expect(output.contains("blk.17.ffn_up.weight: "))
  }

  @Test(.enabled(if: Tool.hasPython, "there is no Python environment with NumPy: run tools/test"))
  func `The Python example keeps to 300 MiB`() throws {
    let output = try expectWithinBudget([
      Tool.python, Tool.root + "/examples/python/stream.py", try model(),
    ]).output
    #expect(
      output.contains("token_embd.weight begins with [1. 2. 3. 4.] and ends with [0. 0. 0. 0.]"))
  }

  @Test(.enabled(if: Tool.hasExamples, "the Swift examples are not built: run tools/test"))
  func `The Swift example keeps to 300 MiB`() throws {
    let output = try expectWithinBudget([Tool.swiftExamples + "/stream", try model()]).output
    #expect(output.contains("token_embd.weight begins with 1.0\n"))
    #expect(output.contains(" bytes read in "))
  }
}
