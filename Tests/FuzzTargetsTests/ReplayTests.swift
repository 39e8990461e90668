import FuzzTargets
import Glibc
import Testing

/// The inputs that fuzzing left: what once was a fault, and one input for each piece of covered code.
@Suite struct ReplayTests {
  private static let folder =
    "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/") + "/Fuzz"

  /// The files of a folder, in order; none where there is no such folder.
  private static func inputs(_ folder: String) -> [(path: String, bytes: [UInt8])] {
    guard let stream = opendir(folder) else { return [] }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if !name.hasPrefix(".") { names.append(name) }
    }
    return names.sorted().map { ("\(folder)/\($0)", contents("\(folder)/\($0)")) }
  }

  private static func contents(_ path: String) -> [UInt8] {
    guard let file = fopen(path, "r") else { return [] }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    let count = fread(&bytes, 1, bytes.count, file)
    return Array(bytes[..<count])
  }

  /// Whether an input is accepted; records a finding.
  @discardableResult
  private func run(_ target: FuzzTarget, _ bytes: [UInt8], _ what: String) -> Bool {
    do throws(FuzzFinding) {
      // Memory of just this length, so that a sanitizer sees a byte too many.
      let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
      defer { copy.deallocate() }
      copy.copyBytes(from: bytes)
      return try target.run(UnsafeRawBufferPointer(copy))
    } catch { Issue.record("\(what): \(error)") }
    return false
  }

  @Test(arguments: FuzzTarget.all.map(\.name))
  func `Kept inputs of every target are handled`(name: String) throws {
    let target = try #require(FuzzTarget.named(name))
    for kind in ["Corpus", "Regressions"] {
      for (path, bytes) in Self.inputs("\(Self.folder)/\(kind)/\(name)") {
        run(target, bytes, path)
      }
    }
  }

  @Test(arguments: FuzzTarget.all.map(\.name))
  func `Seeds of every target are accepted, and handled where they are cut anywhere`(name: String)
    throws
  {
    let target = try #require(FuzzTarget.named(name))
    for (number, seed) in try target.seeds().enumerated() {
      #expect(run(target, seed, "seed \(number)"), "seed \(number) is refused")
      #expect(seed.count <= target.inputByteLimit, "seed \(number) has \(seed.count) bytes")
      for count in stride(from: 0, to: seed.count, by: 1 + seed.count / 100) {
        run(target, Array(seed[..<count]), "seed \(number), \(count) bytes")
      }
    }
  }

  @Test func `Every kept input belongs to a target`() {
    let names = Set(FuzzTarget.all.map(\.name))
    #expect(names.count == FuzzTarget.all.count)
    for kind in ["Corpus", "Regressions"] {
      for folder in Self.folders("\(Self.folder)/\(kind)") { #expect(names.contains(folder)) }
    }
  }

  private static func folders(_ path: String) -> [String] {
    inputs(path).map { String($0.path.dropFirst(path.utf8.count + 1)) }
  }
}
