import Foundation
import TestSupport
import Testing

/// `libflashinfer` as C programs see it: installed header, library and pkg-config file.
@Suite(.enabled(if: Tool.isInstalled, "the library is not installed: run tools/test"))
struct CInterfaceTests {
  private let files = Files()

  /// Without and with AddressSanitizer, LeakSanitizer and UndefinedBehaviourSanitizer.
  static let sanitizers: [[String]] = [
    [], ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
  ]

  /// Compiles a program of ours, runs it, and expects it to end well.
  private func expectOK(_ name: String, _ arguments: [String], _ options: [String]) throws {
    let program = files.folder.path + "/" + name
    let compiled = try Tool.compile(
      Tool.programs + "/\(name).c", to: program, options: options)
    #expect(compiled.status == 0, "\(compiled.errors)")
    let result = try Tool.run([program] + arguments)
    #expect(result.status == 0 && result.output == "ok\n", "\(result.errors)")
  }

  @Test(arguments: sanitizers)
  func `A C program gets what the header promises, and errors for everything else`(
    options: [String]
  ) throws {
    try expectOK("interface", [files.two, files.foreign, files.truncated], options)
  }

  @Test(arguments: sanitizers)
  func `Programs of older and newer headers get the members that they share with the library`(
    options: [String]
  ) throws { try expectOK("versions", [files.two, files.model], options) }

  @Test(arguments: sanitizers)
  func `Rows, memory and what files say beside tensors are the caller's to ask for`(
    options: [String]
  ) throws { try expectOK("rows", [files.two, files.model, files.shards], options) }

  @Test(arguments: sanitizers)
  func `Nothing that a program hands over ends it`(options: [String]) throws {
    try expectOK("boundary", [files.two, files.model], options)
  }

  @Test(arguments: sanitizers)
  func `Nothing that a program hands over ends an engine`(options: [String]) throws {
    try expectOK("engine_boundary", [files.model], options)
  }

  @Test(arguments: sanitizers)
  func `Sequences of an engine are opened, continued and cancelled by any thread`(
    options: [String]
  ) throws { try expectOK("engine", [files.model], options + ["-pthread"]) }

  @Test func `A cancellation is never lost and never ends another generation`() throws {
    try expectOK("cancelling", [files.model], [])
  }

  @Test(arguments: zip(sanitizers, ["1000", "100"]))
  func `Opening and closing again and again keeps no memory, descriptor or thread`(
    options: [String], count: String
  ) throws {
    try expectOK("cycles", [files.two, files.model, files.foreign, count], options)
  }

  @Test func `The header is C++ too`() throws {
    let result = try Tool.run([
      "clang++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++",
      Tool.prefix + "/include/flashinfer.h",
    ])
    #expect(result.status == 0, "\(result.errors)")
  }

  @Test func `Only the interface is visible, and the Swift runtime is inside`() throws {
    let library = Tool.prefix + "/lib/libflashinfer.so"
    let needed = try Tool.run(["readelf", "-d", library]).output
    #expect(needed.contains("soname: [\(Tool.soname)]") && !needed.contains("libswift"))
    let symbols = try Tool.run(["nm", "-D", "--defined-only", library]).output
    let visible = symbols.split(separator: "\n").filter { $0.contains(" T ") }
      .compactMap { $0.split(separator: " ").last.map(String.init) }
    let header = try ["flashinfer.h", "flashinfer_engine.h"].map {
      try String(contentsOfFile: Tool.prefix + "/include/" + $0, encoding: .utf8)
    }.joined()
    let declared = header.matches(
      of: /(?m)^(?:flashinfer_status|uint32_t|const char \*) ?(flashinfer_\w+)\(/)
    #expect(declared.count > 20 && Set(visible) == Set(declared.map { String($0.output.1) }))
  }

  @Test func `The example checks checksums, of every tensor and of an image`() throws {
    let program = files.folder.path + "/checksums"
    let compiled = try Tool.compile(Tool.root + "/examples/c/checksums.c", to: program)
    #expect(compiled.status == 0, "\(compiled.errors)")
    let model = files.experts
    let sums = try Tool.run([program, model])
    #expect(sums.status == 0, "\(sums.errors)")
    let list = files.folder.write("sums", Array(sums.output.utf8))
    #expect(try Tool.run([program, model, "--check", list]).status == 0)
    var damaged = files.folder.read("experts.gguf")
    damaged[damaged.count - 100] ^= 1
    let result = try Tool.run([
      program, files.folder.write("damaged.gguf", damaged), "--check", list,
    ])
    #expect(result.status == 1 && result.output.contains("differs"), "\(result.output)")
  }

  @Test func `The example answers more prompts than have a place`() throws {
    let program = files.folder.path + "/answers"
    let compiled = try Tool.compile(Tool.root + "/examples/c/answers.c", to: program)
    #expect(compiled.status == 0, "\(compiled.errors)")
    let result = try Tool.run([program, files.model] + (1...7).map { "a b \($0)" })
    #expect(result.status == 0, "\(result.errors)")
    for number in 1...7 { #expect(result.output.contains("\(number): 24 tokens")) }
    #expect(try Tool.run([program, files.foreign, "a"]).status == 1)
  }

  @Test func `A damaged image is named by the library itself`() throws {
    let program = files.folder.path + "/stream"
    let compiled = try Tool.compile(Tool.root + "/examples/c/stream.c", to: program)
    #expect(compiled.status == 0, "\(compiled.errors)")
    let image = files.folder.path + "/model.bin"
    let converted = try Tool.run([
      Tool.root + "/.build/release/flashinfer-convert", files.model, image,
    ])
    #expect(converted.status == 0, "\(converted.errors)")
    #expect(try Tool.run([program, image]).status == 0)
    var damaged = files.folder.read("model.bin")
    damaged[damaged.count - 5000] ^= 1
    let result = try Tool.run([program, files.folder.write("damaged.bin", damaged)])
    #expect(result.status == 1 && result.errors.contains("damaged"), "\(result.errors)")
  }
}
