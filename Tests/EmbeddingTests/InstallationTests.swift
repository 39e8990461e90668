import Foundation
import TestSupport
import Testing

/// What `tools/install` leaves, for C programs that are built by hand, by pkg-config or by CMake.
@Suite(.enabled(if: Tool.isInstalled, "the library is not installed: run tools/test"))
struct InstallationTests {
  private let folder = TemporaryFolder()
  private static let version =
    (try? String(contentsOfFile: Tool.root + "/VERSION", encoding: .utf8))?
    .trimmingCharacters(in: .whitespacesAndNewlines) ?? ""

  /// Paths of all files and links below a folder.
  private func files(below path: String) -> Set<String> {
    let walk = FileManager.default.enumerator(atPath: path)
    return Set(
      (walk?.compactMap { $0 as? String } ?? []).filter {
        var isFolder: ObjCBool = false
        let exists = FileManager.default.fileExists(
          atPath: "\(path)/\($0)", isDirectory: &isFolder)
        return !exists || !isFolder.boolValue
      })
  }

  /// A copy of what is installed, to take apart.
  private func copy() throws -> String {
    let prefix = folder.path + "/prefix"
    let copied = try Tool.run(["cp", "-a", Tool.prefix, prefix])
    #expect(copied.status == 0, "\(copied.errors)")
    return prefix
  }

  @Test func `Everything that is installed is noted, removed again, and nothing else`() throws {
    let prefix = try copy()
    let manifest = try String(
      contentsOfFile: prefix + "/share/flashinfer/manifest", encoding: .utf8)
    let noted = Set(manifest.split(separator: "\n").map(String.init).filter { !$0.hasSuffix("/") })
    #expect(noted == files(below: prefix))
    #expect(noted.contains("share/doc/flashinfer/format.md"))
    // Somebody else's, also where we made the folder.
    let others = ["lib/libother.so.1", "share/doc/flashinfer/mine.txt"]
    for path in others {
      _ = FileManager.default.createFile(atPath: "\(prefix)/\(path)", contents: nil)
    }
    let removed = try Tool.run([Tool.root + "/tools/uninstall", "--prefix", prefix])
    #expect(removed.status == 0, "\(removed.errors)")
    #expect(files(below: prefix) == Set(others))
    #expect(!FileManager.default.fileExists(atPath: prefix + "/include"))
    let again = try Tool.run([Tool.root + "/tools/uninstall", "--prefix", prefix])
    #expect(again.status == 66 && again.errors.contains("nothing was installed"))
  }

  @Test(arguments: ["install", "uninstall", "build-python"])
  func `Scripts explain themselves`(script: String) throws {
    let help = try Tool.run(["\(Tool.root)/tools/\(script)", "--help"])
    #expect(help.status == 0 && help.output.contains("usage: tools/\(script)"))
    let wrong = try Tool.run(["\(Tool.root)/tools/\(script)", "--nonsense"])
    #expect(wrong.status == 64 && wrong.errors.contains("usage: tools/\(script)"))
  }

  @Test func `The library has its version in its name, and links lead to it`() throws {
    let name = Tool.soname + "." + Self.version.drop { $0 != "." }.dropFirst()
    let files = FileManager.default
    #expect(
      try files.destinationOfSymbolicLink(atPath: Tool.prefix + "/lib/" + Tool.soname) == name)
    #expect(
      try files.destinationOfSymbolicLink(atPath: Tool.prefix + "/lib/libflashinfer.so")
        == Tool.soname)
    #expect(!FileManager.default.fileExists(atPath: Tool.prefix + "/bin"))
  }

  @Test func `pkg-config says the version and what is behind the library, and forces no path`()
    throws
  {
    #expect(
      try Tool.run(["pkg-config", "--modversion", "flashinfer"]).output == Self.version + "\n")
    let flags = try Tool.run(["pkg-config", "--libs", "flashinfer"]).output
    #expect(flags.contains("-lflashinfer") && !flags.contains("rpath") && !flags.contains("uring"))
    let whole = try Tool.run(["pkg-config", "--static", "--libs", "flashinfer"]).output
    for library in ["-luring", "-lpcre2-8", "-lutf8proc", "-lxxhash", "-lstdc++"] {
      #expect(whole.contains(library), "\(whole)")
    }
  }

  /// Runs cmake with no signal blocked: it waits for SIGCHLD, which the threads of tests block.
  private func cmake(_ arguments: [String]) throws -> Tool.Result {
    let unblocked = """
      import os, signal, sys
      signal.pthread_sigmask(signal.SIG_SETMASK, [])
      os.execvp("cmake", ["cmake"] + sys.argv[1:])
      """
    return try Tool.run(["python3", "-c", unblocked] + arguments)
  }

  @Test(.enabled(if: Tool.hasCMake, "there is no cmake: run tools/test"))
  func `CMake finds the library where it was moved to, and refuses other versions`() throws {
    let prefix = try copy()
    folder.write(
      "main.c",
      Array(
        """
        #include <flashinfer.h>
        #include <stdio.h>
        int main(void) { puts(flashinfer_version()); return 0; }

        """.utf8))
    let minor = Self.version.split(separator: ".").dropLast().joined(separator: ".")
    for (wanted, isFound) in [("", true), (minor, true), ("9.0", false)] {
      folder.write(
        "CMakeLists.txt",
        Array(
          """
          cmake_minimum_required(VERSION 3.16)
          project(sample C)
          find_package(flashinfer \(wanted) REQUIRED)
          add_executable(sample main.c)
          target_link_libraries(sample flashinfer::flashinfer)

          """.utf8))
      let build = folder.path + "/build" + wanted
      let configured = try cmake([
        "-S", folder.path, "-B", build, "-DCMAKE_PREFIX_PATH=" + prefix,
      ])
      #expect((configured.status == 0) == isFound, "\(wanted): \(configured.errors)")
      guard isFound else { continue }
      let built = try cmake(["--build", build])
      #expect(built.status == 0, "\(built.errors)")
      #expect(try Tool.run([build + "/sample"]).output == Self.version + "\n")
    }
  }
}
