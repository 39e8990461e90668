import BlockIO
import Glibc
import TensorBasics

/// Keys and values of a prompt's first tokens, found in a store.
public struct KeyValuePrefix: Sendable {
  /// Where they lie, in the order of positions: each source goes on where the one before it ends.
  public let sources: [Source]

  /// What continues after the sources in the middle of a page group; nil if nothing does.
  public internal(set) var tail: Tail?

  /// The states of all layers after all of the tokens, where layers have some; nil of others, and of no tokens.
  public internal(set) var states: States?

  /// The entry that has the logits after all of the tokens; nil if none does.
  var logitsEntry: KeyValueEntry?

  /// Whether nothing is to be computed before the next token is drawn.
  public var hasLogits: Bool { logitsEntry != nil }

  /// Reads the logits after its last token; false if there are none, or not as many as there is room for, or others than were
  /// written.
  package func readLogits(into values: UnsafeMutableBufferPointer<Float>) -> Bool {
    logitsEntry?.readLogits(into: values) ?? false
  }

  /// Some positions of a page group of one entry.
  public struct Tail: Sendable {
    public let positionCount: Int
    let entry: KeyValueEntry
    /// The page group, as the entry counts.
    let pageGroup: Int

    /// Reads a layer's page of the page group; false if it cannot be read or is not what was written.
    package func read(layer: Int, into page: UnsafeMutableRawBufferPointer) -> Bool {
      entry.readPage(pageGroup: pageGroup, layer: layer, into: page)
    }
  }

  /// States in one entry.
  public struct States: Sendable {
    let entry: KeyValueEntry
    let states: KeyValueEntryHeader.States

    /// Reads them; false if they cannot be read or are not what was written.
    package func read(into bytes: UnsafeMutableRawBufferPointer) -> Bool {
      entry.read(states, into: bytes)
    }
  }

  /// Page groups of one entry.
  public struct Source: Sendable {
    /// Where the first of them is among the page groups of the sequence.
    public let firstPageGroup: Int
    public let pageGroupCount: Int
    /// XXH3-64 of each page: [pageGroupCount, layerCount].
    public let pageChecksums: [UInt64]
    /// Stays open as long as the source lives.
    let entry: KeyValueEntry

    /// The file, which can be opened as long as the source lives.
    public var path: String { entry.path }
    /// Where the first page group lies in the file.
    public var dataOffset: Int { entry.header.dataOffset }

    init(_ entry: KeyValueEntry, pageGroupCount: Int) {
      self.entry = entry
      self.pageGroupCount = pageGroupCount
      firstPageGroup = entry.header.firstPageGroup
      pageChecksums = Array(
        entry.pageChecksums.prefix(pageGroupCount * entry.header.origin.layerCount))
    }
  }

  /// No page groups at all.
  public static let none = KeyValuePrefix(sources: [])

  /// Its first `count` page groups, or all of it where it has fewer.
  public func beginning(pageGroupCount count: Int) -> KeyValuePrefix {
    guard count < pageGroupCount else { return self }
    return KeyValuePrefix(
      sources: sources.filter { $0.firstPageGroup < count }.map {
        Source($0.entry, pageGroupCount: min($0.pageGroupCount, count - $0.firstPageGroup))
      })
  }

  /// The entries that it lies in.
  var ids: [UInt64] { sources.map { $0.entry.header.id } }

  /// Complete page groups, those of the sources.
  public var pageGroupCount: Int { sources.last.map { $0.firstPageGroup + $0.pageGroupCount } ?? 0 }
  public var tokenCount: Int {
    pageGroupCount * KeyValueOrigin.pageGroupPositionCount + (tail?.positionCount ?? 0)
  }
}

extension KeyValueDirectory {
  /// Finds the longest prefix of `tokens` that the entries hold, and marks these entries as used.
  ///
  /// It has at least one page group, and leaves at least one token to compute, unless there are logits after the last. Where
  /// layers have states, it ends where an entry has these.
  ///
  /// Entries that are damaged or have lost the one they continue are deleted. Reads the header of each entry,
  /// and more only of those that go on where the prompt matches.
  ///
  /// - Parameters:
  ///   - models: all that stand for the weights of `origin`'s model, itself among them; nil = itself alone.
  ///   - dividingPageGroups: whether complete pages can be used in part; those that were being filled always can.
  ///   - usingLogits: whether logits after the last token are of use.
  public func prefix(
    of tokens: [Int32], origin: KeyValueOrigin, models: [KeyValueOrigin.Model]? = nil,
    dividingPageGroups: Bool = true, usingLogits: Bool = false
  ) -> KeyValuePrefix {
    let usable = usableHeaders(Set((models ?? [origin.model]).map(origin.of)))
    deleteOrphans(usable)
    if usingLogits, usable.contains(where: { $0.logits?.position == tokens.count }) {
      let whole = prefix(of: tokens[...], in: usable, dividingPageGroups: dividingPageGroups)
      if whole.hasLogits, whole.tokenCount == tokens.count { return whole }
    }
    var prefix = prefix(
      of: tokens.dropLast(), in: usable, dividingPageGroups: dividingPageGroups)
    prefix.logitsEntry = nil
    return prefix
  }

  /// The longest beginning of `tokens` in the entries of these headers, all of it included.
  private func prefix(
    of tokens: ArraySlice<Int32>, in usable: [KeyValueEntryHeader], dividingPageGroups: Bool
  ) -> KeyValuePrefix {
    let length = KeyValueOrigin.pageGroupPositionCount
    let most = tokens.count / length
    let openings = (0..<most).map {
      Self.checksum(tokens[($0 * length)..<(($0 + 1) * length)])
    }
    var matches: [UInt64: (entry: KeyValueEntry, end: Int, depth: Int)] = [:]
    var best: (entry: KeyValueEntry, end: Int)?
    var (bestTail, bestStates, hasLogits) = (0, KeyValuePrefix.States?.none, false)
    // An entry begins after its parent's first page group, so parents come first.
    for header in usable.sorted(by: { $0.firstPageGroup < $1.firstPageGroup }) {
      let start = header.firstPageGroup
      guard start < most, header.openingChecksum == openings[start] else { continue }
      var depth = 1
      if start > 0 {
        guard let parent = matches[header.parent], parent.end >= start,
          parent.entry.header.firstPageGroup < start, parent.depth < Self.longestChain
        else { continue }
        depth = parent.depth + 1
      }
      guard let entry = open(header) else { continue }
      let end = min(most, start + entry.matchingPageGroupCount(tokens))
      guard end > start else { continue }
      matches[header.id] = (entry, end, depth)
      let divides = dividingPageGroups || end - start == entry.header.wholePageGroupCount
      var whole = end
      var tail = divides ? entry.matchingTokenCount(tokens, pageGroup: end - start) : 0
      var states: KeyValuePrefix.States?
      if header.origin.hasStates {
        guard
          let last = header.lastStates(
            upTo: end * length + tail, dividingPageGroups: dividingPageGroups)
        else { continue }
        (whole, tail) = last.position.quotientAndRemainder(dividingBy: length)
        states = KeyValuePrefix.States(entry: entry, states: last)
      }
      let known = header.logits?.position == tokens.count && whole * length + tail == tokens.count
      if (whole, tail, known ? 1 : 0) > (best?.end ?? 0, bestTail, hasLogits ? 1 : 0) {
        best = (entry, whole)
        (bestTail, bestStates, hasLogits) = (tail, states, known)
      }
    }
    let logitsEntry = hasLogits ? best?.entry : nil
    let tail = best.flatMap { entry, end in
      bestTail == 0
        ? nil
        : KeyValuePrefix.Tail(
          positionCount: bestTail, entry: entry, pageGroup: end - entry.header.firstPageGroup)
    }
    var sources: [KeyValuePrefix.Source] = []
    while let (entry, end) = best {
      // Of an entry whose first page group is taken in part there is the tail alone.
      if end > entry.header.firstPageGroup {
        sources.append(
          KeyValuePrefix.Source(entry, pageGroupCount: end - entry.header.firstPageGroup))
      }
      best = matches[entry.header.parent].flatMap { parent in
        entry.header.firstPageGroup > 0 ? (parent.entry, entry.header.firstPageGroup) : nil
      }
    }
    Self.noteUse(of: sources.map { $0.entry.descriptor.rawValue })
    return KeyValuePrefix(
      sources: sources.reversed(), tail: tail, states: bestStates, logitsEntry: logitsEntry)
  }

  /// Entries of a chain are open all at once, and a process may have 1024 files by default.
  private static let longestChain = 256

  /// Deletes an entry that turned out to be damaged while it was read, and returns its path.
  public func remove(_ source: KeyValuePrefix.Source) -> String { remove(source.entry) }

  /// As ``remove(_:)-(KeyValuePrefix.Source)``, where its states were.
  public func remove(_ states: KeyValuePrefix.States) -> String { remove(states.entry) }

  private func remove(_ entry: KeyValueEntry) -> String {
    let path = path(of: entry.header.id)
    unlink(path)
    return path
  }

  static func checksum(_ tokens: ArraySlice<Int32>) -> UInt64 {
    KeyValueEntry.tables(tokens: tokens, pageChecksums: []).withUnsafeBytes(Checksum.of)
  }

  /// Headers of the entries of `origins`; says in a line how many others there are, once for each kind.
  func usableHeaders(_ origins: Set<KeyValueOrigin>) -> [KeyValueEntryHeader] {
    let isKnown = origins.contains {
      if case .content = $0.model { true } else { false }
    }
    let otherModel =
      isKnown
      ? "another model"
      : "another model, or of this one, whose checksums are not known: they are read at the end of some runs, or by "
        + "flashinfer-inspect MODEL --verify, and then used;"
    var others: [String: Int] = [:]
    var headers: [KeyValueEntryHeader] = []
    for name in files().map(\.id) {
      do throws(KeyValueEntry.Failure) {
        let header = try EntryFile(path: path(of: name)).header()
        guard header.id == name else { throw .unusable(.damaged) }
        if origins.contains(header.origin) {
          headers.append(header)
        } else if !origins.contains(where: {
          ($0.model, $0.graph) == (header.origin.model, header.origin.graph)
        }) {
          others[otherModel, default: 0] += 1
        } else {
          others["another type or shape of keys and values", default: 0] += 1
        }
      } catch {
        switch error {
        case .unreadable: break
        case .unusable(.otherVersion): others["another version", default: 0] += 1
        case .unusable(.damaged): deleteDamaged(name)
        }
      }
    }
    for (what, count) in others.sorted(by: { $0.key < $1.key })
    where notedKinds.insert(what).inserted {
      note("\(path): \(count) \(count == 1 ? "entry" : "entries") of \(what) ignored")
    }
    return headers
  }

  /// Entries whose parent is gone can never be reached again, unless it is computed again.
  private func deleteOrphans(_ headers: [KeyValueEntryHeader]) {
    let known = Set(headers.map(\.id))
    for header in headers where header.firstPageGroup > 0 && !known.contains(header.parent) {
      // It may have been written since the folder was read.
      if access(path(of: header.parent), F_OK) != 0 { unlink(path(of: header.id)) }
    }
  }

  /// Opens an entry whose header was read before; nil if it is gone or no longer that one.
  func open(_ header: KeyValueEntryHeader) -> KeyValueEntry? {
    do throws(KeyValueEntry.Failure) {
      let entry = try KeyValueEntry(path: path(of: header.id))
      let same =
        entry.header.id == header.id && entry.header.origin == header.origin
        && entry.header.firstPageGroup == header.firstPageGroup
        && entry.header.parent == header.parent
      return same ? entry : nil
    } catch {
      if case .unusable(.damaged) = error { deleteDamaged(header.id) }
      return nil
    }
  }

  private func deleteDamaged(_ id: UInt64) {
    note("\(path(of: id)): damaged; deleted, and computed again when it is needed")
    unlink(path(of: id))
  }
}
