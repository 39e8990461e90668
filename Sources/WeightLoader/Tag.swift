/// What a completion belongs to, packed into the request's tag.
enum Tag {
  case placed(Int)
  case streamed(Int)
  case row(Int)
  case bundle(Int)
  case neurons(Int)

  static func placed(_ run: Int) -> UInt64 { 1 << shift | UInt64(run) }
  static func streamed(_ sequence: Int) -> UInt64 { UInt64(sequence) }
  static func row(_ slot: Int) -> UInt64 { 2 << shift | UInt64(slot) }
  static func bundle(_ slot: Int) -> UInt64 { 3 << shift | UInt64(slot) }
  static func neurons(_ read: Int) -> UInt64 { 4 << shift | UInt64(read) }

  private static let shift: UInt64 = 61

  init(_ tag: UInt64) {
    let number = Int(tag & ~(7 << Self.shift))
    switch tag >> Self.shift {
    case 0: self = .streamed(number)
    case 1: self = .placed(number)
    case 2: self = .row(number)
    case 3: self = .bundle(number)
    default: self = .neurons(number)
    }
  }
}
