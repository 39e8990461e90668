/// A parser, or another part that takes bytes from outside, with what must hold of it for any bytes.
///
/// The driver (`tools/fuzz`) feeds it what libFuzzer makes up; `FuzzTargetsTests` replays the kept inputs
/// in every ordinary test run.
public struct FuzzTarget: Sendable {
  /// The name on the command line and of the folders in `Fuzz/`.
  public let name: String
  /// Longest input worth trying.
  public let inputByteLimit: Int
  /// Words that the fuzzer puts into inputs.
  public let dictionary: [String]
  /// Inputs to begin with, made by the builders that the tests use.
  public let seeds: @Sendable () throws -> [[UInt8]]
  /// Runs one input and returns whether it was accepted; a refused one is no finding. Must depend on the
  /// bytes alone.
  public let run: @Sendable (_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool

  public init(
    name: String, inputByteLimit: Int = 4096, dictionary: [String] = [],
    seeds: @escaping @Sendable () throws -> [[UInt8]],
    run: @escaping @Sendable (_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool
  ) {
    self.name = name
    self.inputByteLimit = inputByteLimit
    self.dictionary = dictionary
    self.seeds = seeds
    self.run = run
  }

  /// Every target, in the order in which `tools/fuzz` runs them.
  public static let all: [FuzzTarget] = [
    .gguf, .safetensors, .image, .stripe, .entry, .json, .tokenizerFile, .vocabulary, .prompt,
    .chat,
    .jinja, .cInterface,
  ]

  public static func named(_ name: String) -> FuzzTarget? { all.first { $0.name == name } }
}

/// Something that must hold for any input, and did not.
public struct FuzzFinding: Error, CustomStringConvertible {
  public let description: String

  public init(_ description: String) { self.description = description }
}

/// Throws a finding unless `condition` holds.
func require(
  _ condition: Bool, _ message: @autoclosure () -> String
) throws(FuzzFinding) {
  if !condition { throw FuzzFinding(message()) }
}
