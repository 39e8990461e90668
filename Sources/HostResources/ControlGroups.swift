/// The control groups that this process is in, as folders that can be read from where it runs.
///
/// `/proc/self/cgroup` says where the process is in each hierarchy, `/proc/self/mountinfo` which part of that
/// hierarchy is mounted and where. In a container the mount often begins at the container's own group
/// (`/docker/ID`), or both paths are relative to the root of a control-group namespace.
struct ControlGroups {
  /// Version 1 (one hierarchy for each set of controllers) or 2 (one for all).
  enum Version { case one, two }

  private struct Mount {
    var version: Version
    var controllers: [Substring]
    /// The group that is seen at `point`.
    var root: [Substring]
    var point: String
  }

  private struct Membership {
    var controllers: [Substring]
    var path: [Substring]
    var version: Version { controllers.isEmpty ? .two : .one }
  }

  private let files: SystemFiles
  private let mounts: [Mount]
  private let memberships: [Membership]

  init(_ files: SystemFiles) {
    self.files = files
    mounts = files.lines("/proc/self/mountinfo").compactMap(Self.mount)
    memberships = files.lines("/proc/self/cgroup").compactMap(Self.membership)
  }

  /// The folders whose limits hold for this process: its own group's, then those of all groups around it
  /// that can be seen. Empty where the hierarchy is not mounted.
  ///
  /// - Parameter controller: of version 1; version 2 has one folder for all.
  func folders(_ controller: Substring, _ version: Version) -> [String] {
    let path = memberships.first {
      $0.version == version && (version == .two || $0.controllers.contains(controller))
    }?.path
    let candidates = mounts.filter {
      $0.version == version && (version == .two || $0.controllers.contains(controller))
    }
    // First the view that shows most of the groups around us.
    let views = candidates.compactMap { mount in
      Self.below(mount.root, path ?? mount.root).map { rest in
        (rootDepth: mount.root.count, folders: Self.folders(of: mount, rest))
      }
    }.sorted { $0.rootDepth < $1.rootDepth }.map(\.folders)
    // A mount can be hidden by a later one. A group that is gone leaves those around it.
    if let view = views.first(where: { files.exists($0[0]) }) ?? views.first { return view }
    // No mount shows our own group, but what a container has mounted is around it.
    return candidates.first.map { [$0.point] } ?? []
  }

  /// The folder of the group at `rest` below a mount, then those around it up to the mount's own.
  private static func folders(of mount: Mount, _ rest: [Substring]) -> [String] {
    (0...rest.count).reversed().map { count in
      ([mount.point] + rest.prefix(count).map(String.init)).joined(separator: "/")
    }
  }

  /// What follows `root` in `path`; nil if `path` is not at or below it.
  private static func below(_ root: [Substring], _ path: [Substring]) -> [Substring]? {
    path.starts(with: root) && !path.dropFirst(root.count).contains("..")
      ? Array(path.dropFirst(root.count)) : nil
  }

  /// `4:memory:/docker/ID`, `0::/user.slice`.
  private static func membership(_ line: Substring) -> Membership? {
    let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
    guard parts.count == 3, parts[2].hasPrefix("/") else { return nil }
    guard parts[0] == "0" || !parts[1].isEmpty else { return nil }
    return Membership(
      controllers: parts[1].split(separator: ","), path: parts[2].split(separator: "/"))
  }

  /// `35 31 0:32 ROOT POINT rw,relatime [tags] - cgroup SOURCE rw,memory`.
  private static func mount(_ line: Substring) -> Mount? {
    let words = line.split(separator: " ")
    guard let dash = words.firstIndex(of: "-"), dash >= 6, words.count > dash + 1 else {
      return nil
    }
    let version: Version
    switch words[dash + 1] {
    case "cgroup": version = .one
    case "cgroup2": version = .two
    default: return nil
    }
    let point = unescaped(words[4])
    return Mount(
      version: version,
      controllers: words.count > dash + 3 ? words[dash + 3].split(separator: ",") : [],
      root: Substring(unescaped(words[3])).split(separator: "/"),
      point: point == "/" ? "" : point)
  }

  /// Text in which `\040` stands for a space, and other octal numbers for other bytes.
  private static func unescaped(_ text: Substring) -> String {
    let bytes = Array(text.utf8)
    var result: [UInt8] = []
    var index = 0
    while index < bytes.count {
      if bytes[index] == UInt8(ascii: "\\"), index + 3 < bytes.count,
        let number = UInt8(String(decoding: bytes[index + 1...index + 3], as: UTF8.self), radix: 8)
      {
        result.append(number)
        index += 4
      } else {
        result.append(bytes[index])
        index += 1
      }
    }
    return String(decoding: result, as: UTF8.self)
  }
}
