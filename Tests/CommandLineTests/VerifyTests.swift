import Glibc
import TestSupport
import Testing

/// `flashinfer-run --verify`: bytes that are right when they are first read and wrong later.
@Suite(
  .serialized,
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
final class VerifyTests {
  private let folder = TemporaryFolder()
  private var image: String { folder.path + "/image" }
  private static let run = [
    "--tokens", "5,6,7", "--temperature", "0", "--ignore-eos", "--max-tokens", "30000",
  ]

  /// An image whose weights are read for every token, and the same with a bit of every page of its second half
  /// flipped.
  init() throws {
    var model = TinyModel.wide()
    model.contextLength = 1 << 15
    let bytes = try ImageBuilder.image(of: model.gguf(seed: 3).bytes())
    var damaged = bytes
    for offset in stride(from: bytes.count / 8192 * 4096, to: bytes.count, by: 4096) {
      damaged[offset] ^= 1
    }
    folder.write("image", bytes)
    folder.write("damaged", damaged)
    // Both of one time, which stays.
    let times = [timespec](repeating: timespec(tv_sec: 1_700_000_000, tv_nsec: 0), count: 2)
    for name in ["image", "damaged"] { utimensat(AT_FDCWD, "\(folder.path)/\(name)", times, 0) }
  }

  /// Runs with the least memory, and damages the image once there is text: as a drive would, without a new time
  /// of modification.
  private func damagedWhileRunning(
    _ verification: String, then command: String
  ) throws -> Program.Result {
    let refusal = try Program.run("flashinfer-run", [image, "--ram", "1MiB"] + Self.run)
    let smallest = refusal.errors.split(whereSeparator: \.isWhitespace).suffix(2).joined()
    let arguments = ([image, "--verify", verification, "--ram", smallest] + Self.run)
      .map { "'\($0)'" }.joined(separator: " ")
    return try Program.shell(
      """
      cd '\(folder.path)'
      "$BIN/flashinfer-run" \(arguments) >text &
      run=$!
      until [ -s text ] || ! kill -0 $run 2>/dev/null; do sleep 0.01; done
      kill -STOP $run
      dd if=damaged of=image bs=1M conv=notrunc 2>/dev/null
      touch -r damaged image
      kill -CONT $run
      \(command)
      wait $run
      """)
  }

  @Test func `A bit that flips after the first read ends a run that verifies always`() throws {
    let result = try damagedWhileRunning("always", then: "")
    #expect(result.status == 65, "\(result.errors)")
    #expect(result.errors.contains(image) && result.errors.contains("tensor '"), "\(result.errors)")
    #expect(!folder.read("text").isEmpty)
  }

  @Test func `It is not seen by a run that verifies first reads, but by the next one`() throws {
    let result = try damagedWhileRunning("first", then: "sleep 0.5; kill -INT $run")
    #expect(result.status == 130, "\(result.errors)")
    #expect(!result.errors.contains("tensor '"), "\(result.errors)")
    for verification in ["first", "always"] {
      let next = try Program.run("flashinfer-run", [image, "--verify", verification] + Self.run)
      #expect(next.status == 65 && next.errors.contains("tensor '"), "\(next.errors)")
    }
  }

  @Test func `A file without checksums is refused where every read is to be verified`() throws {
    let model = folder.write("model", TinyModel().gguf(seed: 1).bytes())
    let result = try Program.run("flashinfer-run", [model, "--verify", "always"] + Self.run)
    #expect(result.status == 65 && result.errors.contains("flashinfer-convert"), "\(result.errors)")
  }
}
