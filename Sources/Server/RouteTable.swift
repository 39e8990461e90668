import HTTPTypes
import Hummingbird

/// The paths that there are, and what can be done at each.
struct RouteTable: Sendable {
  private var paths: [(parts: [Substring], methods: [HTTPRequest.Method])] = []

  init(_ router: Router<ConnectionContext>) {
    for route in router.routes {
      let parts = "\(route.path)".split(separator: "/")
      if let index = paths.firstIndex(where: { $0.parts == parts }) {
        paths[index].methods.append(route.method)
      } else {
        paths.append((parts, [route.method]))
      }
    }
  }

  /// The methods of a request's path; none where there is no such path.
  func methods(at path: String) -> [HTTPRequest.Method] {
    let asked = path.split(separator: "/")
    let found = paths.first { known in
      known.parts.count == asked.count
        && zip(known.parts, asked).allSatisfy { $0.hasPrefix("{") || $0 == $1 }
    }
    guard let methods = found?.methods else { return [] }
    return methods.contains(.get) && !methods.contains(.head) ? [.head] + methods : methods
  }
}
