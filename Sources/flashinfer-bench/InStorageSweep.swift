import CommandLineSupport
import InStorageAttention
import ModelFormat

/// One parameter varied, all others held: decoded tokens per second in every cell.
struct InStorageSweep {
  struct Point {
    let value: Double
    /// `nil` where the cell is impossible: keys and values do not fit.
    let hostDense: Double?
    let hostSparse: Double?
    let inStorageDense: Double?
    let inStorageSparse: Double?
    /// Keys and values in host memory, where they fit.
    let memoryDense: Double?
    let memorySparse: Double?
  }

  let name: String
  let unit: String
  let points: [Point]

  /// What is varied, from one common point.
  private struct Setting {
    var model: SystemModel
    var workload = SystemWorkload(
      model: .llama3With8B, batch: 32, promptLength: 32768, outputLength: 256)
    var driveCount = 1
  }

  /// All sweeps of `model`.
  static func all(_ model: SystemModel) throws -> [InStorageSweep] {
    let base = Setting(model: model)
    return [
      try sweep("context", "tokens", base, (11...18).map { 1 << $0 }) {
        $0.workload.promptLength = $1
      },
      try sweep("batch", "sequences", base, (0...8).map { 1 << $0 }) { $0.workload.batch = $1 },
      try sweep("channels", "channels", base, [2, 4, 8, 16, 32]) {
        $0.model.drive.geometry.channelCount = $1
      },
      try sweep("link", "PCIe generation", base, [3, 4, 5, 6]) {
        // ×4 for a drive, ×16 for a processor; each generation doubles.
        $0.model.drive.linkBytesPerSecond = 7e9 * Double(1 << $1) / 16
        if let copy = $0.model.system.copyBytesPerSecond {
          $0.model.system.linkBytesPerSecond = 32e9 * Double(1 << $1) / 16
          $0.model.system.copyBytesPerSecond = min(
            copy, 0.8 * $0.model.system.linkBytesPerSecond)
        }
      },
      try sweep("group", "query heads per KV head", base, [1, 2, 4, 8, 16, 32]) {
        $0.workload.model.keyValueHeadCount = $0.workload.model.queryHeadCount / $1
      },
      try sweep("drives", "drives", base, [1, 2, 4, 8, 16, 20]) { $0.driveCount = $1 },
    ]
  }

  private static func sweep(
    _ name: String, _ unit: String, _ base: Setting, _ values: [Int],
    _ vary: (inout Setting, Int) -> Void
  ) throws -> InStorageSweep {
    InStorageSweep(
      name: name, unit: unit,
      points: try values.map { value in
        var setting = base
        vary(&setting, value)
        return try point(Double(value), setting)
      })
  }

  private static func point(_ value: Double, _ setting: Setting) throws -> Point {
    let sparse = AttentionMode.sparse(compression: 0.125)
    func rate(_ placement: KeyValuePlacement, _ mode: AttentionMode) throws -> Double? {
      do {
        let timing = try setting.model.run(setting.workload, placement, mode)
        return Double(setting.workload.batch * setting.workload.outputLength)
          / timing.decodeSeconds
      } catch TimingError.driveFull {
        return nil
      }
    }
    let host = KeyValuePlacement.hostStorage(driveCount: setting.driveCount)
    let drives = KeyValuePlacement.inStorage(driveCount: setting.driveCount)
    let fits = setting.model.fitsHostMemory(setting.workload)
    return Point(
      value: value, hostDense: try rate(host, .dense), hostSparse: try rate(host, sparse),
      inStorageDense: try rate(drives, .dense), inStorageSparse: try rate(drives, sparse),
      memoryDense: fits ? try rate(.hostMemory, .dense) : nil,
      memorySparse: fits ? try rate(.hostMemory, sparse) : nil)
  }
}

extension InStorageBench {
  /// Prints sweeps for people.
  func printLines(_ sweeps: [InStorageSweep]) {
    for sweep in sweeps {
      Terminal.print("decoded tokens/s by \(sweep.unit), simulated\n")
      let heads = ["host", "host sparse", "in-storage", "in-st. sparse", "DRAM", "DRAM sparse"]
      Terminal.print(
        sweep.name.padded(to: 9) + heads.map { $0.padded(to: -15) }.joined() + "\n")
      for point in sweep.points {
        let cells = point.cells.map { ($0.1.map(digits) ?? "–").padded(to: -15) }
        Terminal.print(point.value.fixed(0).padded(to: 9) + cells.joined() + "\n")
      }
      Terminal.print("\n")
    }
  }

  /// Prints sweeps as one JSON object.
  func printJSON(_ sweeps: [InStorageSweep]) {
    report([], asJSON: true) { json in
      json.flag("simulated", true)
      json.array("sweeps", of: sweeps) { list, sweep in
        list.object { json in
          json.text("name", sweep.name)
          json.text("unit", sweep.unit)
          json.array("points", of: sweep.points) { list, point in
            list.object { json in
              json.number("value", point.value)
              for (name, rate) in point.cells { json.number(name, rate) }
            }
          }
        }
      }
    }
  }
}

extension InStorageSweep.Point {
  /// Names and rates of all cells.
  fileprivate var cells: [(String, Double?)] {
    [
      ("hostDense", hostDense), ("hostSparse", hostSparse), ("inStorageDense", inStorageDense),
      ("inStorageSparse", inStorageSparse), ("memoryDense", memoryDense),
      ("memorySparse", memorySparse),
    ]
  }
}
