import Foundation
import Server
import TestSupport
import Testing

/// The server over TLS, to the `ssl` of Python, with certificates that the tests make themselves.
@Suite(
  .enabled(if: TestCertificate.canBeMade, "there is no openssl or no python3 with ssl"))
struct CertificateTests {
  @Test func `Files that cannot be used are refused with what is wrong`() throws {
    let (one, two) = (try TestCertificate(), try TestCertificate())
    let text = TemporaryFile(Array("no PEM at all\n".utf8))
    let locked = try TestCertificate(passphrase: "secret")
    #expect(throws: Never.self) { try one.open() }
    chmod(text.path, 0o600)
    for (certificate, key, message) in [
      (one.path, two.keyPath, "is not that of"), (one.path, one.path, "chmod 600"),
      ("/nothing/there", one.keyPath, "No such file"), (one.path, "/nothing/there", "No such file"),
      (one.folder.path, one.keyPath, "regular file"), (text.path, one.keyPath, "no certificate"),
      (one.path, text.path, "no private key"), (one.path, locked.keyPath, "passphrase"),
      (one.keyPath, one.keyPath, "no certificate"),
    ] {
      let error = #expect(throws: FileError.self) {
        try ServerCertificate(certificatePath: certificate, keyPath: key)
      }
      #expect(error?.description.contains(message) == true, "\(error?.description ?? "")")
    }
    for mode in [0o640, 0o604, 0o660] as [mode_t] {
      chmod(one.keyPath, mode)
      let error = #expect(throws: FileError.self) { try one.open() }
      #expect(error?.description.contains("chmod 600 \(one.keyPath)") == true)
    }
    chmod(one.keyPath, 0o400)
    #expect(try one.open().warning == nil)
  }

  @Test(.enabled(if: ServerProgram.isBuilt, "flashinfer-serve is not built beside the tests"))
  func `Python speaks TLS with it, also with a certificate that came by SIGHUP`() throws {
    let (first, second) = (try TestCertificate(), try TestCertificate())
    let files = try TestCertificate()
    try files.become(first)
    let program = try ServerProgram([
      "--context", "65536", "--no-kv-store", "--certificate", files.path, "--key", files.keyPath,
    ])
    try expectGood(program, first, second)
    // What does not belong together changes nothing.
    try files.become(second, withKey: false)
    kill(program.process.processIdentifier, SIGHUP)
    try expectGood(program, first, second)
    try files.become(second)
    kill(program.process.processIdentifier, SIGHUP)
    // It has no answer to the signal; until it has read the files the first one is shown.
    while try Self.talk(program, second, first).status != 0 {}
    try expectGood(program, second, first)
    program.process.terminate()
    program.process.waitUntilExit()
    #expect(program.process.terminationStatus == 0)
  }

  private func expectGood(
    _ program: ServerProgram, _ own: TestCertificate, _ other: TestCertificate
  ) throws {
    let (status, text) = try Self.talk(program, own, other)
    #expect(status == 0 && text == "as it should be\n", "\(text)")
  }

  private static func talk(
    _ program: ServerProgram, _ own: TestCertificate, _ other: TestCertificate
  ) throws -> (status: Int32, text: String) {
    let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("Clients/tls_client.py").path
    return try TestCertificate.run(
      "python3", [script, "\(program.port)", own.path, other.path])
  }

  @Test(.enabled(if: ServerProgram.isBuilt, "flashinfer-serve is not built beside the tests"))
  func `Who asks without TLS is not answered, which is said once`() async throws {
    let certificate = try TestCertificate()
    let program = try ServerProgram([
      "--no-kv-store", "--certificate", certificate.path, "--key", certificate.keyPath,
    ])
    for _ in 0..<3 {
      let reply = try? await HTTPClient.get("/health", program.port)
      #expect(reply?.status ?? 0 == 0)
    }
    program.process.terminate()
    program.process.waitUntilExit()
    #expect(program.said.components(separatedBy: "without TLS").count == 2, "\(program.said)")
  }

  @Test(.enabled(if: ServerProgram.isBuilt, "flashinfer-serve is not built beside the tests"))
  func `What goes with a certificate is checked at the start`() throws {
    let (one, two) = (try TestCertificate(), try TestCertificate())
    let model = TemporaryFile(ServerRig.modelBytes)
    for (arguments, status, message) in [
      (["--certificate", one.path], 64, "go together"),
      (["--key", one.keyPath], 64, "go together"),
      (
        ["--certificate", one.path, "--key", one.keyPath, "--unix-socket", "a"], 64, "--unix-socket"
      ),
      (["--certificate", one.path, "--key", two.keyPath], 1, "is not that of"),
    ] as [([String], Int32, String)] {
      let result = try ServerProgram.run([model.path, "--no-kv-store"] + arguments)
      #expect(result.status == status && result.text.contains(message), "\(result)")
    }
  }
}

/// A certificate of `localhost` and 127.0.0.1 that signs itself, and its key, in files of their own.
struct TestCertificate {
  let folder = TemporaryFolder()
  var path: String { folder.path + "/certificate.pem" }
  var keyPath: String { folder.path + "/key.pem" }

  static let canBeMade =
    (try? run("openssl", ["version"]).status) == 0
    && (try? run("python3", ["-c", "import ssl"]).status) == 0

  init(passphrase: String? = nil) throws {
    let (status, text) = try Self.run(
      "openssl",
      [
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout", keyPath, "-out", path,
      ] + (passphrase.map { ["-passout", "pass:\($0)"] } ?? ["-nodes"]))
    try #require(status == 0, "\(text)")
    chmod(keyPath, 0o600)
  }

  func open() throws -> ServerCertificate {
    try ServerCertificate(certificatePath: path, keyPath: keyPath)
  }

  /// Has its files say what another's do.
  func become(_ other: TestCertificate, withKey: Bool = true) throws {
    for (from, to) in [(other.path, path)] + (withKey ? [(other.keyPath, keyPath)] : []) {
      let data = try Data(contentsOf: URL(fileURLWithPath: from))
      let handle = try #require(FileHandle(forWritingAtPath: to))
      try handle.truncate(atOffset: 0)
      try handle.write(contentsOf: data)
      try handle.close()
    }
  }

  /// Runs a program that is found by its name, with what it says on either output.
  static func run(_ name: String, _ arguments: [String]) throws -> (status: Int32, text: String) {
    let (process, output) = (Process(), Pipe())
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [name] + arguments
    (process.standardOutput, process.standardError) = (output, output)
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let text = String(
      decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return (process.terminationStatus, text)
  }
}
