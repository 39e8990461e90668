import TestSupport
import Testing

/// `libflashinfer` as C programs see it: installed header, library and pkg-config file.
@Suite(.enabled(if: Tool.isInstalled, "the library is not installed: run tools/test"))
struct CInterfaceTests {
  private let files = Files()

  @Test(arguments: [[], ["-fsanitize=address"]])
  func `A C program gets what the header promises, and errors for everything else`(
    options: [String]
  ) throws {
    let program = files.folder.path + "/interface"
    let compiled = try Tool.compile(
      Tool.programs + "/interface.c", to: program, options: options)
    #expect(compiled.status == 0, "\(compiled.errors)")
    let result = try Tool.run([program, files.two, files.foreign, files.truncated])
    #expect(result.status == 0 && result.output == "ok\n", "\(result.errors)")
  }

  @Test func `The header is C++ too`() throws {
    let result = try Tool.run([
      "clang++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++",
      Tool.prefix + "/include/flashinfer.h",
    ])
    #expect(result.status == 0, "\(result.errors)")
  }

  @Test func `Only the interface is visible, and the Swift runtime is inside`() throws {
    let library = Tool.prefix + "/lib/libflashinfer.so.1"
    let needed = try Tool.run(["readelf", "-d", library]).output
    #expect(needed.contains("libflashinfer.so.1") && !needed.contains("libswift"))
    let symbols = try Tool.run(["nm", "-D", "--defined-only", library]).output
    let visible = symbols.split(separator: "\n").filter { $0.contains(" T ") }
    #expect(visible.count == 19)
    #expect(visible.allSatisfy { $0.contains(" T flashinfer_") })
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
