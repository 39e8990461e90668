import CLibFuzzer
import FuzzTargets
import Glibc

// The fuzzer: `FUZZ_TARGET` names the target, arguments are libFuzzer's. With `--prepare FOLDER` it writes
// every target's seeds and dictionary into the folder instead, with `--list` their names.

/// Writes a file or ends the program.
func write(_ bytes: [UInt8], to path: String) {
  guard let file = fopen(path, "w") else { fail("\(path) cannot be written") }
  let written = fwrite(bytes, 1, bytes.count, file)
  guard fclose(file) == 0, written == bytes.count else { fail("\(path): no room") }
}

func fail(_ message: String) -> Never {
  let line = Array("error: \(message)\n".utf8)
  _ = Glibc.write(STDERR_FILENO, line, line.count)
  exit(64)
}

/// Writes `FOLDER/TARGET/seed-N` and `FOLDER/TARGET.dict`.
func prepare(_ folder: String) throws {
  for target in FuzzTarget.all {
    mkdir("\(folder)/\(target.name)", 0o777)
    for (number, seed) in try target.seeds().enumerated() {
      write(seed, to: "\(folder)/\(target.name)/seed-\(number)")
    }
    let words = target.dictionary.map { word in
      // A word with backslashes is written as libFuzzer wants it already.
      "\"\(word.contains("\\x") ? word : word.replacing("\"", with: "\\\""))\"\n"
    }
    // libFuzzer ends at an empty dictionary; one of a comment alone will do.
    let dictionary = "# words of \(target.name)\n" + words.joined()
    write(Array(dictionary.utf8), to: "\(folder)/\(target.name).dict")
  }
}

// What targets keep for the whole process is no leak, but looks like one where the only pointer to it has
// a case's number in its spare bits.
stop_counting_leaks()
let arguments = CommandLine.arguments
if arguments.count == 3, arguments[1] == "--prepare" {
  try prepare(arguments[2])
  exit(0)
}
if arguments.dropFirst() == ["--list"] {
  for target in FuzzTarget.all { print(target.name, target.inputByteLimit) }
  exit(0)
}
guard let name = getenv("FUZZ_TARGET").map({ String(cString: $0) }) else {
  fail("FUZZ_TARGET names no target")
}
guard let found = FuzzTarget.named(name) else { fail("there is no target '\(name)'") }
let target = found
do {
  for seed in try target.seeds() {
    guard try seed.withUnsafeBytes({ try target.run($0) }) else {
      fail("\(name): a seed is refused")
    }
  }
} catch { fail("\(name): a seed: \(error)") }
count_leaks()

var argumentCount = CommandLine.argc
var argumentVector: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = CommandLine.unsafeArgv
exit(
  LLVMFuzzerRunDriver(&argumentCount, &argumentVector) { data, count in
    do throws(FuzzFinding) {
      _ = try target.run(UnsafeRawBufferPointer(start: data, count: count))
    } catch {
      fatalError("finding: \(error)")
    }
    return 0
  })
