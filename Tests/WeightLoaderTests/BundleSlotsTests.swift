import TensorBasics
import Testing
import WeightLoader

/// Room for experts whose layers are stored in several types.
@Suite struct BundleSlotsTests {
  @Test func `Equal layers have one class with as many slots as memory has room for`() {
    for memory in [800, 4321, 100_000] {
      let slots = BundleSlots(
        .init(repeating: (100, 16), count: 10), within: memory, heldAtOnce: 8)
      #expect(slots.classes.count == 1 && slots.classOfFamily == .init(repeating: 0, count: 10))
      #expect(slots.slotCount == min(160, memory / 100))
    }
  }

  @Test func `Layers of other types have slots of their own length, for the same share of each`() {
    // Half of the layers in 2 bits, a quarter in 3, a quarter in 4.
    let families = (0..<32).map {
      (slotByteCount: [84, 84, 110, 144][$0 % 4] << 10, bundleCount: 64)
    }
    let whole = families.reduce(0) { $0 + $1.slotByteCount * $1.bundleCount }
    for percent in [30, 50, 90] {
      let memory = whole / 100 * percent
      let slots = BundleSlots(families, within: memory, heldAtOnce: 8)
      #expect(slots.classes.map(\.slotByteCount) == [144 << 10, 110 << 10, 84 << 10])
      // With slots of the longest, a quarter of the memory and more was never filled.
      #expect(slots.slotCount > memory / (144 << 10) * 5 / 4)
      #expect(memory - slots.byteCount < 144 << 10)
      for item in slots.classes {
        let share = 100 * Double(item.slotCount) / Double(item.bundleCount)
        #expect((share - Double(percent)).magnitude < 1)
      }
    }
    #expect(BundleSlots(families, within: whole, heldAtOnce: 8).slotCount == 32 * 64)
  }

  @Test func `Where memory is short classes are merged, down to one`() {
    let families = [(slotByteCount: 100, bundleCount: 64), (90, 16), (40, 64)]
    // The second has as many experts as two tokens use: by itself it needs room for all of them.
    #expect(BundleSlots(families, within: 10_400, heldAtOnce: 8).classes.count == 3)
    let two = BundleSlots(families, within: 3000, heldAtOnce: 8)
    #expect(two.classes.map(\.slotByteCount) == [100, 40] && two.classOfFamily == [0, 0, 1])
    let one = BundleSlots(families, within: 800, heldAtOnce: 8)
    #expect(one.classes.map(\.slotByteCount) == [100] && one.slotCount == 8)
  }

  @Test func `Any mixture has room for what is held at once, within its memory`() {
    var generator = SeededGenerator(seed: 9)
    for _ in 0..<500 {
      let held = Int.random(in: 1...10, using: &generator)
      let families = (0..<Int.random(in: 1...40, using: &generator)).map { _ in
        (
          slotByteCount: 4096 * Int.random(in: 1...12, using: &generator),
          bundleCount: Int.random(in: held...64, using: &generator)
        )
      }
      let longest = families.map(\.slotByteCount).max() ?? 0
      let whole = families.reduce(0) { $0 + $1.slotByteCount * $1.bundleCount }
      let memory = held * longest + Int.random(in: 0...whole, using: &generator)
      let slots = BundleSlots(families, within: memory, heldAtOnce: held)
      #expect(slots.byteCount <= memory)
      for (family, number) in zip(families, slots.classOfFamily) {
        #expect(slots.classes[number].slotByteCount >= family.slotByteCount)
        #expect(slots.classes[number].slotCount >= min(family.bundleCount, held))
      }
      #expect(slots.slotCount >= min(memory / longest, families.reduce(0) { $0 + $1.bundleCount }))
    }
  }
}
