import BlockIO
import Glibc
import TensorBasics
import TestSupport
import Testing

@Suite struct OutputFileTests {
  /// Runs `body` on a machine whose file systems have no files without a name.
  ///
  /// To be used in a process of its own.
  private static func withoutUnnamedFiles(_ isSo: Bool = true, _ body: () throws -> Void) rethrows {
    if isSo { FaultPlan.begin(.openUnnamed, 0..<1000, errno: EOPNOTSUPP) }
    defer { _ = FaultPlan.end() }
    try body()
  }

  @Test(arguments: [false, true])
  func `A file has its name only when it is complete`(refusesUnnamed: Bool) async {
    await #expect(processExitsWith: .success) { [refusesUnnamed] in
      try Self.withoutUnnamedFiles(refusesUnnamed) {
        try Self.checkNaming(partCount: refusesUnnamed ? 1 : 0)
      }
    }
  }

  private static func checkNaming(partCount: Int) throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    for previous in [nil, [1, 2, 3] as [UInt8]] {
      let path = folder.path + "/model"
      if let previous { folder.write("model", previous) } else { unlink(path) }
      do {
        let file = try OutputFile(path: path, reserving: 8, inputs: [])
        try file.write([UInt8](repeating: 7, count: 8), at: 0)
        #expect(folder.read("model") == previous ?? [])
        #expect(folder.entries.count == (previous == nil ? 0 : 1) + partCount)
      }
      #expect(folder.entries == (previous == nil ? [] : ["model"]))
      let file = try OutputFile(path: path, reserving: 8, inputs: [])
      try file.write([UInt8](repeating: 7, count: 8), at: 0)
      try file.flushAndDropCache(0..<8)
      try file.commit()
      #expect(folder.read("model") == [UInt8](repeating: 7, count: 8))
      #expect(folder.entries == ["model"])
    }
  }

  @Test func `A drive without room is an error before anything is written`() {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    folder.write("old", [1])
    #expect(throws: BlockIOError.self) { try Self.create("\(folder.path)/old", reserving: 1 << 60) }
    #expect(folder.read("old") == [1])
    #expect(folder.entries == ["old"])
    #expect(throws: BlockIOError.self) { try Self.create("/nowhere/x", reserving: 1) }
  }

  @Test func `What killed processes left is removed, what is locked or called otherwise is not`()
    throws
  {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let path = folder.path + "/model.bin"
    let left = ["model.bin.part-0123456789abcdef", "model.bin.part-fedcba9876543210"]
    for name in left { folder.write(name, [1]) }
    let kept = [
      "model.bin.part-1", "model.bin.part-x", "model.bin.part-", "model.bin.part--5",
      "other.bin.part-0123456789abcdef", "model.bin",
    ]
    for name in kept { folder.write(name, [1]) }
    let holder = open(folder.path + "/" + left[1], O_RDONLY | O_CLOEXEC)
    #expect(flock(holder, LOCK_EX) == 0)
    try Self.create(path, reserving: 1)
    #expect(folder.entries == (kept + [left[1]]).sorted())
    // A child of another test may have it too, until it runs its own program.
    flock(holder, LOCK_UN)
    close(holder)
    try Self.create(path, reserving: 1)
    #expect(folder.entries == kept.sorted())
  }

  @Test func `Two writers of one path do not take each other's files for abandoned`() async {
    await #expect(processExitsWith: .success) {
      try Self.withoutUnnamedFiles {
        let folder = TemporaryFolder()
        defer { extendLifetime(folder) }
        let path = folder.path + "/model"
        let files = try (0..<2).map { _ in
          try OutputFile(path: path, reserving: 1, inputs: [])
        }
        for (index, file) in files.enumerated() {
          try file.write([UInt8(index)], at: 0)
          try file.commit()
          #expect(folder.read("model") == [UInt8(index)])
        }
        #expect(folder.entries == ["model"])
      }
    }
  }

  @Test func `A name as long as names can be is written like others`() async {
    await #expect(processExitsWith: .success) {
      try Self.withoutUnnamedFiles {
        let folder = TemporaryFolder()
        defer { extendLifetime(folder) }
        let name = String(repeating: "ü", count: 127)
        let file = try OutputFile(path: "\(folder.path)/\(name)", reserving: 1, inputs: [])
        try file.write([1], at: 0)
        try file.commit()
        #expect(folder.entries == [name])
      }
    }
  }

  // MARK: What is no place for a file

  @Test func `Whatever is no regular file is refused and stays what it is`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let fifo = folder.path + "/fifo"
    #expect(mkfifo(fifo, 0o600) == 0)
    symlink("fifo", folder.path + "/link-to-fifo")
    symlink("nothing", folder.path + "/dangling")
    symlink("loop", folder.path + "/loop")
    symlink("/dev/null", folder.path + "/link-to-device")
    let socket = try Self.listeningSocket(folder.path + "/socket")
    defer { close(socket) }
    let places: [(path: String, words: String)] = [
      (fifo, "it is a pipe"), (folder.path + "/link-to-fifo", "it is a link to a pipe"),
      (folder.path + "/dangling", "it is a link to nothing"), (folder.path + "/loop", "errno 40"),
      ("/dev/null", "it is a character device"),
      (folder.path + "/link-to-device", "it is a link to a character device"),
      (folder.path + "/socket", "it is a socket"), (folder.path, "it is a directory"),
      (folder.path + "/new/", "Is a directory"),
    ]
    let before = folder.entries
    for (path, words) in places {
      let error = #expect(throws: BlockIOError.self) { try Self.create(path, reserving: 1) }
      #expect(error?.description.contains(words) == true, "\(path): \(error?.description ?? "")")
    }
    #expect(folder.entries == before)
    var status = stat()
    #expect(lstat(fifo, &status) == 0 && status.st_mode & S_IFMT == S_IFIFO)
  }

  @Test func `What became a pipe while the file was being written is not replaced`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let path = folder.path + "/model"
    let file = try OutputFile(path: path, reserving: 1, inputs: [])
    #expect(mkfifo(path, 0o600) == 0)
    #expect(throws: BlockIOError.self) { try file.commit() }
    var status = stat()
    #expect(lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFIFO)
    #expect(folder.entries == ["model"])
  }

  @Test func `A link stays a link, and the file that it names is replaced`() throws {
    let folder = TemporaryFolder()
    let elsewhere = TemporaryFolder()
    defer { extendLifetime((folder, elsewhere)) }
    let target = elsewhere.write("real", [1])
    symlink(target, folder.path + "/second")
    symlink("second", folder.path + "/link")
    let file = try OutputFile(path: folder.path + "/link", reserving: 1, inputs: [])
    try file.write([2], at: 0)
    try file.commit()
    #expect(elsewhere.read("real") == [2])
    #expect(elsewhere.entries == ["real"] && folder.entries == ["link", "second"])
    var status = stat()
    #expect(lstat(folder.path + "/link", &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
  }

  @Test func `An output that is an input is refused, under whatever name`() throws {
    let folder = TemporaryFolder()
    let model = TemporaryFolder()
    defer { extendLifetime((folder, model)) }
    let input = folder.write("model", [1, 2, 3])
    link(input, folder.path + "/hard")
    symlink("model", folder.path + "/soft")
    symlink(".", folder.path + "/here")
    let shard = model.write("shard", [4])
    let paths = [
      input, folder.path + "/hard", folder.path + "/soft", folder.path + "/./model",
      folder.path + "/here/model", folder.path + "/here/hard", shard,
      model.path + "/../"
        + String(shard.dropFirst("/tmp/".count)),
    ]
    let before = folder.entries
    for path in paths {
      let error = #expect(throws: BlockIOError.self, "\(path)") {
        try OutputFile(path: path, reserving: 1, inputs: ["/none", input, model.path])
      }
      #expect(error?.description.contains("which is in use") == true)
    }
    #expect(folder.entries == before && folder.read("model") == [1, 2, 3])
    #expect(model.read("shard") == [4])
    _ = try OutputFile(path: folder.path + "/other", reserving: 1, inputs: [input, model.path])
  }

  @Test func `Two outputs that are one file are refused, also where it is yet to be made`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    folder.write("old", [1])
    link(folder.path + "/old", folder.path + "/hard")
    symlink(".", folder.path + "/here")
    let layout = StripeLayout(
      unitByteCount: 4, memberCount: 2, headerByteCount: 2, byteCount: 11)
    for (first, second) in [
      ("new", "new"), ("new", "./new"), ("new", "here/new"), ("old", "hard"), ("old", "old"),
    ] {
      let paths = [first, second].map { "\(folder.path)/\($0)" }
      #expect(throws: BlockIOError.self, "\(paths)") {
        try StripedOutput(paths: paths, layout: layout, inputs: [])
      }
    }
    #expect(folder.entries == ["hard", "here", "old"])
  }

  // MARK: What a file inherits

  @Test(arguments: [0o640, 0o600, 0o444, 0o755] as [mode_t])
  func `A file that is replaced hands on its mode, and a new one has that of the umask`(
    mode: mode_t
  ) throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    func written(_ name: String) throws -> stat {
      let file = try OutputFile(path: "\(folder.path)/\(name)", reserving: 1, inputs: [])
      try file.write([2], at: 0)
      try file.commit()
      var status = stat()
      #expect(stat("\(folder.path)/\(name)", &status) == 0)
      return status
    }
    folder.write("old", [1])
    #expect(chmod(folder.path + "/old", mode) == 0)
    // Only root may give files away.
    let owner: uid_t = getuid() == 0 ? 1234 : getuid()
    #expect(chown(folder.path + "/old", owner, getgid()) == 0)
    let old = try written("old")
    #expect(old.st_mode & 0o7777 == mode && old.st_uid == owner)
    folder.write("plain", [1])
    var plain = stat()
    #expect(stat(folder.path + "/plain", &plain) == 0)
    #expect(try written("new").st_mode == plain.st_mode)
  }

  // MARK: Room and sets

  @Test(
    .enabled(if: SmallDrive() != nil, "a small drive cannot be mounted here"),
    arguments: [false, true])
  func `A drive that is full keeps what it has and nothing of what did not fit`(
    refusesUnnamed: Bool
  ) async {
    await #expect(processExitsWith: .success) { [refusesUnnamed] in
      try Self.withoutUnnamedFiles(refusesUnnamed) {
        let drive = try #require(SmallDrive())
        defer { extendLifetime(drive) }
        let folder = drive.folder
        folder.write("old", [1])
        for name in ["old", "new"] {
          for reserved in [0, 4096, 1 << 20] {
            let error = #expect(throws: BlockIOError.self) {
              let file = try OutputFile(
                path: "\(folder.path)/\(name)", reserving: reserved, inputs: [])
              try file.write([UInt8](repeating: 2, count: 1 << 20), at: 0)
              try file.commit()
            }
            #expect(error?.errno == ENOSPC)
            #expect(folder.entries == ["old"] && folder.read("old") == [1])
          }
        }
      }
    }
  }

  @Test func `Several files have their names when all are complete, or none has`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let layout = StripeLayout(
      unitByteCount: 4, memberCount: 2, headerByteCount: 2, byteCount: 11)
    let bytes = Array(UInt8(1)...11)
    func write(to names: [String], commits: Bool) throws {
      let file = try StripedOutput(
        paths: names.map { "\(folder.path)/\($0)" }, layout: layout, inputs: [])
      for (start, end) in [(3, 11), (0, 3)] {
        try bytes[start..<end].withUnsafeBytes { try file.write($0, at: start) }
      }
      for member in 0..<2 {
        try [0xEE, UInt8(member)].withUnsafeBytes { try file.writeHeader($0, member: member) }
      }
      try file.flushAndDropCache(0..<11)
      if commits { try file.commit() }
    }
    folder.write("b", [9])
    try write(to: ["a", "b"], commits: false)
    #expect(folder.entries == ["b"] && folder.read("b") == [9])
    #expect(throws: BlockIOError.self) { try write(to: ["a", "none/b"], commits: true) }
    #expect(folder.entries == ["b"] && folder.read("b") == [9])
    try write(to: ["a", "b"], commits: true)
    #expect(folder.entries == ["a", "b"])
    #expect(folder.read("a") == [0xEE, 0, 1, 2, 3, 4, 9, 10, 11])
    #expect(folder.read("b") == [0xEE, 1, 5, 6, 7, 8])
  }

  private static func create(_ path: String, reserving byteCount: Int) throws {
    _ = try OutputFile(path: path, reserving: byteCount, inputs: [])
  }

  private static func listeningSocket(_ path: String) throws -> Int32 {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
    let status = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    #expect(status == 0)
    return descriptor
  }
}

/// A drive of 64 KiB; only root may mount it.
private final class SmallDrive {
  let folder = TemporaryFolder()

  init?() {
    guard geteuid() == 0, mount("tmpfs", folder.path, "tmpfs", 0, "size=64k") == 0 else {
      return nil
    }
  }

  deinit {
    for name in folder.entries { unlink("\(folder.path)/\(name)") }
    umount(folder.path)
  }
}
