import Glibc
import KVCache
import TestSupport
import Testing

/// Where temporary files go when `TMPDIR` cannot take them; the variable is the process's.
@Suite struct TemporaryFolderChoiceTests {
  /// What the folder that `TMPDIR` names is instead of a folder.
  enum Fault: String, CaseIterable, Codable { case missing, belowMissing, file, link }

  @Test(arguments: Fault.allCases)
  func `A TMPDIR that takes no files costs a warning and another folder`(fault: Fault) async {
    await #expect(processExitsWith: .success) { [fault] in
      let folder = TemporaryFolder()
      defer { extendLifetime(folder) }
      let path = folder.path + "/chosen"
      switch fault {
      case .missing: break
      case .belowMissing: mkdir(path, 0o700)
      case .file:
        folder.write("chosen", [1])
        chmod(path, 0o777)
      case .link: symlink("nowhere", path)
      }
      setenv("TMPDIR", fault == .belowMissing ? path + "/a/b" : path, 1)
      #expect(["/var/tmp", "/tmp"].contains(KeyValueOptions.defaultFolder))
      let note = try #require(KeyValueOptions.defaultFolderNote)
      #expect(note.contains(path) && note.contains(KeyValueOptions.defaultFolder))
    }
  }

  @Test func `A TMPDIR that takes files is used without a word`() async {
    await #expect(processExitsWith: .success) {
      let folder = TemporaryFolder()
      defer { extendLifetime(folder) }
      for value in [folder.path, folder.path + "/"] {
        setenv("TMPDIR", value, 1)
        #expect(KeyValueOptions.defaultFolder == value && KeyValueOptions.defaultFolderNote == nil)
      }
      unsetenv("TMPDIR")
      #expect(KeyValueOptions.defaultFolderNote == nil)
    }
  }
}
