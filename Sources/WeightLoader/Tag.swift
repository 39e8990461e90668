/// What a completion belongs to, packed into the request's tag.
enum Tag {
  case pinned(Int)
  case streamed(Int)
  case row(Int)
  case bundle(Int)

  static func pinned(_ run: Int) -> UInt64 { 1 << 62 | UInt64(run) }
  static func streamed(_ sequence: Int) -> UInt64 { UInt64(sequence) }
  static func row(_ slot: Int) -> UInt64 { 2 << 62 | UInt64(slot) }
  static func bundle(_ slot: Int) -> UInt64 { 3 << 62 | UInt64(slot) }

  init(_ tag: UInt64) {
    let number = Int(tag & ~(3 << 62))
    switch tag >> 62 {
    case 0: self = .streamed(number)
    case 1: self = .pinned(number)
    case 2: self = .row(number)
    default: self = .bundle(number)
    }
  }
}
