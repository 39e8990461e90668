public import BlockIO
import HostResources
import ModelFormat
import TensorBasics

/// Profiles kept from one run to the next: one small JSON file per drive and back end, and one per
/// number of threads.
///
/// A file that is missing, damaged, of another version or of another drive or processor is as if it
/// were not there.
public struct CalibrationCache: Sendable {
  /// The folder; nil if there is no place for one, and nothing is kept.
  public let folder: String?

  /// Counts changes of the files' meaning.
  private static let version = 1
  /// No profile is longer.
  private static let maximumByteCount = 64 << 10

  public init(folder: String?) { self.folder = folder }

  /// `$XDG_CACHE_HOME/flashinfer/calibration`, by default under `~/.cache`.
  public static let standard = CalibrationCache(folder: CacheFolder.standard("calibration"))

  // MARK: Drives

  /// The profile of the drive that the file at `path` lies on.
  public func driveProfile(forFileAt path: String, backend: StorageBackend) -> DriveProfile? {
    guard let drive = DriveIdentity(ofFileAt: path),
      let json = read(Self.driveName(drive, backend.rawValue)),
      let profile = Self.driveProfile(json), profile.drive == drive,
      profile.backend == backend.rawValue, profile.isPlausible
    else { return nil }
    return profile
  }

  /// Keeps `profile` in place of an older one.
  ///
  /// - Throws: `BlockIOError` if the folder cannot be made or written to.
  public func store(_ profile: DriveProfile) throws(BlockIOError) {
    let drive = profile.drive
    try write(Self.driveName(drive, profile.backend)) { json in
      json.number("major", drive.major)
      json.number("minor", drive.minor)
      json.text("fileSystem", drive.fileSystem)
      json.text("model", drive.model)
      json.number("sectorCount", drive.sectorCount)
      json.text("backend", profile.backend)
      json.number("blockBytes", profile.blockByteCount)
      json.number("queueDepth", profile.queueDepth)
      json.number("bytesPerSecond", profile.bytesPerSecond)
      json.number("processorSecondsPerByte", profile.processorSecondsPerByte)
      json.number("bytesPerSecondWhileComputing", profile.bytesPerSecondWhileComputing)
      json.number("random4KiBytesPerSecond", profile.random4KiBytesPerSecond)
      json.number("random32KiBytesPerSecond", profile.random32KiBytesPerSecond)
    }
  }

  private static func driveName(_ drive: DriveIdentity, _ backend: String) -> String {
    "drive-\(drive.major)-\(drive.minor)-\(backend)"
  }

  private static func driveProfile(_ json: JSONValue) -> DriveProfile? {
    guard let major = json["major"]?.integer, let minor = json["minor"]?.integer,
      let fileSystem = json["fileSystem"]?.string, let model = json["model"]?.string,
      let sectorCount = json["sectorCount"]?.integer, let backend = json["backend"]?.string,
      let block = json["blockBytes"]?.integer, let depth = json["queueDepth"]?.integer,
      let rate = json["bytesPerSecond"]?.double,
      let processor = json["processorSecondsPerByte"]?.double,
      let computing = json["bytesPerSecondWhileComputing"]?.double,
      let small = json["random4KiBytesPerSecond"]?.double,
      let medium = json["random32KiBytesPerSecond"]?.double
    else { return nil }
    return DriveProfile(
      drive: DriveIdentity(
        major: major, minor: minor, fileSystem: fileSystem, model: model, sectorCount: sectorCount),
      backend: backend, blockByteCount: block, queueDepth: depth, bytesPerSecond: rate,
      processorSecondsPerByte: processor, bytesPerSecondWhileComputing: computing,
      random4KiBytesPerSecond: small, random32KiBytesPerSecond: medium)
  }

  // MARK: Processors

  /// The profile of this machine's processor with `threadCount` threads.
  public func computeProfile(threadCount: Int) -> ComputeProfile? {
    guard let json = read(Self.computeName(threadCount)),
      let profile = Self.computeProfile(json), profile.isPlausible,
      profile.threadCount == threadCount,
      profile.processor == Machine.processorName(),
      profile.instructionSet == ComputeMeasurement.instructionSetName
    else { return nil }
    return profile
  }

  /// Keeps `profile` in place of an older one.
  ///
  /// - Throws: `BlockIOError` if the folder cannot be made or written to.
  public func store(_ profile: ComputeProfile) throws(BlockIOError) {
    try write(Self.computeName(profile.threadCount)) { json in
      json.text("processor", profile.processor)
      json.number("threads", profile.threadCount)
      json.text("instructionSet", profile.instructionSet)
      json.number("memoryBytesPerSecond", profile.memoryBytesPerSecond)
      json.number("regionSeconds", profile.regionSeconds)
      json.array("products", of: profile.products) { list, rate in
        list.object { json in
          json.text("type", rate.type.name)
          json.text("layout", rate.layout.rawValue)
          json.number("decodeBytesPerSecond", rate.decodeBytesPerSecond)
          json.number("prefillOperationsPerSecond", rate.prefillOperationsPerSecond)
        }
      }
    }
  }

  private static func computeName(_ threadCount: Int) -> String { "compute-\(threadCount)" }

  private static func computeProfile(_ json: JSONValue) -> ComputeProfile? {
    guard let processor = json["processor"]?.string, let threads = json["threads"]?.integer,
      let set = json["instructionSet"]?.string,
      let memory = json["memoryBytesPerSecond"]?.double,
      let region = json["regionSeconds"]?.double, let list = json["products"]?.array
    else { return nil }
    var products: [ComputeProfile.ProductRate] = []
    for item in list {
      // A type of a later version is none of ours.
      guard let name = item["type"]?.string, let layout = item["layout"]?.string,
        let decode = item["decodeBytesPerSecond"]?.double,
        let prefill = item["prefillOperationsPerSecond"]?.double,
        let type = ElementType.allCases.first(where: { $0.name == name }),
        let rows = RowLayout(rawValue: layout)
      else { continue }
      products.append(
        ComputeProfile.ProductRate(
          type: type, layout: rows, decodeBytesPerSecond: decode,
          prefillOperationsPerSecond: prefill))
    }
    return ComputeProfile(
      processor: processor, threadCount: threads, instructionSet: set,
      memoryBytesPerSecond: memory, regionSeconds: region, products: products)
  }

  // MARK: Files

  private func read(_ name: String) -> JSONValue? {
    guard let folder,
      let file = try? FilePrefix(
        path: "\(folder)/\(name).json", byteCount: Self.maximumByteCount),
      file.byteCount == file.fileByteCount,
      let json = try? JSONParser.parse(file.bytes, path: name),
      json["version"]?.integer == Self.version
    else { return nil }
    return json
  }

  private func write(
    _ name: String, _ members: (inout JSONWriter) -> Void
  ) throws(BlockIOError) {
    guard let folder else { return }
    try CacheFolder.make(folder)
    let bytes = JSONWriter.document { json in
      json.number("version", Self.version)
      members(&json)
    }
    let file = try OutputFile(
      path: "\(folder)/\(name).json", reserving: bytes.count, inputs: [])
    try file.write(bytes, at: 0)
    try file.commit()
  }
}
