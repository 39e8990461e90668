public import BlockIO
import Glibc
public import Kernels
public import TensorBasics

/// Where keys and values may go and come from.
public struct KeyValueOptions: Sendable {
  /// Bound on the memory of keys and values; nil = as the plan finds best.
  public var budgetByteCount: Int?
  /// How complete pages are stored.
  public var type = KeyValueType.f16
  /// Folder of the file that holds what memory does not, which has no name there; nil =
  /// ``defaultFolder``.
  public var folder: String?
  /// Files of a sequence that is opened without others.
  public var files = KeyValueStore.Files()
  /// Which blocks the tokens after a prompt attend over.
  public var policy = KeyValuePolicyChoice.full
  /// How files are read.
  public var backend = StorageBackend.auto
  /// Raised, it ends every wait for a drive with ``KeyValueError/interrupted``.
  public var cancellation = CancellationFlag()
  /// Where tests take the kernel's place.
  package var hooks = DeviceHooks()

  public init() {}

  /// `TMPDIR` where it is set and takes files, else /var/tmp or /tmp.
  public static var defaultFolder: String {
    let folders = [chosenFolder, "/var/tmp", "/tmp"].compactMap(\.self)
    return folders.first { folder in
      // The slash asks for a folder: files may be written to and run as well.
      "\(folder)/".withSystemPath { access($0, W_OK | X_OK) == 0 }
    } ?? folders[0]
  }

  /// Says that `TMPDIR` takes no files, where it is set and does not.
  public static var defaultFolderNote: String? {
    guard let chosen = chosenFolder, chosen != defaultFolder else { return nil }
    return "TMPDIR is '\(chosen)', where no file can be made: using \(defaultFolder)"
  }

  private static var chosenFolder: String? {
    getenv("TMPDIR").map { String(systemPath: $0) }.flatMap { $0.isEmpty ? nil : $0 }
  }
}

extension KeyValueStore {
  /// Files that a sequence's pages come from, and that get them.
  public struct Files: Sendable {
    /// The first page groups, from files that others wrote.
    public var prefix = Prefix()
    /// A file that gets every complete page group and stays; nil = none.
    public var own: OwnFile?

    public init(prefix: Prefix = Prefix(), own: OwnFile? = nil) {
      self.prefix = prefix
      self.own = own
    }

    public var isEmpty: Bool { prefix.parts.isEmpty && own == nil }
  }

  /// A file that a sequence writes for others.
  public struct OwnFile: Sendable {
    public var path: String
    /// Where page group 0 begins, a multiple of 4096; what lies before is the caller's.
    public var dataOffset: Int

    public init(path: String, dataOffset: Int = 4096) {
      self.path = path
      self.dataOffset = dataOffset
    }
  }

  /// Page groups from the start of the context that lie in read-only files.
  public struct Prefix: Sendable {
    public var parts: [Part] = []

    public init(parts: [Part] = []) { self.parts = parts }

    public var pageGroupCount: Int { parts.reduce(0) { $0 + $1.pageGroupCount } }

    /// Page groups of one file, which follow those of the parts before.
    public struct Part: Sendable {
      public var path: String
      /// Where the file's page group 0 begins, a multiple of 4096.
      public var dataOffset: Int
      /// The first page group taken, as the file counts them.
      public var firstPageGroup: Int
      public var pageGroupCount: Int
      /// XXH3-64 of each page [pageGroupCount, layerCount].
      public var checksums: [UInt64]

      public init(
        path: String, dataOffset: Int, firstPageGroup: Int, pageGroupCount: Int, checksums: [UInt64]
      ) {
        self.path = path
        self.dataOffset = dataOffset
        self.firstPageGroup = firstPageGroup
        self.pageGroupCount = pageGroupCount
        self.checksums = checksums
      }
    }
  }

  /// What a store has moved.
  public struct Statistics: Counters, Sendable {
    public var bytesRead = 0
    public var bytesWritten = 0
    /// Time spent waiting for reads or writes.
    public var stallNanoseconds = 0
    /// Complete blocks that tokens after a prompt attended over, and that their policy left out.
    public var attendedBlockCount = 0
    public var skippedBlockCount = 0
    /// Complete pages that queries still see, and how many of them are in memory.
    public var pageCount = 0
    public var residentPageCount = 0

    public static let counters: [any WritableKeyPath<Self, Int> & Sendable] = [
      \.bytesRead, \.bytesWritten, \.stallNanoseconds, \.attendedBlockCount, \.skippedBlockCount,
    ]

    /// Blocks attended over, of those a token sees.
    public var attendedBlockFraction: Double {
      let count = attendedBlockCount + skippedBlockCount
      return count == 0 ? 1 : Double(attendedBlockCount) / Double(count)
    }

    public var residentFraction: Double {
      pageCount == 0 ? 1 : Double(residentPageCount) / Double(pageCount)
    }

    public init() {}
  }
}
