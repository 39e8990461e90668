import ModelFormat
import TensorBasics
import Testing
import WeightLoader

@Suite struct ResidencyPlanTests {
  /// A model of seeded matrices, back to back, with gaps here and there.
  private func model(seed: UInt64, layout: RowLayout) -> (ModelDescription, StreamOrder) {
    var generator = SeededGenerator(seed: seed)
    var description = ModelDescription(files: ["model"])
    var offset = Int.random(in: 0..<9000, using: &generator) / 32 * 32
    for index in 0..<Int.random(in: 1...40, using: &generator) {
      let type = ElementType.allCases.randomElement(using: &generator)!
      let columns = 256 * Int.random(in: 1...8, using: &generator)
      let rows = Int.random(in: 1...400, using: &generator)
      let byteCount =
        layout == .rowMajor
        ? rows * type.rowByteCount(columnCount: columns)!
        : RowGroup.groupCount(rows: rows) * RowGroup.byteCount(type, columnCount: columns)
      description.tensors.append(
        TensorRecord(
          name: "t\(index)", type: type, columnCount: columns, rowCount: rows, layout: layout,
          fileIndex: 0, offset: offset, byteCount: byteCount))
      offset += (byteCount + 31) / 32 * 32
      if Bool.random(using: &generator) { offset = AlignedBuffer.roundedUp(offset) }
    }
    let split = Int.random(in: 0...description.tensors.count, using: &generator)
    return (
      description,
      StreamOrder(segments: [
        Array(0..<split), Array(split..<description.tensors.count),
      ])
    )
  }

  @Test(arguments: [RowLayout.rowMajor, .interleaved])
  func coversEveryRowOnceUnderAnyBudget(layout: RowLayout) throws {
    for seed in UInt64(0)..<60 {
      let (description, order) = model(seed: seed, layout: layout)
      let options = ResidencyPlan.Options(readByteCount: 200_000, stagingByteCount: 500_000)
      let minimum = ResidencyPlan.minimumByteCount(
        model: description, order: order, options: options)
      for budget in [minimum, minimum * 2, minimum * 5, 1 << 40] {
        let plan = try ResidencyPlan.make(
          model: description, order: order, budget: budget, options: options)
        #expect(plan.byteCount <= budget, "seed \(seed)")
        for (tensor, record) in description.tensors.enumerated() {
          let pieces = plan.pieces[plan.piecesOfTensor[tensor]]
          #expect(pieces.reduce(0) { $0 + $1.rowCount } == record.rowCount, "seed \(seed)")
          #expect(pieces.reduce(0) { $0 + $1.byteCount } == record.byteCount, "seed \(seed)")
          #expect(pieces.allSatisfy { $0.firstRow % RowGroup.rowCount == 0 }, "seed \(seed)")
        }
        for run in plan.runs {
          #expect(run.offset % 4096 == 0 && run.byteCount % 4096 == 0, "seed \(seed)")
          for piece in plan.pieces[run.pieces] {
            #expect(
              piece.offset >= run.offset
                && piece.offset + piece.byteCount <= run.offset + run.byteCount, "seed \(seed)")
          }
        }
      }
    }
  }

  @Test func refusesLessThanItsMinimumAndNamesIt() throws {
    let (description, order) = model(seed: 7, layout: .rowMajor)
    let minimum = ResidencyPlan.minimumByteCount(model: description, order: order)
    #expect {
      try ResidencyPlan.make(model: description, order: order, budget: minimum - 1)
    } throws: { error in
      guard case .budgetTooSmall(_, ByteCount(minimum)) = error as? LoaderError else {
        return false
      }
      return true
    }
  }

  @Test func pinsWhatFitsSpreadOverTheDepth() throws {
    var description = ModelDescription(files: ["model"])
    for index in 0..<64 {
      description.tensors.append(
        TensorRecord(
          name: "t\(index)", type: .q8_0, columnCount: 1024, rowCount: 1024, layout: .rowMajor,
          fileIndex: 0, offset: index * 1_114_112, byteCount: 1_114_112))
    }
    let order = StreamOrder(segments: [Array(0..<64)])
    let plan = try ResidencyPlan.make(
      model: description, order: order, budget: 64 * 1_114_112 / 2,
      options: .init(readByteCount: 1_114_112, stagingByteCount: 4 << 20))
    let pinned = plan.runs.map(\.isPinned)
    for window in stride(from: 0, to: pinned.count - 8, by: 8) {
      let count = pinned[window..<window + 8].count { $0 }
      #expect((2...5).contains(count), "runs \(window)…: \(count) of 8 pinned")
    }
  }

  @Test func `Runs for borrowed memory lie apart and are no others than streamed ones`() throws {
    for seed in UInt64(0)..<60 {
      let (description, order) = model(seed: seed, layout: .interleaved)
      let options = ResidencyPlan.Options(readByteCount: 50_000, stagingByteCount: 200_000)
      let minimum = ResidencyPlan.minimumByteCount(
        model: description, order: order, options: options)
      for borrowable in [0, 100_000, 2_000_000, 1 << 40] {
        let plan = try ResidencyPlan.make(
          model: description, order: order, budget: minimum * 2, options: options,
          borrowable: borrowable)
        var end = 0
        for index in plan.borrowers {
          #expect(!plan.runs[index].isPinned && plan.runs[index].borrowedOffset == end)
          end += plan.runs[index].byteCount
        }
        #expect(plan.borrowableByteCount == end && end <= borrowable, "seed \(seed)")
        #expect(Set(plan.borrowers).count == plan.borrowers.count)
        #expect(plan.runs.count { $0.borrowedOffset != nil } == plan.borrowers.count)
        if borrowable == 1 << 40 { #expect(end == plan.streamedByteCount, "seed \(seed)") }
        // Half of them, and a quarter, are in both halves of the depth.
        let middle = plan.borrowers.sorted()[safe: plan.borrowers.count / 2] ?? 0
        for part in [2, 4] where plan.borrowers.count >= 16 {
          let early = plan.borrowers.prefix(plan.borrowers.count / part).count { $0 < middle }
          let share = Double(early) * Double(part) / Double(plan.borrowers.count)
          #expect((0.3...0.7).contains(share), "seed \(seed): \(share)")
        }
      }
    }
  }
}

extension Array {
  fileprivate subscript(safe index: Int) -> Element? {
    indices.contains(index) ? self[index] : nil
  }
}

private func ~= (pattern: ByteCount, value: ByteCount) -> Bool { pattern == value }
